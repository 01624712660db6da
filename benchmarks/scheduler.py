"""The periodic scheduler on real PostgreSQL and Redis: many registered wallets, some of them due at once.

    python -m benchmarks.scheduler [--wallets 1000000] [--due 50000] [--stale 10000] [--only flood|manual] [--json]

flood: the due wallets are queued by a daemon whose event loop is watched; how long it takes, the longest step, memory.
manual: manual high jobs behind a backlog of stale ones; from their addition to their start, by the queue's own stamps.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psycopg
import trio

from moonxd.adapters.postgres.migrate import migrate
from moonxd.adapters.redis.client import Redis, open_redis
from moonxd.api import calls, users
from moonxd.api.client import Client
from moonxd.api.messages import EnqueueRequest

from .stats import Spread, spread
from .sync_load import address
from .sync_steps import Steps
from .sync_world import Daemon, World, daemon, external, rss_mb, simulator

_WATCHED = ("-m", "benchmarks.sync_steps")
_QUEUED = "bull:sync-jobs:prioritized"
#: All of them active and known; those that are due are due at once and stale, one in ten of them rich.
_FILL = """
INSERT INTO moonxd_wallet_schedule (user_id, wallet_address, rank, due_at, look_at, last_active_at)
SELECT 'user-' || n, '0x' || lpad(to_hex(n), 40, '0'), CASE WHEN n % 10 = 0 THEN 0 ELSE 1 END, due, due, now()
FROM generate_series(1, {wallets}) n,
    LATERAL (SELECT date_trunc('second', now()) + make_interval(secs => CASE WHEN n % {every} = 0 THEN -5
        ELSE 86400 + n % 900 END) AS due) d;
INSERT INTO user_sync_status (user_id, wallet_address, last_sync_at, total_value_usd, updated_at)
SELECT 'user-' || n, '0x' || lpad(to_hex(n), 40, '0'), now() - interval '2 hours',
    CASE WHEN n % 10 = 0 THEN 25000 ELSE 100 END, now() - interval '2 hours'
FROM generate_series(1, {wallets}) n;
"""


class Flood(msgspec.Struct, frozen=True, kw_only=True):
    """`figures_s`: what measuring freshness over all wallets takes the database."""

    wallets: int
    due: int
    batch: int
    seconds: float
    per_s: float
    longest_step_ms: float
    longest_step_cpu_ms: float
    longest_step: str
    longest_collection_ms: float
    rss_before_mb: float
    rss_peak_mb: float
    figures_s: float


class Manual(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from a manual high job's addition to its start; `behind`: jobs that waited when it was added."""

    stale: int
    behind: Spread
    start_s: Spread


