"""`python -m benchmarks.relay_syncs`: how late events are on Kafka while a daemon syncs wallets as fast as it can.

Daemon, simulator, Redis, PostgreSQL and an Apache Kafka (`make kafka`) are processes of their own on this machine.
`new`: wallets never seen before; `seen`: the same ones again; `away`: new ones while the broker is dead. The lag is
PostgreSQL's own: from an event's row until the row is marked, which is after the broker acknowledged it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import msgspec
import psycopg
import trio

from tests.services.kafka import KafkaServer

from .stats import nearest_rank, spread
from .sync_load import WARM_UP, Bench, Load
from .sync_world import World, daemon, external, producer, simulator

_LAGS = """SELECT extract(epoch FROM published_at - created_at)::float8 * 1000 FROM moonxd_outbox WHERE id > %s"""


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """Of one load. Lags and CPU are ms; None: nothing left meanwhile. `rss_mb` is the daemon's memory."""

    wallets_per_s: float
    events_per_s: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    worst_ms: float | None = None
    daemon_ms: float
    rss_mb: float


class Outbox:
    """What the database says of the events."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def newest(self) -> int:
        return int(self._one("SELECT coalesce(max(id), 0) FROM moonxd_outbox"))

    def waiting(self) -> int:
        return int(self._one("SELECT count(*) FROM moonxd_outbox WHERE published_at IS NULL"))

    def lags(self, after: int) -> list[float]:
        with psycopg.connect(self._dsn) as connection:
            return [row[0] for row in connection.execute(_LAGS, [after]).fetchall()]

    def _one(self, question: psycopg.abc.Query) -> int:
        with psycopg.connect(self._dsn) as connection:
            row = connection.execute(question).fetchone()
        assert row is not None
        return int(row[0])


async def _drained(outbox: Outbox, within_s: float = 120.0) -> float:
    """Seconds until nothing waits."""
    began = trio.current_time()
    with trio.fail_after(within_s):
        while await trio.to_thread.run_sync(outbox.waiting):  # noqa: ASYNC110 (another process)
            await trio.sleep(0.1)
    return trio.current_time() - began


async def _phase(bench: Bench, outbox: Outbox, numbers: Sequence[int], *, away: bool = False) -> Phase:
    newest = outbox.newest()
    load: Load = await bench.measure(numbers)
    lags: list[float] = []
    if not away:
        await _drained(outbox)
        lags = outbox.lags(newest)
    count = outbox.newest() - newest
    return Phase(
        wallets_per_s=load.wallets_per_s,
        events_per_s=round(count / load.seconds, 1),
        p50_ms=round(median(lags), 1) if lags else None,
        p99_ms=round(nearest_rank(lags, 0.99), 1) if lags else None,
        worst_ms=round(max(lags), 1) if lags else None,
        daemon_ms=load.daemon_ms,
        rss_mb=load.rss_mb,
    )


async def measure(world: World, kafka: KafkaServer, dsn: str, wallets: int, slots: int) -> dict[str, Phase]:
    outbox, found = Outbox(dsn), {}
    world.sim.latency(0)
    extra = {"DATABASE_URL": dsn, "KAFKA_BROKERS": kafka.address(), "MOONXD_STATS__ENABLED": "false"}
    with daemon(world, slots=slots, extra=extra) as running:
        async with producer(running.redis_settings) as (redis, queue):
            bench = Bench(world, running, redis, queue)
            await bench.sync(range(WARM_UP))
            await _drained(outbox)
            fresh, dead = range(1000, 1000 + wallets), range(1000 + wallets, 1000 + 2 * wallets)
            found["new"] = await _phase(bench, outbox, fresh)
            found["seen"] = await _phase(bench, outbox, fresh)
            kafka.kill()
            found["away"] = await _phase(bench, outbox, dead, away=True)
            waiting = outbox.waiting()
            kafka.start()
            _note(f"  {waiting} events waited, drained {await _drained(outbox):.1f} s after the broker was back")
    return found


@contextmanager
def _worlds(rounds: int) -> Iterator[Iterator[tuple[World, KafkaServer, str]]]:
    with tempfile.TemporaryDirectory(prefix="moonxd-bench-") as scratch:
        home = Path(scratch)
        home.chmod(0o755)  # PostgreSQL runs as another user when we are root
        (home / "external").mkdir()
        kafka = KafkaServer(home / "kafka")
        try:
            with simulator(home) as sim, external(home) as parts:
                world = World(home / "external", sim, parts)

                def each() -> Iterator[tuple[World, KafkaServer, str]]:
                    for number in range(rounds):
                        parts.flush_redis()
                        kafka.start()
                        yield world, kafka, parts.postgres.create(f"relay{number}")

                yield each()
        finally:
            kafka.kill()


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relay_syncs", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--wallets", type=int, default=1500, help="of each load")
    parser.add_argument("--slots", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rounds: list[dict[str, Phase]] = []
    with _worlds(given.rounds) as worlds:
        for world, kafka, dsn in worlds:
            rounds.append(trio.run(measure, world, kafka, dsn, given.wallets, given.slots))
            for name, phase in rounds[-1].items():
                _note(f"{name:<5} {msgspec.json.encode(phase).decode()}")
    away = spread(one["away"].wallets_per_s / one["new"].wallets_per_s for one in rounds)
    _note(f"wallets/s without the broker over those with it: {away}")
    if given.json:
        print(json.dumps([msgspec.to_builtins(one) for one in rounds], indent=2))


if __name__ == "__main__":
    main()
