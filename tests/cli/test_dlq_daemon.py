"""Ten thousand jobs that a daemon failed for good, of which the queue kept fifty: all come back, by one command."""

from __future__ import annotations

import json

import pytest
import trio

from moonxd.adapters.bullmq.queue import BullQueue
from moonxd.adapters.redis.client import open_redis
from moonxd.adapters.redis.settings import parse_redis_url
from moonxd.api import calls
from moonxd.domain.job import JobOptions, Keep, NewJob
from tests.cli.test_serve import cli
from tests.services.daemon import DaemonProcess, StartDaemon, until
from tests.services.simulator import SimulatorProcess

pytestmark = [pytest.mark.slow, pytest.mark.postgres]

FAILURES = 10_000


async def add_failing_jobs(redis_url: str) -> None:
    """As a producer with a mistake adds them: addresses that are none, and the queue keeps fifty failures."""
    keep = JobOptions(attempts=3, remove_on_fail=Keep(count=50))
    async with open_redis(parse_redis_url(redis_url)) as redis:
        queue = BullQueue(redis, "sync-jobs", worker_name="producer")
        for page in range(FAILURES // 500):
            await queue.add(
                [
                    NewJob(
                        name="portfolio-sync",
                        data={"userId": f"u{page}", "walletAddress": "0x12"},
                        options=keep,
                        id=f"job-{page}-{number}",
                    )
                    for number in range(500)
                ]
            )


def letters(daemon: DaemonProcess) -> int:
    with daemon.client() as client:
        total: int = client.call(calls.dead_letters(limit=1)).total
    return total


def test_ten_thousand_failures_of_a_daemon_come_back_with_one_command(
    start_daemon: StartDaemon, simulator: SimulatorProcess, redis_url: str, postgres_dsn: str
) -> None:
    daemon = start_daemon({**simulator.env, "REDIS_URL": redis_url, "DATABASE_URL": postgres_dsn})
    trio.run(add_failing_jobs, redis_url)
    until(lambda: letters(daemon) == FAILURES, "every failure is a dead letter", 90, daemon.log)
    snapshot = daemon.snapshot()
    assert snapshot is not None
    assert snapshot.queue.failed == 50, "the queue's own set was trimmed"
    with daemon.client() as client:
        client.call(calls.pause())
    counted = json.loads(cli(daemon, "dlq", "requeue", "--all", "--dry-run", "--json").stdout)
    assert counted["matched"] == FAILURES
    done = cli(daemon, "dlq", "requeue", "--all", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["requeued"] + result["restored"], result["skipped"]) == (FAILURES, 0)
    with daemon.client() as client:
        job = client.call(calls.job("job-7-123"))
        snapshot = client.call(calls.status())
    assert (job.state, job.data["walletAddress"], job.data["userId"]) == ("waiting", "0x12", "u7")
    depth = snapshot.queue
    assert (depth.waiting + depth.prioritized + depth.paused, depth.failed) == (FAILURES, 0)
    assert letters(daemon) == 0
