"""What the view knows of the daemon's statistics, how old that is, and how an answer changes it: pure functions."""

from __future__ import annotations

import msgspec

from .feed import Statistics

#: Seconds after which an answer is called old; they are asked for every few seconds.
OLD_AFTER = 15.0
#: The history that is asked for, and one step of it (seconds).
SPAN_S, STEP_S = 3600.0, 60.0


class Figures(msgspec.Struct, frozen=True):
    """`found` is the last answer, of `heard_at`; `reason` and `hint` why the latest attempt failed."""

    found: Statistics | None = None
    heard_at: float | None = None
    #: Since when an answer is being waited for.
    asked_at: float | None = None
    reason: str = ""
    hint: str = ""
    #: False: the daemon said that it keeps none.
    is_kept: bool = True

    def is_current(self, now: float) -> bool:
        return self.found is not None and not self.reason and now - (self.heard_at or 0.0) <= OLD_AFTER

    def as_of(self, now: float) -> float:
        """The moment that the numbers describe: ages stop growing when nobody confirms that they still do."""
        return now if self.heard_at is None or self.is_current(now) else self.heard_at


class Asking(msgspec.Struct, frozen=True):
    """A request for statistics is under way."""

    now: float


class Measured(msgspec.Struct, frozen=True):
    """An answer."""

    found: Statistics
    now: float


class Unmeasured(msgspec.Struct, frozen=True):
    """No answer, and why. `is_kept` False: this daemon keeps no statistics at all."""

    reason: str
    hint: str
    is_kept: bool = True


News = Asking | Measured | Unmeasured


def learn(figures: Figures, news: News) -> Figures:
    """The figures after `news`; the last good ones stay when a request failed."""
    match news:
        case Asking(now):
            return msgspec.structs.replace(figures, asked_at=now)
        case Measured(found, now):
            return Figures(found=found, heard_at=now)
        case Unmeasured(reason, hint, is_kept):
            if not is_kept:
                return Figures(reason=reason, hint=hint, is_kept=False)
            return msgspec.structs.replace(figures, asked_at=None, reason=reason, hint=hint, is_kept=True)
