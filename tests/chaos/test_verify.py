"""Everything that stands between a producer and a reader dies while 5,000 syncs run: nothing lost, nothing doubled."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import pytest
import trio

from moonxd.adapters.bullmq.queue import BullQueue
from moonxd.adapters.redis.client import open_redis
from moonxd.adapters.redis.settings import parse_redis_url
from moonxd.domain.job import JobOptions, NewJob
from tests.chaos.world import QUICK, assert_verified, open_operations, wallet
from tests.services.daemon import DaemonProcess, StartDaemon, until
from tests.services.kafka import KafkaServer
from tests.services.postgres import PostgresServer
from tests.services.simulator import SimulatorProcess

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.redis]

SYNCS, WALLETS = 5000, 1000


async def produce(redis_url: str, count: int) -> list[str]:
    """`count` jobs of a producer that keeps its own list: a line per job."""
    options = JobOptions(attempts=20)
    jobs = [
        NewJob(
            name="portfolio-sync",
            id=f"sync-{number}",
            timestamp=int(time.time() * 1000),
            data={"userId": f"user-{number % 50}", "walletAddress": wallet(number % WALLETS)},
            options=options,
        )
        for number in range(count)
    ]
    async with open_redis(parse_redis_url(redis_url)) as redis:
        await BullQueue(redis, "sync-jobs", worker_name="producer").add(jobs)
    return [msgspec.json.encode({"id": job.id, "timestamp": job.timestamp}).decode() for job in jobs]


def ended(*daemons: DaemonProcess) -> int:
    """Jobs that are done, as whichever daemon answers tells. The queue itself keeps the last hundred."""
    for daemon in daemons:
        snapshot = daemon.snapshot()
        if snapshot is not None and snapshot.queue.fresh:
            queue = snapshot.queue
            return SYNCS - queue.waiting - queue.prioritized - queue.active - queue.delayed - queue.paused
    return 0


def publisher(daemons: list[DaemonProcess]) -> DaemonProcess | None:
    for daemon in daemons:
        snapshot = daemon.snapshot()
        if snapshot is not None and snapshot.outbox is not None and snapshot.outbox.relay == "holding":
            return daemon
    return None


@pytest.mark.timeout(240)
def test_broker_relay_and_database_die_while_5000_syncs_run(
    start_daemon: StartDaemon, simulator: SimulatorProcess, start_kafka: Callable[..., KafkaServer], redis_url: str,
    start_postgres: Callable[..., PostgresServer],
) -> None:  # fmt: skip
    postgres, kafka = start_postgres(("synchronous_commit=on",)), start_kafka()
    shared = {
        **simulator.env, **QUICK, "REDIS_URL": redis_url, "DATABASE_URL": postgres.tcp_dsn,
        "KAFKA_BROKERS": kafka.address(), "ENABLED_CHAINS": "ethereum",
        "MOONXD_WORKER__MAX_STALLED": "100", "MOONXD_WORKER__CONCURRENCY": "20",
    }  # fmt: skip
    daemons = [start_daemon({**shared, "MOONXD_DAEMON__WORKER_NAME": name}) for name in ("first", "second")]
    jobs = trio.run(produce, redis_url, SYNCS)

    def explain() -> str:
        return "\n".join(f"{daemon.snapshot()}\n{daemon.log()[-2000:]}" for daemon in daemons)

    def past(count: int) -> None:
        until(lambda: ended(*daemons) >= count, f"{count} syncs are done", 90, explain)

    past(400)
    kafka.kill()
    past(1000)
    kafka.start()
    past(1300)
    owner = until(lambda: publisher(daemons), "somebody publishes", 30, explain)
    owner.kill()
    past(2000)
    owner.start(wait=False)
    past(2500)
    postgres.kill()
    postgres.start()
    past(3200)
    kafka.kill()
    owner = until(lambda: publisher(daemons), "somebody holds the right to publish", 30, explain)
    owner.kill()
    postgres.kill()
    postgres.start()
    kafka.start()
    owner.start(wait=False)
    past(SYNCS)
    for daemon in daemons:
        daemon.await_running()
    until(lambda: not open_operations(daemons[0]), "audit rows are closed", 30)
    until(lambda: _unpublished(daemons[0]) == 0, "everything is published", 60, explain)
    report = assert_verified(daemons[0], jobs)
    assert report.read["claimed jobs"] == SYNCS
    assert report.read["completed jobs"] <= 100, "the queue has forgotten the others"
    assert report.read["operations"] == SYNCS
    assert report.read["records"] >= report.read["events"] >= 3 * SYNCS


def _unpublished(daemon: DaemonProcess) -> int | None:
    snapshot = daemon.snapshot()
    return None if snapshot is None or snapshot.outbox is None else snapshot.outbox.unpublished
