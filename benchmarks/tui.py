"""What the live view costs: CPU of one update and of its repaint, in process, without a terminal.

    python -m benchmarks.tui --seconds-of-news 60 --size 200x60 [--json]

Every update changes the daemon's line, the queue, the rates, every running job and a third of the endpoints, as a busy
worker does four times a second; `core_share` is what that takes of one core. What the terminal needs is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

from moonxd.api.schema import ChainHealth, Daemon, Delta, QueueDepth, Rates, RunningJob, Snapshot, difference
from tui.app import REPAINT_S, TopApp
from tui.feed import Failed, Feed, NoStatistics, Requeued, Statistics

START = 1_772_334_765.0


def picture(step: int) -> Snapshot:
    """The daemon at `step`, a quarter of a second after the one before."""
    now = START + step * REPAINT_S
    return Snapshot(
        seq=step + 1,
        at=now,
        daemon=Daemon(
            version="0.1.0", pid=1, worker="worker-1", host="host", state="running", started_at=START - 60, slots=50,
            slots_busy=40 + step % 10, is_paused=False, rss_bytes=(50 << 20) + step * 4096, cpu=0.5 + step % 7 / 100,
            loop_lag=0.001 * (step % 5), redis="embedded", database="embedded",
        ),
        queue=QueueDepth(
            name="sync-jobs", waiting=1_000 + step * 37 % 500, prioritized=step % 30, active=40 + step % 10, delayed=3,
            waiting_children=0, completed=100, failed=2, paused=0, is_paused=False,
        ),
        rates=Rates(completed=step * 20, failed=0, retried=step // 9, per_second=80.0 + step % 9, p50=0.4, p95=0.9),
        running=tuple(_job(step, slot, now) for slot in range(40)),
        chains=tuple(_chain(step, number) for number in range(12)),
        breakers=None,
        failures=(),
        children=(),
    )  # fmt: skip


def _job(step: int, slot: int, now: float) -> RunningJob:
    return RunningJob(
        id=str(1_000 + slot + 40 * ((step + slot) // 4)),
        name="portfolio-sync",
        user=f"user-{slot}",
        wallet=f"0x{slot * 7919:040x}",
        attempt=1,
        step=("admit", "fetch", "price", "commit")[(step + slot) % 4],
        started_at=now - (step + slot) % 4 * REPAINT_S,
    )


def _chain(step: int, number: int) -> ChainHealth:
    requests = 1_000 + (step if number % 3 == 0 else 0) * 11
    return ChainHealth(
        chain_id=number, chain=f"chain-{number}", provider="rpc.example", requests=requests, errors=0, p50=0.1, p95=0.4
    )


class _Scripted:
    """Hands out the next message whenever the benchmark asks for it."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Snapshot | Delta] = asyncio.Queue()

    async def stream(self) -> AsyncGenerator[Snapshot | Delta]:
        while True:
            yield await self.messages.get()

    async def statistics(self, *, since: float, step: float) -> Statistics:
        raise NoStatistics("none are kept here")

    async def pause(self) -> None: ...

    async def resume(self, *, worker: bool = False) -> None: ...

    async def requeueable(self) -> Failed:
        return Failed(0)

    async def requeue_failed(self) -> Requeued:
        return Requeued(0, 0)


async def measure(updates: int, size: tuple[int, int]) -> dict[str, float]:
    """Mean CPU milliseconds of an update with its repaint, and the share of a core, at four updates a second."""
    feed = _Scripted()

    @asynccontextmanager
    async def connect() -> AsyncIterator[Feed]:
        yield feed

    now = START
    app = TopApp(connect, clock=lambda: now)
    async with app.run_test(size=size) as pilot:
        pictures = [picture(step) for step in range(updates + 1)]
        feed.messages.put_nowait(pictures[0])
        while not app.state.is_live:
            await pilot.pause(0.01)
        cpu, began = time.process_time(), time.monotonic()
        for old, new in pairwise(pictures):
            now = new.at
            feed.messages.put_nowait(difference(old, new))
            await asyncio.sleep(REPAINT_S)
        cpu, wall = time.process_time() - cpu, time.monotonic() - began
    return {"updates": updates, "cpu_ms_per_update": round(cpu / updates * 1000, 2), "core_share": round(cpu / wall, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds-of-news", type=int, default=30)
    parser.add_argument("--size", default="200x60", help="columns x rows")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    columns, rows = (int(part) for part in options.size.split("x"))
    result = asyncio.run(measure(int(options.seconds_of_news / REPAINT_S), (columns, rows)))
    if options.json:
        print(json.dumps(result))
    else:
        print(f"{result['cpu_ms_per_update']} ms CPU an update, {result['core_share']:.1%} of a core at 4 a second")


if __name__ == "__main__":
    main()
