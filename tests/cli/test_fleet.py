"""Two daemons on one Redis, as two hosts would be: each sees the other, and operators reach both through either."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from moonxd.api import calls
from moonxd.api.client import ApiError
from moonxd.api.messages import PauseRequest
from moonxd.version import VERSION
from tests.cli.test_serve import cli
from tests.services import have
from tests.services.daemon import DaemonProcess, StartDaemon, until
from tests.services.redis import RedisServer
from tests.services.simulator import SimulatorProcess

pytestmark = [pytest.mark.slow, pytest.mark.redis]

WALLET = "0x" + "ab" * 20
SLOW = {"*": {"latency_ms": 8000}}


def two(
    start_daemon: StartDaemon, simulator: SimulatorProcess, redis: RedisServer
) -> tuple[DaemonProcess, DaemonProcess]:
    environ = {**simulator.env, "REDIS_URL": redis.url, "WORKER_STATS_INTERVAL": "500"}
    one, other = (start_daemon({**environ, "MOONXD_DAEMON__WORKER_NAME": name}) for name in ("north", "south"))
    return one, other


def call(daemon: DaemonProcess, what: Any) -> Any:
    with daemon.client() as client:
        return client.call(what)


def test_a_job_is_cancelled_from_the_daemon_that_does_not_run_it(
    start_daemon: StartDaemon, simulator: SimulatorProcess, start_redis: Callable[..., RedisServer]
) -> None:
    simulator.turn(SLOW)
    north, south = two(start_daemon, simulator, start_redis())
    call(north, calls.pause(PauseRequest(worker="this")))
    job_id = north.enqueue(WALLET)
    until(lambda: call(north, calls.job(job_id)).state == "active", "the other one runs it")
    assert call(north, calls.job(job_id)).processed_by == "south"
    until(lambda: [job.step for job in south.snapshot().running] == ["fetch"], "it is at work")  # type: ignore[union-attr]

    # How long that takes is measured by benchmarks.cluster; here it is seconds before the read would end.
    began = time.monotonic()
    with north.client() as client:
        assert client.call(calls.cancel(job_id)).cancelled
        until(lambda: client.call(calls.job(job_id)).state == "failed", "it ends", within_s=5)
    have("cancel elsewhere", f"{(time.monotonic() - began) * 1000:.0f} ms from the call until the job had failed")

    ended = call(north, calls.job(job_id))
    assert ended.reason == "cancelled by an operator"
    assert not any(view.holdings for view in call(south, calls.portfolio(WALLET)).portfolios)
    (operation,) = call(south, calls.operations(wallet=WALLET)).operations
    assert operation.status == "cancelled"
    events = [event.type for event in call(south, calls.events()).events if event.type.startswith("sync.")]
    assert events == ["sync.queued", "sync.started", "sync.cancelled"]
    with pytest.raises(ApiError, match="already ended"):
        call(north, calls.cancel(job_id))
    simulator.reset()
    again = north.enqueue(WALLET)
    assert north.wait(again).state == "completed", "the wallet's lease is free again"


def test_the_fleet_is_listed_and_one_of_it_is_paused(
    start_daemon: StartDaemon, simulator: SimulatorProcess, start_redis: Callable[..., RedisServer]
) -> None:
    north, south = two(start_daemon, simulator, start_redis())
    until(lambda: len(call(north, calls.workers()).workers) == 2, "both are seen")
    fleet = call(south, calls.workers()).workers
    assert [worker.worker for worker in fleet] == ["north", "south"]
    assert [worker.pid for worker in fleet] == [north.process.pid, south.process.pid]  # type: ignore[union-attr]
    assert all(worker.slots == 10 and worker.rss_bytes > 10_000_000 for worker in fleet)
    assert {(worker.host, worker.version) for worker in fleet} == {(socket.gethostname(), VERSION)}

    shown = cli(north, "workers", "pause", "south")
    assert shown.returncode == 0, shown.stderr
    until(lambda: [w.is_paused for w in call(north, calls.workers()).workers] == [False, True], "it is told")
    jobs = [south.enqueue(f"0x{number:040x}") for number in range(1, 9)]
    assert {south.wait(job_id).processed_by for job_id in jobs} == {"north"}
    assert cli(north, "workers", "resume", "south").returncode == 0
    working = until(lambda: [w for w in call(south, calls.workers()).workers if w.per_second], "its pace is told")
    assert [(one.worker, one.completed, one.failed) for one in working] == [("north", 8, 0)]
    listed = cli(south, "workers").stdout.splitlines()
    assert listed[0].split()[:8] == ["WORKER", "HOST", "PID", "VERSION", "STATE", "SLOTS", "JOBS/S", "MEMORY"]
    assert [line.split()[0] for line in listed[1:]] == ["north", "south"]

    south.kill()
    until(lambda: [w.worker for w in call(north, calls.workers()).workers] == ["north"], "the dead one is forgotten")