def _fill(dsn: str, wallets: int, due: int) -> None:
    trio.run(migrate, dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in _FILL.format(wallets=wallets, every=max(1, wallets // due)).split(";\n"):
            if statement.strip():
                connection.execute(statement.encode())
        connection.execute("UPDATE moonxd_schedule_state SET is_paused = true")


@contextmanager
def _filled(world: World, wallets: int, due: int) -> Iterator[dict[str, str]]:
    """A database with wallets whose schedule is paused."""
    with world.fresh_parts("scheduler") as environ:
        _fill(environ["DATABASE_URL"], wallets, due)
        yield dict(environ)


async def _queued(redis: Redis) -> int:
    return int(await redis.call("ZCARD", _QUEUED))


async def _await_queued(world: World, running: Daemon, count: int, within_s: float) -> tuple[float, float]:
    """Seconds until `count` jobs wait, and the highest memory of the daemon meanwhile in MB."""
    began, peak = time.monotonic(), 0.0
    async with open_redis(running.redis_settings) as redis:
        with trio.fail_after(within_s):
            while await _queued(redis) < count:
                peak = max(peak, rss_mb(running.pid))
                await trio.sleep(0.05)
    return time.monotonic() - began, max(peak, rss_mb(running.pid))


def flood(world: World, *, wallets: int, due: int, batch: int) -> Flood:
    with _filled(world, wallets, due) as environ:
        report = world.home / f"steps{batch}.json"
        extra = {**environ, "BENCHMARK_STEPS": str(report), "PERIODIC_SYNC_BATCH_SIZE": str(batch)}
        with daemon(world, slots=1, program=_WATCHED, extra=extra) as running:
            with Client(running.socket) as client:
                client.call(calls.pause())
                began = time.monotonic()
                client.call(users.stats())
                figures_s = time.monotonic() - began
                before = rss_mb(running.pid)
                os.kill(running.pid, signal.SIGUSR1)
                client.call(users.resume())
            seconds, peak = trio.run(_await_queued, world, running, due, 300.0)
            os.kill(running.pid, signal.SIGUSR2)
    steps = msgspec.json.decode(report.read_bytes(), type=Steps)
    longest = max(steps.worst, key=lambda step: step.wall_ms) if steps.worst else None
    return Flood(
        wallets=wallets,
        due=due,
        batch=batch,
        seconds=round(seconds, 2),
        per_s=round(due / seconds),
        longest_step_ms=longest.wall_ms if longest else 0.0,
        longest_step_cpu_ms=max((step.cpu_ms for step in steps.worst), default=0.0),
        longest_step=f"{longest.task} at {longest.where}" if longest else "",
        longest_collection_ms=steps.worst_gc_ms,
        rss_before_mb=round(before, 1),
        rss_peak_mb=round(peak, 1),
        figures_s=round(figures_s, 2),
    )


def manual(world: World, *, stale: int, rounds: int, latency_ms: float) -> Manual:
    world.sim.latency(latency_ms)
    waits: list[float] = []
    behind: list[float] = []
    with (
        _filled(world, stale, stale) as environ,
        daemon(world, slots=10, extra=environ) as running,
        Client(running.socket) as client,
    ):
        client.call(calls.pause())
        client.call(users.resume())
        trio.run(_await_queued, world, running, stale, 120.0)
        client.call(calls.resume())
        for number in range(rounds):
            time.sleep(0.3)
            behind.append(float(client.call(calls.queue_stats()).counts["prioritized"]))
            waits.append(_start_of_a_manual_job(client, number))
    return Manual(stale=stale, behind=spread(behind), start_s=spread(waits))


def _start_of_a_manual_job(client: Client, number: int) -> float:
    ask = EnqueueRequest(
        type="portfolio-sync", user_id=f"person-{number}", wallet_address=address(number), priority="high"
    )
    job = client.call(calls.wait_for_job(client.call(calls.enqueue(ask)).job_id, 60.0))
    if job.timestamps.processed is None:
        raise RuntimeError(f"a manual job was not started within a minute: it is {job.state}")
    return (job.timestamps.processed - job.timestamps.created) / 1000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scheduler", description=__doc__)
    parser.add_argument("--wallets", type=int, default=1_000_000)
    parser.add_argument("--due", type=int, default=50_000)
    parser.add_argument("--stale", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--latency-ms", type=float, default=100.0)
    parser.add_argument("--batch", type=int, nargs="+", default=[10])
    parser.add_argument("--only", choices=("flood", "manual"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found: list[Flood | Manual] = []
    with tempfile.TemporaryDirectory(prefix="moonxd-bench-") as folder:
        # The database's server is another user than root.
        home = Path(folder)
        home.chmod(0o755)
        with simulator(home) as sim, external(home) as parts:
            world = World(home, sim, parts)
            if given.only != "manual":
                found += [flood(world, wallets=given.wallets, due=given.due, batch=size) for size in given.batch]
            if given.only != "flood":
                found.append(manual(world, stale=given.stale, rounds=given.rounds, latency_ms=given.latency_ms))
    if given.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n")
        return 0
    for one in found:
        print(
            f"{type(one).__name__}:", ", ".join(f"{key} {value}" for key, value in msgspec.structs.asdict(one).items())
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
