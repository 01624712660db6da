"""Statistics for as long as the process lives."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import trio

from ...domain.archive import Keep, Sample, bridge_sample, chain_sample, downsampled, merged
from ...domain.stats import BridgeStats, ChainStats, Overview, Point


class MemoryArchive:
    """A `ports.StatsArchive`. `now` gives unix seconds."""

    def __init__(self, *, keep: Keep | None = None, now: Callable[[], float] = time.time) -> None:
        self._keep = keep or Keep()
        self._now = now
        self._chains: dict[int, ChainStats] = {}
        self._bridges: dict[tuple[str, str], BridgeStats] = {}
        self._overview: Overview | None = None
        #: By chain id or (provider, route), then by time.
        self._history: dict[int | tuple[str, str], dict[int, Sample]] = {}

    async def put_chains(self, rows: Sequence[ChainStats]) -> None:
        await trio.lowlevel.checkpoint()
        for row in rows:
            self._chains[row.chain_id] = merged(self._chains.get(row.chain_id), row)
            self._add(row.chain_id, chain_sample(row))

    async def put_bridges(self, rows: Sequence[BridgeStats]) -> None:
        await trio.lowlevel.checkpoint()
        for row in rows:
            key = (row.provider, row.route)
            self._bridges[key] = merged(self._bridges.get(key), row)
            self._add(key, bridge_sample(row))

    async def put_overview(self, overview: Overview) -> None:
        await trio.lowlevel.checkpoint()
        if self._overview is None or overview.at_ms >= self._overview.at_ms:
            self._overview = overview

    async def chains(self) -> tuple[ChainStats, ...]:
        await trio.lowlevel.checkpoint()
        return tuple(self._chains[chain_id] for chain_id in sorted(self._chains))

    async def bridges(self) -> tuple[BridgeStats, ...]:
        await trio.lowlevel.checkpoint()
        return tuple(self._bridges[key] for key in sorted(self._bridges))

    async def overview(self) -> Overview | None:
        await trio.lowlevel.checkpoint()
        latest = self._overview
        return latest if latest is not None and latest.at_ms >= self._before(self._keep.overview_ms) else None

    async def chain_history(self, chain_id: int, *, since_ms: int, until_ms: int, step_s: float) -> tuple[Point, ...]:
        await trio.lowlevel.checkpoint()
        return self._steps(chain_id, since_ms, until_ms, step_s)

    async def bridge_history(
        self, provider: str, route: str, *, since_ms: int, until_ms: int, step_s: float
    ) -> tuple[Point, ...]:
        await trio.lowlevel.checkpoint()
        return self._steps((provider, route), since_ms, until_ms, step_s)

    def _add(self, key: int | tuple[str, str], sample: Sample) -> None:
        history = self._history.setdefault(key, {})
        history.setdefault(sample.at_ms, sample)
        before = self._before(self._keep.history_ms)
        while history and (oldest := next(iter(history))) < before:
            del history[oldest]

    def _steps(self, key: int | tuple[str, str], since_ms: int, until_ms: int, step_s: float) -> tuple[Point, ...]:
        since_ms = max(since_ms, self._before(self._keep.history_ms))
        samples = self._history.get(key, {}).values()
        return downsampled(samples, since_ms=since_ms, until_ms=until_ms, step_s=step_s)

    def _before(self, keep_ms: int) -> int:
        return int(self._now() * 1000) - keep_ms
