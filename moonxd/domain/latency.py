"""How fast and how busy an endpoint is, as numbers: who is asked first, when a second one is asked, how many at a time.

No clocks: times and durations are arguments, in seconds.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from itertools import islice

#: Share of the newest sample in the moving average.
_ALPHA = 0.2
#: Samples that percentiles are taken of; enough for a p95, few enough to follow a change within minutes.
_SAMPLES = 128
#: Fewer samples than this say nothing about the tail.
_TAIL_FROM = 20
#: How fast an endpoint is now is the median of so many requests, or half of them to begin with.
_SPEED_OF = 16
#: Faster than this is all the same: below it differences are noise, and would only make us change endpoints.
_FAST_S = 0.05


class Latency:
    """Durations of one endpoint's recent requests."""

    __slots__ = ("_newest", "_ordered", "_recent", "ewma")

    def __init__(self) -> None:
        #: The moving average, None before the first sample.
        self.ewma: float | None = None
        self._recent: deque[float] = deque()
        self._ordered: list[float] = []
        self._newest = -math.inf

    def add(self, seconds: float, now: float) -> None:
        """One request took `seconds`; `now` is any clock that does not go back."""
        self.ewma = seconds if self.ewma is None else self.ewma + _ALPHA * (seconds - self.ewma)
        self._newest = now
        if len(self._recent) == _SAMPLES:
            oldest = self._recent.popleft()
            del self._ordered[self._ordered.index(oldest)]
        self._recent.append(seconds)
        insort(self._ordered, seconds)

    def percentile(self, share: float) -> float | None:
        """Nearest rank; None before there are enough samples to speak of a tail."""
        count = len(self._ordered)
        return None if count < _TAIL_FROM else self._ordered[min(count - 1, int(share * count))]

    def current(self, now: float, fresh_s: float) -> float | None:
        """What a request takes; None when the last one is older than `fresh_s`: it may have recovered since.

        The median of the last few: a rare slow request is for a second endpoint to mend, no reason to move to it.
        """
        if len(self._recent) < _SPEED_OF // 2 or now - self._newest > fresh_s:
            return None
        last = sorted(islice(reversed(self._recent), _SPEED_OF))
        return last[(len(last) - 1) // 2]

    def hedge_after(self) -> float | None:
        """How long to wait before asking a second endpoint the same: the p95, None when it is not known.

        Never more than three medians: with more slow requests than one in twenty the p95 is itself a slow one. Never
        less than two: where everything takes about the same, an answer a little late is no reason to ask again.
        """
        p95, median = self.percentile(0.95), self.percentile(0.5)
        return None if p95 is None or median is None else min(max(p95, 2 * median), 3 * median)


def tier(latency: float | None) -> int:
    """Endpoints of one tier are equally fast: each tier is twice as slow as the one before. Unknown is fast."""
    return 0 if latency is None else max(0, math.ceil(math.log2(max(latency, _FAST_S) / _FAST_S)))


def rank(trouble: int, latency: float | None, place: int) -> tuple[int, int, int]:
    """The key to sort endpoints by: health first, then latency, then the place in the configuration.

    `trouble`: 0 healthy, 1 on probation (half-open), 2 failed a moment ago.
    """
    return trouble, tier(latency), place


class Concurrency:
    """How many requests at a time an endpoint takes, found by trying: more while it answers, half when it cannot.

    Never below 1. A limit is cut at most once per `rest_s`: one overload fails many requests at once.
    """

    __slots__ = ("_cut_at", "_earned", "limit", "most", "rest_s")

    def __init__(self, start: int = 16, most: int = 100, rest_s: float = 1.0) -> None:
        self.limit = max(1, min(start, most))
        self.most = max(1, most)
        self.rest_s = rest_s
        self._earned = 0
        self._cut_at = -math.inf

    def succeeded(self, busy: int) -> None:
        """A request was answered while `busy` were under way; a limit that nobody fills is not raised."""
        if busy < self.limit or self.limit >= self.most:
            return
        self._earned += 1
        if self._earned >= self.limit:
            self.limit, self._earned = self.limit + 1, 0

    def overloaded(self, now: float) -> None:
        """It asked for less, or did not answer in time."""
        if now - self._cut_at >= self.rest_s:
            self.limit, self._earned, self._cut_at = max(1, self.limit // 2), 0, now


class HedgeBudget:
    """Second requests as a share of the first ones: each request earns `share`, each hedge costs one."""

    __slots__ = ("_most", "_saved", "share")

    def __init__(self, share: float = 0.1, most: float = 10.0) -> None:
        self.share = share
        self._most = most
        self._saved = 0.0

    def earn(self) -> None:
        self._saved = min(self._most, self._saved + self.share)

    def spend(self) -> bool:
        """Whether one more hedge is within the budget; if so it is paid for."""
        # The sums of tenths fall short of one by rounding.
        if self._saved < 1.0 - 1e-9:
            return False
        self._saved -= 1.0
        return True


def lag_blocks(height: int, best: int) -> int:
    """How many blocks an endpoint is behind the best one."""
    return max(0, best - height)


def lag_allowed(block_time_s: float, lag_s: float) -> int:
    """How many blocks an endpoint may be behind: what `lag_s` seconds make, and a few for heads seen at other times."""
    return max(5, math.ceil(lag_s / block_time_s))
