"""Many wallets at once: throughput, what a wallet costs each process, and memory under load."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
import trio

from moonxd.adapters.bullmq.queue import BullQueue
from moonxd.adapters.redis.client import Redis
from moonxd.domain.job import KEEP_ALL, JobOptions, NewJob

from .sync_world import Daemon, Usage, World, daemon, producer, rss_mb, until_count

#: Wallets synced before anything is measured: chain ids checked, prices cached, connections open.
WARM_UP = 150
_BATCH = 500
_OPTIONS = JobOptions(attempts=3, priority=5, remove_on_complete=KEEP_ALL, remove_on_fail=KEEP_ALL)


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One run over many wallets. CPU is milliseconds of each process per wallet."""

    wallets: int
    seconds: float
    wallets_per_s: float
    per_daemon_cpu_s: float
    daemon_ms: float
    simulator_ms: float
    redis_ms: float
    database_ms: float
    rss_mb: float


def address(number: int) -> str:
    return "0x" + hashlib.sha256(f"moonxd benchmark {number}".encode()).hexdigest()[:40]


def job(number: int) -> NewJob:
    data = {"userId": f"user-{number}", "walletAddress": address(number), "priority": "medium", "syncType": "portfolio"}
    return NewJob(name="portfolio-sync", data=data, options=_OPTIONS)


class Bench:
    """A running daemon and the producer beside it."""

    def __init__(self, world: World, running: Daemon, redis: Redis, queue: BullQueue) -> None:
        self.world = world
        self.daemon = running
        self.redis = redis
        self.queue = queue
        self._done = 0

    async def sync(self, numbers: Sequence[int], within_s: float = 300.0) -> list[str]:
        """Queue these wallets and wait for all of them; their job ids."""
        ids: list[str] = []
        for start in range(0, len(numbers), _BATCH):
            ids += await self.queue.add([job(number) for number in numbers[start : start + _BATCH]])
        await self._await(len(ids), within_s)
        return ids

    async def _await(self, count: int, within_s: float) -> None:
        self._done += count
        await until_count(self.redis, "completed", self._done, within_s)

    async def measure(self, numbers: Sequence[int]) -> Load:
        """Queue while paused, then let go."""
        await trio.to_thread.run_sync(self.daemon.pause)
        ids: list[str] = []
        for start in range(0, len(numbers), _BATCH):
            ids += await self.queue.add([job(number) for number in numbers[start : start + _BATCH]])
        before = self.world.usage(self.daemon)
        await trio.to_thread.run_sync(self.daemon.resume)
        await self._await(len(ids), 600.0)
        used = self.world.usage(self.daemon).since(before)
        return self._load(used, await self._seconds(ids), len(ids))

    def _load(self, used: Usage, seconds: float, count: int) -> Load:
        return Load(
            wallets=count,
            seconds=round(seconds, 2),
            wallets_per_s=round(count / seconds, 1),
            per_daemon_cpu_s=round(count / used.daemon, 1),
            daemon_ms=round(used.daemon / count * 1000, 2),
            simulator_ms=round(used.simulator / count * 1000, 2),
            redis_ms=round(used.redis / count * 1000, 3),
            database_ms=round(used.database / count * 1000, 2),
            rss_mb=round(rss_mb(self.daemon.pid), 1),
        )

    async def _seconds(self, ids: Sequence[str]) -> float:
        """From the first job's start to the last one's end, by the queue's own stamps."""
        asks = [("HMGET", f"bull:sync-jobs:{one}", "processedOn", "finishedOn") for one in ids]
        stamps = [
            reply for start in range(0, len(asks), _BATCH) for reply in await self.redis.many(asks[start:][:_BATCH])
        ]
        return max((max(int(end) for _, end in stamps) - min(int(begin) for begin, _ in stamps)) / 1000, 0.001)


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """Rounds of wallets never seen before, and of the same ones again, with nothing changed on the chains."""

    first: list[Load]
    again: list[Load]


async def throughput(world: World, *, slots: int, wallets: int, rounds: int) -> Throughput:
    """The simulator answers at once; the daemon, its private Redis included, is kept on one core."""
    world.sim.latency(0)
    results = Throughput(first=[], again=[])
    with daemon(world, slots=slots, core=0) as running:
        async with producer(running.redis_settings) as (redis, queue):
            bench = Bench(world, running, redis, queue)
            await bench.sync(range(WARM_UP))
            for number in range(rounds):
                fresh = range(1000 + number * wallets, 1000 + (number + 1) * wallets)
                results.first.append(await bench.measure(fresh))
                results.again.append(await bench.measure(fresh))
    return results
