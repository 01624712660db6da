"""Budgets of this process alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from ...domain.quota import Charge, Windows


class MemoryQuota:
    """A `ports.Quota` for one process. Time is trio's monotonic clock."""

    def __init__(self, now: Callable[[], float] = trio.current_time) -> None:
        self._windows = Windows(now)

    async def take(self, charges: Sequence[Charge]) -> float:
        await trio.lowlevel.checkpoint()
        return self._windows.take(charges)
