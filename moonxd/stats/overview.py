"""Puts the latest of all chains and bridges together. Nothing is probed for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from ..domain.overview import overview
from ..domain.stats import BridgeStats, ChainStats, Round

Chains = Callable[[], Awaitable[Sequence[ChainStats]]]
Bridges = Callable[[], Awaitable[Sequence[BridgeStats]]]


class OverviewOf:
    """A `ports.Collector` over the latest values, as the archive or whoever has them gives them.

    Values that are older than `stale_s` seconds are shown as unknown.
    """

    name = "overview"

    def __init__(self, chains: Chains, bridges: Bridges, *, stale_s: float = 900.0) -> None:
        self._chains = chains
        self._bridges = bridges
        self._stale_s = stale_s

    async def collect(self, now_ms: int) -> Round:
        """See ports.Collector. Raises what reading the latest values raises."""
        chains, bridges = await self._chains(), await self._bridges()
        return Round(overview=overview(chains, bridges, at_ms=now_ms, stale_s=self._stale_s))
