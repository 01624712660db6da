"""A round of chain statistics beside its slowest probe: six chains, one endpoint slow, one that hangs.

    python -m benchmarks.chainstats [--rounds 20] [--json]

Against the simulator in a process of its own: five chains answer after 20 to 60 ms, one after 120 ms; then that one
never answers (its probe ends at its deadline of one second). Printed are the duration of a round, that of
its slowest probe, both in ms, and their ratio (the bar: 1.2), as medians with the lowest and the highest round.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import trio

from benchmarks.stats import Spread, ratios, spread
from benchmarks.sync_world import simulator
from moonxd.adapters.chains import Guards, build_probes
from moonxd.adapters.rpc import open_transport
from moonxd.domain.breakers import Breakers
from moonxd.domain.chain import CHAINS
from moonxd.domain.looks import Look, Want
from moonxd.domain.stats import BridgeStats, ChainStats, Overview, Point
from moonxd.ports import ChainProbe
from moonxd.stats.chain_performance import ChainPerformance

_LATENCIES_MS = {"polygon": 20.0, "optimism": 30.0, "arbitrum": 40.0, "base": 50.0, "bsc": 60.0}
_SLOWEST_MS = 120.0
_TIMEOUT_S = 1.0
_WARM_UP = 2


class NothingKept:
    """An archive without a past."""

    async def chains(self) -> tuple[ChainStats, ...]:
        return ()

    async def chain_history(self, chain_id: int, *, since_ms: int, until_ms: int, step_s: float) -> tuple[Point, ...]:
        return ()

    async def bridges(self) -> tuple[BridgeStats, ...]:
        return ()

    async def bridge_history(
        self, provider: str, route: str, *, since_ms: int, until_ms: int, step_s: float
    ) -> tuple[Point, ...]:
        return ()

    async def overview(self) -> Overview | None:
        return None

    async def put_chains(self, rows: Sequence[ChainStats]) -> None:
        return None

    async def put_bridges(self, rows: Sequence[BridgeStats]) -> None:
        return None

    async def put_overview(self, overview: Overview) -> None:
        return None


class Timed:
    """A probe whose last look is timed."""

    def __init__(self, probe: ChainProbe) -> None:
        self.host = probe.host
        self.seconds = 0.0
        self._probe = probe

    async def look(self, want: Want) -> Look | None:
        started = time.perf_counter()
        try:
            return await self._probe.look(want)
        finally:
            self.seconds = time.perf_counter() - started


async def measure(environ: Mapping[str, str], rounds: int) -> dict[str, Spread]:
    """Rounds against the endpoints of `environ`, one after the other."""
    async with open_transport() as transport:
        breakers = Breakers(trio.current_time)
        probes = {
            chain.id: [
                Timed(probe)
                for probe in build_probes(
                    chain, transport, urls=[environ[f"{chain.slug.upper()}_RPC_URL"]], timeout_s=_TIMEOUT_S,
                    guards=Guards(breakers=breakers),
                )
            ]
            for chain in CHAINS.values()
        }  # fmt: skip
        stats = ChainPerformance(probes, NothingKept())
        whole, slowest = [], []
        for number in range(_WARM_UP + rounds):
            for view in breakers.views():
                # Every round looks at every endpoint, however often it failed.
                breakers.reset(view.name)
            started = time.perf_counter()
            await stats.collect(round(time.time() * 1000))
            seconds = time.perf_counter() - started
            if number >= _WARM_UP:
                whole.append(seconds * 1000)
                slowest.append(1000 * max(probe.seconds for timed in probes.values() for probe in timed))
    return {"round_ms": spread(whole, 1), "slowest_ms": spread(slowest, 1), "ratio": ratios(whole, slowest)}


def main() -> None:
    parser = argparse.ArgumentParser(description="A round of chain statistics beside its slowest probe.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, simulator(Path(home)) as sim:
        sim.latency(0, ethereum=_SLOWEST_MS, **_LATENCIES_MS)
        found: dict[str, Any] = {"all answer": trio.run(measure, sim.environ, args.rounds)}
        sim.hang("ethereum")
        found["one hangs"] = trio.run(measure, sim.environ, args.rounds)
    if args.json:
        print(json.dumps(msgspec.to_builtins(found)))
        return
    for case, values in found.items():
        print(f"{case:12}" + ", ".join(f"{name} {value}" for name, value in values.items()))


if __name__ == "__main__":
    main()
