"""The wallet sync, measured as ratios in one run: daemon, simulator, Redis and database are processes of their own.

    python -m benchmarks.sync [--rounds 5] [--wallets 1000] [--only SECTION ...] [--json]

Sections: overhead (a sync beside the bare requests of its slowest chain), throughput (wallets per second of one core,
and what a wallet costs each process), waiting (ten slots at 100 ms beside Little's law), memory, start, steps (what
held up the event loop). Every figure is a median of rounds with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from . import sync_life, sync_load, sync_single
from .stats import Spread, spread
from .sync_steps import Steps
from .sync_world import World, external, simulator

#: Latencies of the overhead's rounds in ms; in the last setting the chains differ.
_LATENCIES = ({"all": 50.0}, {"all": 100.0}, {"all": 20.0, "polygon": 80.0, "bsc": 60.0})


class Options(msgspec.Struct, frozen=True):
    rounds: int
    wallets: int


Section = Callable[[World, Options], Awaitable[Any]]


async def _overhead(world: World, options: Options) -> dict[str, Any]:
    rounds = 3 * options.rounds
    return {
        "prices_warm": await sync_single.overhead(world, latencies=_LATENCIES, rounds=rounds),
        "prices_cold": await sync_single.overhead(
            world, latencies=_LATENCIES[:2], rounds=rounds, extra=sync_single.COLD
        ),
    }


async def _throughput(world: World, options: Options) -> dict[str, dict[str, Spread]]:
    found = await sync_load.throughput(world, slots=10, wallets=options.wallets, rounds=options.rounds)
    fields = [name for name in sync_load.Load.__struct_fields__ if name != "wallets"]
    return {
        name: {field: spread((getattr(load, field) for load in loads), 2) for field in fields}
        for name, loads in (("first", found.first), ("again", found.again))
    }


async def _waiting(world: World, options: Options) -> sync_single.Waiting:
    return await sync_single.waiting(world, slots=10, latency_ms=100, wallets=300, rounds=options.rounds)


async def _memory(world: World, options: Options) -> sync_life.Memory:
    return await sync_life.memory(world, slots=50, wallets=options.wallets)


async def _start(world: World, options: Options) -> sync_life.Start:
    return await sync_life.start(world, rounds=options.rounds)


async def _steps(world: World, options: Options) -> Steps:
    return await sync_life.steps(world, slots=50, wallets=options.wallets, latency_ms=20)


SECTIONS: dict[str, Section] = {
    "overhead": _overhead,
    "throughput": _throughput,
    "waiting": _waiting,
    "memory": _memory,
    "start": _start,
    "steps": _steps,
}


@contextmanager
def worlds() -> Iterator[dict[str, World]]:
    """The embedded default, and the external parts of production."""
    with tempfile.TemporaryDirectory(prefix="moonxd-bench-") as scratch:
        home = Path(scratch)
        home.chmod(0o755)  # PostgreSQL runs as another user when we are root
        for name in ("embedded", "external"):
            (home / name).mkdir()
        with simulator(home) as sim, external(home) as parts:
            yield {
                "embedded": World(home / "embedded", sim, None),
                "external": World(home / "external", sim, parts),
            }


def measure(only: Sequence[str], options: Options) -> dict[str, Any]:
    results: dict[str, Any] = {}
    with worlds() as both:
        for section in only:
            for name, world in both.items():
                _note(f"{section}: {world.kind}")
                before = os.getloadavg()[0]
                found = trio.run(SECTIONS[section], world, options)
                results.setdefault(section, {})[name] = found
                _note(f"  load of the machine {before:.1f} -> {os.getloadavg()[0]:.1f}")
    return results


def _note(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sync", description="The wallet sync, as ratios")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wallets", type=int, default=1000, help="wallets per round of a load")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--json", action="store_true", help="print JSON only")
    given = parser.parse_args()
    results = measure(given.only, Options(given.rounds, given.wallets))
    if given.json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    else:
        _show(msgspec.to_builtins(results))


def _show(value: Any, indent: str = "") -> None:
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, dict) and inner.keys() == {"median", "low", "high", "n"}:
            print(f"{indent}{name:<18} {inner['median']:<10g} [{inner['low']:g} - {inner['high']:g}]")
        elif isinstance(inner, (dict, list)):
            print(f"{indent}{name}")
            _show(inner, indent + "  ")
        else:
            print(f"{indent}{name:<18} {inner}")


if __name__ == "__main__":
    main()
