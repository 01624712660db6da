"""What an archive of statistics kept, as a test says it: for collectors, which read it and write nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import trio

from moonxd.domain.stats import BridgeStats, ChainStats, Overview, Point


class Archive:
    """What was kept, as a test says."""

    def __init__(self, *rows: ChainStats, points: Mapping[int, Sequence[Point]] | None = None) -> None:
        self.rows = rows
        self.points = points or {}
        self.error: Exception | None = None
        self.delay_s = 0.0

    async def _answer(self) -> None:
        await trio.sleep(self.delay_s)
        if self.error is not None:
            raise self.error

    async def chains(self) -> tuple[ChainStats, ...]:
        await self._answer()
        return self.rows

    async def chain_history(self, chain_id: int, *, since_ms: int, until_ms: int, step_s: float) -> tuple[Point, ...]:
        await self._answer()
        return tuple(point for point in self.points.get(chain_id, ()) if since_ms <= point.at_ms < until_ms)

    async def put_chains(self, rows: Sequence[ChainStats]) -> None:
        raise AssertionError("what becomes of a round is the runner's affair")

    async def put_bridges(self, rows: Sequence[BridgeStats]) -> None:
        raise AssertionError("a collector of chains knows no bridges")

    async def put_overview(self, overview: Overview) -> None:
        raise AssertionError("a collector of chains knows no overview")

    async def bridges(self) -> tuple[BridgeStats, ...]:
        return ()

    async def overview(self) -> Overview | None:
        return None

    async def bridge_history(
        self, provider: str, route: str, *, since_ms: int, until_ms: int, step_s: float
    ) -> tuple[Point, ...]:
        return ()
