"""When too many jobs fail for good: a share over a sliding window, with hysteresis so that it does not flap."""

from __future__ import annotations

from collections import deque

import msgspec

#: Ended jobs that are remembered at most; beyond it the oldest count no more.
_MOST = 10_000


class AlarmRule(msgspec.Struct, frozen=True, kw_only=True):
    """Raised at `raise_at` or more of at least `min_jobs` ended jobs, cleared below `clear_at`. Shares are 0..1."""

    raise_at: float = 0.2
    clear_at: float = 0.1
    window_s: float = 300.0
    min_jobs: int = 20


class Reading(msgspec.Struct, frozen=True):
    """The alarm changed: it is `raised` now or over, and this is what was counted."""

    raised: bool
    failed: int
    ended: int

    @property
    def share(self) -> float:
        return self.failed / self.ended if self.ended else 0.0


class Alarm:
    """Counts ended jobs. Times are seconds of one clock that never goes back."""

    def __init__(self, rule: AlarmRule) -> None:
        self._rule = rule
        self._ended: deque[tuple[float, bool]] = deque()
        self._failed = 0
        self.is_raised = False

    def ended(self, failed: bool, now: float) -> None:
        self._ended.append((now, failed))
        self._failed += failed
        if len(self._ended) > _MOST:
            self._drop()

    def look(self, now: float) -> Reading | None:
        """What changed since the last look, if anything did."""
        while self._ended and self._ended[0][0] <= now - self._rule.window_s:
            self._drop()
        reading = Reading(not self.is_raised, self._failed, len(self._ended))
        if self._changes(reading):
            self.is_raised = not self.is_raised
            return reading
        return None

    def _changes(self, reading: Reading) -> bool:
        rule = self._rule
        if self.is_raised:
            # With nothing ended there is nothing wrong any more that anybody could see.
            return reading.share < rule.clear_at or reading.ended == 0
        return rule.raise_at > 0 and reading.ended >= rule.min_jobs and reading.share >= rule.raise_at

    def _drop(self) -> None:
        _, failed = self._ended.popleft()
        self._failed -= failed
