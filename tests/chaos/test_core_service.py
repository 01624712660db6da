"""Requests of the core service while the daemon or Redis is killed: each becomes one job and gets its reply."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
import trio

from tests.chaos.world import QUICK, assert_verified, completed, wallet
from tests.services.daemon import DaemonProcess, StartDaemon, until
from tests.services.node import NodePeer, Start
from tests.services.redis import RedisServer
from tests.services.simulator import SimulatorProcess

pytestmark = [pytest.mark.chaos, pytest.mark.node, pytest.mark.redis, pytest.mark.slow]

PREFIX = "moonx:sync-proxy:"
REQUESTS = f"{PREFIX}sync:requests"
ON = {
    "MOONXD_CORE_SERVICE__ENABLED": "true",
    "MOONXD_CORE_SERVICE__LEASE_S": "1",
    # Jobs that run while their daemon is killed again and again are not at fault.
    "MOONXD_WORKER__MAX_STALLED": "100",
}


def left(redis: RedisServer) -> int:
    return int(redis.command("LLEN", REQUESTS))


def held(redis: RedisServer) -> int:
    """Requests that somebody, dead or alive, has taken and not finished."""
    keys: Sequence[bytes] = redis.command("KEYS", f"{PREFIX}sync:processing:*")
    return sum(int(redis.command("LLEN", key)) for key in keys)


async def push(client: NodePeer, count: int) -> list[str]:
    jobs: list[str] = await client("pushMany", wallets=[wallet(number) for number in range(count)])
    return jobs


async def assert_each_once(client: NodePeer, daemon: DaemonProcess, redis: RedisServer, jobs: list[str]) -> None:
    """Every request: one reply, one job under the id it was promised, one sync."""
    until(lambda: left(redis) + held(redis) == 0, "every request is finished", 60, daemon.log)
    assert await client("replies", jobs=jobs) == [1] * len(jobs)
    assert await client("parked") == []
    replies = [await client("firstReply", job=job) for job in jobs]
    assert [(reply["jobId"], reply["status"]) for reply in replies] == [(job, "queued") for job in jobs]
    assert all(redis.command("EXISTS", f"bull:sync-jobs:{job}") for job in jobs)

    def all_done() -> bool:
        snapshot = daemon.snapshot()
        return snapshot is not None and snapshot.queue.completed == len(jobs)

    until(all_done, "every job is completed, and there are no others", 200, lambda: str(daemon.snapshot()))
    snapshot = daemon.snapshot()
    assert snapshot is not None
    assert snapshot.queue.failed == snapshot.queue.waiting == snapshot.queue.prioritized == snapshot.queue.delayed == 0
    assert completed(daemon) == {wallet(number): 1 for number in range(len(jobs))}
    assert_verified(daemon, jobs)


@pytest.mark.timeout(300)
async def test_kill_minus_nine_again_and_again_while_2000_requests_are_served(
    start_core_service: Start, start_daemon: StartDaemon, simulator: SimulatorProcess, redis_server: RedisServer,
    redis_url: str,
) -> None:  # fmt: skip
    simulator.turn({"*": {"latency_ms": 1}})
    died_holding = 0
    async with start_core_service(PREFIX, redis_server) as client:
        jobs = await push(client, 2000)
        daemon = start_daemon({**simulator.env, **QUICK, **ON, "REDIS_URL": redis_url}, wait=False)
        for _ in range(8):
            least = left(redis_server) - random.randrange(1, 200)
            until(lambda least=least: left(redis_server) < least, "some are taken", 60)
            daemon.kill()
            died_holding += held(redis_server)
            daemon.start(wait=False)
        daemon.await_running()
        await assert_each_once(client, daemon, redis_server, jobs)
    assert died_holding > 0, "no kill hit a request between taking and finishing: this showed nothing"


async def test_redis_is_killed_while_requests_are_served(
    start_core_service: Start, start_daemon: StartDaemon, simulator: SimulatorProcess,
    start_redis: Callable[..., RedisServer],
) -> None:  # fmt: skip
    redis = start_redis(appendonly=True, appendfsync="always")
    simulator.turn({"*": {"latency_ms": 1}})
    async with start_core_service(PREFIX, redis) as client:
        jobs = await push(client, 500)
        daemon = start_daemon({**simulator.env, **QUICK, **ON, "REDIS_URL": redis.url}, wait=False)
        for least in (400, 200):
            until(lambda least=least: left(redis) < least, "some are taken", 60)
            redis.kill()
            redis.start()
            with trio.fail_after(30):
                while await client("ping") != "PONG":  # noqa: ASYNC110  (another process)
                    await trio.sleep(0.05)
        daemon.await_running()
        await assert_each_once(client, daemon, redis, jobs)


async def test_a_frozen_daemon_loses_nothing_to_the_one_that_takes_over(
    start_core_service: Start, start_daemon: StartDaemon, simulator: SimulatorProcess, redis_server: RedisServer,
    redis_url: str, postgres_dsn: str,
) -> None:  # fmt: skip
    simulator.turn({"*": {"latency_ms": 1}})
    environ = {**simulator.env, **QUICK, **ON, "REDIS_URL": redis_url, "DATABASE_URL": postgres_dsn}
    async with start_core_service(PREFIX, redis_server) as client:
        first = start_daemon(environ | {"MOONXD_DAEMON__WORKER_NAME": "first"})
        jobs = await push(client, 600)
        until(lambda: left(redis_server) < 550, "some are taken", 60)
        first.freeze()
        second = start_daemon(environ | {"MOONXD_DAEMON__WORKER_NAME": "second"})
        until(lambda: left(redis_server) + held(redis_server) == 0, "the second one finished all", 60, second.log)
        first.thaw()
        await assert_each_once(client, second, redis_server, jobs)
