"""Keeps what the market says about chains at hand, so that a round of statistics never waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

import trio

from ..domain.stats import Figures
from ..ports import MarketFigures

#: How often the source is asked for what it has; it fetches anew when that is old.
EVERY_S = 60.0
#: A volume "of 24 hours" that is older than this is nobody's any more.
STALE_S = 6 * 3600.0


class Markets:
    """A supervised child. `now` gives unix seconds."""

    def __init__(
        self, source: MarketFigures, chain_ids: Sequence[int], *, now: Callable[[], float] = time.time
    ) -> None:
        self._source = source
        self._chain_ids = tuple(chain_ids)
        self._now = now
        self._known: Mapping[int, Figures] = {}

    def __call__(self) -> dict[int, tuple[Decimal | None, Decimal | None]]:
        """By chain id: the volume of 24 hours and what is locked, in USD. Never waits; what is not known is absent."""
        oldest_ms = (self._now() - STALE_S) * 1000
        return {
            chain_id: (figures.volume_24h_usd, figures.tvl_usd)
            for chain_id, figures in self._known.items()
            if figures.at_ms >= oldest_ms
        }

    async def run(self, ready: Callable[[], None]) -> None:
        """Runs until cancelled. Ready at once: nothing depends on it."""
        ready()
        while True:
            self._known = await self._source.figures(self._chain_ids)
            await trio.sleep(EVERY_S)
