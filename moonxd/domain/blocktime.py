"""How fast a chain makes blocks: measured between two of them, compared with what is usual for it.

Times are unix seconds, durations seconds.
"""

from __future__ import annotations

import math
from statistics import median

import msgspec

#: A block time is measured over no less than this.
SPAN_S = 60.0
#: We aim at twice of it: stamps are whole seconds, which is below one percent then, and a chain that became twice as
#: fast is still measured.
_AIM_S = 2 * SPAN_S
#: Where blocks are slow a single late one must not decide.
_FEWEST = 20
_HOUR_S = 3600.0
#: What is usual is the median of a week's hours, among which the seed counts as half a day.
_HOURS = 7 * 24
_SEED_HOURS = 12


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A block header, as far as statistics look at it. `at` has fractions where the chain's headers have them."""

    number: int
    hash: str
    parent: str
    at: float


def blocks_back(block_time_s: float) -> int:
    """How many blocks lie between the two that a block time is measured with."""
    return max(_FEWEST, math.ceil(_AIM_S / block_time_s))


def pace(old: Block, new: Block) -> float | None:
    """Seconds per block between the two, over whatever span; None when they do not follow each other."""
    blocks, seconds = new.number - old.number, new.at - old.at
    return seconds / blocks if blocks > 0 and seconds > 0 else None


def measured(old: Block, new: Block) -> float | None:
    """The block time, None when the span is too short to say it."""
    return pace(old, new) if new.at - old.at >= SPAN_S else None


def change_pct(now: float | None, before: float | None) -> float | None:
    """In percent of `before`."""
    return None if now is None or before is None or before <= 0 else (now / before - 1) * 100


class Usual:
    """The block time that is usual for a chain: a slow median, so that a bad day does not become the measure."""

    __slots__ = ("_hours", "_seed_s")

    def __init__(self, seed_s: float) -> None:
        self._seed_s = seed_s
        #: Sum and number of the measurements by hour.
        self._hours: dict[int, tuple[float, int]] = {}

    def note(self, block_time_s: float, at: float) -> None:
        """A block time was measured at `at`; the order does not matter."""
        hour = int(at // _HOUR_S)
        total, count = self._hours.get(hour, (0.0, 0))
        self._hours[hour] = (total + block_time_s, count + 1)
        while len(self._hours) > _HOURS:
            del self._hours[min(self._hours)]

    @property
    def seconds(self) -> float:
        return median([self._seed_s] * _SEED_HOURS + [total / count for total, count in self._hours.values()])
