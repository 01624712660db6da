"""How high a chain is: a function of the time, so that heads advance by themselves and survive a restart."""

from __future__ import annotations

from typing import NamedTuple

from moonxd.domain.chain import Chain

#: 2025-01-01T00:00:00Z, and about how high the chains stood then.
_ANCHOR_AT = 1_735_689_600.0
_ANCHOR_HEIGHTS = {
    1: 21_525_890,
    10: 130_000_000,
    56: 45_330_000,
    137: 66_150_000,
    8453: 24_450_000,
    42161: 290_700_000,
}


class _Era(NamedTuple):
    """A stretch of the chain with one block time: block `height` stands at time `at`."""

    height: int
    at: float
    block_time: float


class Head:
    """The tip of one chain. Times are unix seconds."""

    def __init__(self, chain: Chain) -> None:
        self._seeded = chain.block_time
        self._eras = [_Era(_ANCHOR_HEIGHTS.get(chain.id, 1_000_000), _ANCHOR_AT, chain.block_time)]
        self._halted_at: int | None = None

    def height(self, now: float) -> int:
        """The newest block."""
        if self._halted_at is not None:
            return self._halted_at
        era = self._eras[-1]
        return era.height + max(0, int((now - era.at) / era.block_time))

    def next_at(self, now: float) -> float | None:
        """When the block after the newest one comes; None while the chain stands still."""
        if self._halted_at is not None:
            return None
        era = self._eras[-1]
        return era.at + (self.height(now) + 1 - era.height) * era.block_time

    def timestamp(self, height: int) -> float:
        """When a block was made."""
        era = next((era for era in reversed(self._eras) if height > era.height), self._eras[0])
        return era.at + (height - era.height) * era.block_time

    def height_at(self, when: float, now: float) -> int:
        """The newest block that was made at or before `when`."""
        era = next((era for era in reversed(self._eras) if when >= era.at), self._eras[0])
        return min(self.height(now), max(0, era.height + int((when - era.at) // era.block_time)))

    def follow(self, *, halted: bool, block_time: float | None, now: float) -> None:
        """Halt, go on, or change pace. A chain that goes on does so from where it stopped, with honest timestamps."""
        height = self.height(now)
        pace = block_time or self._seeded
        if halted:
            self._halted_at = height
            return
        if self._halted_at is not None or pace != self._eras[-1].block_time:
            self._halted_at = None
            self._eras.append(_Era(height, now, pace))
