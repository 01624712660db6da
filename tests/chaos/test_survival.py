"""What must survive: each test breaks something real under load and then counts what the ledger says."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from moonxd.api import calls
from tests.chaos.world import QUICK, assert_each_once, assert_verified, await_all, completed, enqueue, ids_in, wallet
from tests.services.daemon import DaemonProcess, StartDaemon, until
from tests.services.postgres import PostgresServer
from tests.services.redis import RedisServer
from tests.services.simulator import SimulatorProcess

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

SLOW_CHAINS = {"*": {"latency_ms": 1500}}


def active(daemon: DaemonProcess, count: int) -> Callable[[], bool]:
    return lambda: (snapshot := daemon.snapshot()) is not None and snapshot.queue.active >= count


def test_kill_minus_nine_with_ten_jobs_in_flight(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    simulator.turn(SLOW_CHAINS)
    daemon = start_daemon({**simulator.env, **QUICK})
    enqueue(daemon, 20)
    until(active(daemon, 10), "ten jobs run")
    daemon.kill()
    simulator.reset()
    began = time.monotonic()
    daemon.start()
    await_all(daemon, 20, within_s=30)
    assert_each_once(daemon, 20)
    # Lock (2 s) plus stalled check (1 s), and generous room for a busy machine to start a process.
    assert time.monotonic() - began < 25


def test_the_private_redis_dies_and_comes_back(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    simulator.turn({"*": {"latency_ms": 20}})
    daemon = start_daemon({**simulator.env, **QUICK})
    enqueue(daemon, 200)
    until(lambda: len(completed(daemon)) > 20, "some are synced")
    pid = int((daemon.state / "redis.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    await_all(daemon, 200, within_s=60)
    assert_each_once(daemon, 200)
    snapshot = daemon.snapshot()
    assert snapshot is not None
    assert next(child for child in snapshot.children if child.name == "redis-server").restarts == 1


@pytest.mark.redis
def test_redis_is_killed_and_restarted_under_load(
    start_daemon: StartDaemon, simulator: SimulatorProcess, start_redis: Callable[..., RedisServer]
) -> None:
    redis = start_redis(appendonly=True)
    simulator.turn({"*": {"latency_ms": 20}})
    daemon = start_daemon({**simulator.env, **QUICK, "REDIS_URL": redis.url})
    enqueue(daemon, 300)
    for threshold in (50, 150):
        until(lambda least=threshold: len(completed(daemon)) > least, "some are synced")
        redis.kill()
        redis.start()
    await_all(daemon, 300, within_s=60)
    assert_each_once(daemon, 300)


@pytest.mark.postgres
def test_postgresql_is_restarted_under_load(
    start_daemon: StartDaemon, simulator: SimulatorProcess, start_postgres: Callable[..., PostgresServer]
) -> None:
    postgres = start_postgres()
    simulator.turn({"*": {"latency_ms": 20}})
    daemon = start_daemon({**simulator.env, **QUICK, "DATABASE_URL": postgres.tcp_dsn})
    enqueue(daemon, 300)
    until(lambda: len(completed(daemon)) > 50, "some are synced")
    postgres.restart()
    until(lambda: daemon.snapshot() is not None, "the daemon answers")
    await_all(daemon, 300, within_s=90)
    assert_each_once(daemon, 300)


@pytest.mark.redis
@pytest.mark.postgres
def test_two_daemons_share_a_queue(
    start_daemon: StartDaemon, simulator: SimulatorProcess, redis_server: RedisServer, redis_url: str, postgres_dsn: str
) -> None:
    shared = {**simulator.env, **QUICK, "REDIS_URL": redis_url, "DATABASE_URL": postgres_dsn}
    first, second = start_daemon(shared), start_daemon(shared)
    enqueue(first, 2000)
    await_all(first, 2000, within_s=110)
    assert_each_once(first, 2000)
    shares = [daemon.snapshot().rates.completed for daemon in (first, second)]  # type: ignore[union-attr]
    assert sum(shares) == 2000
    assert min(shares) > 200, f"both took part: {shares}"


@pytest.mark.redis
@pytest.mark.postgres
def test_a_stopped_daemon_hands_its_jobs_to_another_within_a_second(
    start_daemon: StartDaemon, simulator: SimulatorProcess, redis_url: str, postgres_dsn: str
) -> None:
    shared = {**simulator.env, **QUICK, "REDIS_URL": redis_url, "DATABASE_URL": postgres_dsn}
    shared |= {
        "MOONXD_WORKER__LOCK_S": "60",
        "MOONXD_WORKER__STALLED_INTERVAL_S": "60",
        "MOONXD_DAEMON__DRAIN_S": "0.3",
    }
    simulator.turn({"*": {"latency_ms": 5000}})
    first = start_daemon(shared)
    ids = enqueue(first, 10)
    until(active(first, 10), "ten jobs run")
    second = start_daemon(shared)
    simulator.reset()
    assert first.terminate() == 0
    stopped = time.monotonic()
    until(lambda: not ids_in(second, ["active", "waiting", "prioritized", "delayed"]), "the other did them", 20)
    took = time.monotonic() - stopped
    assert_each_once(second, 10)
    # Had they waited for the stalled check it would have been a minute.
    assert took < 10, took
    with second.client() as client:
        for job_id in ids:
            assert client.call(calls.job(job_id)).attempts == 1, "being handed back is not an attempt"


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"hang_rate": 1.0}, "no complete answer within 1"),
        ({"wrong_chain_id": 4242}, "4242"),
        ({"malformed_rate": 1.0}, "garbage"),
        ({"oversize_rate": 1.0}, "bytes"),
    ],
)
def test_an_endpoint_that_misbehaves_costs_its_own_chain_only(
    start_daemon: StartDaemon, simulator: SimulatorProcess, fault: dict[str, object], says: str
) -> None:
    quick = {"MOONXD_CHAINS__TIMEOUT_S": "1", "MOONXD_CHAINS__READ_TIMEOUT_S": "4", "ALCHEMY_RETRIES": "1"}
    daemon = start_daemon({**simulator.env, **QUICK, **quick})
    before = daemon.wait(daemon.enqueue(wallet(1))).result
    simulator.turn({"polygon": fault})
    # An endpoint's chain id is asked for when it is first used, and again every ten minutes.
    daemon.terminate()
    daemon.start()
    after = daemon.wait(daemon.enqueue(wallet(1))).result
    assert after["success"]
    assert after["chainsSync"] == 5
    ((failed),) = after["chainsFailed"]
    assert failed["chainId"] == 137
    assert says in failed["error"], failed["error"]
    assert after["totalValueUsd"] == pytest.approx(before["totalValueUsd"]), "the last good rows stay"
    assert_verified(daemon)
