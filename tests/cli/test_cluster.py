"""Several worker processes under one daemon: one socket answers for all, each is restarted, work is shared evenly."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from typing import Any

import httpx
import pytest

from moonxd.api import calls
from moonxd.api.messages import EnqueueRequest, PauseRequest
from tests.cli.test_serve import cli
from tests.services import have
from tests.services.daemon import DaemonProcess, StartDaemon, until
from tests.services.simulator import SimulatorProcess

pytestmark = pytest.mark.slow

WALLETS = [f"0x{number * 104_729:040x}" for number in range(1, 401)]
FAST_BEATS = {
    "WORKER_STATS_INTERVAL": "500",
    "MOONXD_DAEMON__WORKER_NAME": "box",
    "MOONXD_QUEUE__REMOVE_ON_COMPLETE": "-1",
}


def call(daemon: DaemonProcess, what: Any) -> Any:
    with daemon.client() as client:
        return client.call(what)


def cli_metrics(daemon: DaemonProcess) -> str:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(daemon.socket)), base_url="http://moonxd") as client:
        return client.get("/metrics").text


def pids(daemon: DaemonProcess) -> dict[str, int]:
    return {one.worker: one.pid for one in call(daemon, calls.workers()).workers if one.state == "running"}


def test_one_socket_answers_for_all_of_them(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    daemon = start_daemon({**simulator.env, **FAST_BEATS}, "--workers", "2")
    assert daemon.process is not None
    assert set(pids(daemon)) == {"box-1", "box-2"}
    assert daemon.process.pid not in pids(daemon).values()
    picture = call(daemon, calls.status())
    assert picture.daemon.slots == 20
    assert {child.name for child in picture.children} >= {"redis-server", "worker-1", "worker-2", "control"}
    assert "consumer" not in {child.name for child in picture.children}, "it runs no jobs itself"

    jobs = [daemon.enqueue(wallet) for wallet in WALLETS[:60]]
    assert {daemon.wait(job_id).state for job_id in jobs} == {"completed"}
    picture = call(daemon, calls.status())
    assert picture.rates.completed == 60
    assert picture.chains, "what the workers see of the chains"
    assert call(daemon, calls.portfolio(WALLETS[0])).portfolios[0].holdings, "one ledger for all"
    assert (daemon.state / "workers" / "1.sock").exists()

    page = cli_metrics(daemon)
    done = [line for line in page.splitlines() if line.startswith("sync_jobs_processed_total{")]
    assert sum(float(line.split()[-1]) for line in done) == 60
    assert all('worker="' in line for line in done)

    simulator.turn({"*": {"latency_ms": 8000}})
    slow = daemon.enqueue(WALLETS[0])
    until(lambda: call(daemon, calls.job(slow)).state == "active", "a worker runs it")
    until(lambda: [job.id for job in call(daemon, calls.status()).running] == [slow], "it is seen")
    assert call(daemon, calls.cancel(slow)).cancelled
    until(lambda: call(daemon, calls.job(slow)).state == "failed", "it ends")
    simulator.reset()

    call(daemon, calls.pause(PauseRequest(worker="this")))
    until(lambda: all(one.is_paused for one in call(daemon, calls.workers()).workers), "every worker pauses")
    call(daemon, calls.resume(PauseRequest(worker="this")))
    until(lambda: not any(one.is_paused for one in call(daemon, calls.workers()).workers), "and goes on")
    assert daemon.terminate(60) == 0
    assert not daemon.socket.exists()
    assert not [line for line in daemon.log().splitlines() if '"error"' in line or '"critical"' in line]


def test_a_killed_worker_comes_back_and_its_jobs_are_done(
    start_daemon: StartDaemon, simulator: SimulatorProcess
) -> None:
    quick = {"MOONXD_WORKER__LOCK_S": "2", "MOONXD_WORKER__STALLED_INTERVAL_S": "1"}
    simulator.turn({"*": {"latency_ms": 200}})
    daemon = start_daemon({**simulator.env, **FAST_BEATS, **quick}, "--workers", "2")
    before = pids(daemon)
    jobs = [daemon.enqueue(wallet) for wallet in WALLETS[:80]]
    until(lambda: call(daemon, calls.status()).queue.active >= 20, "both are at work")
    os.kill(before["box-2"], signal.SIGKILL)
    until(lambda: pids(daemon).get("box-2") not in (None, before["box-2"]), "it is started again")
    assert pids(daemon)["box-1"] == before["box-1"]
    assert {daemon.wait(job_id).state for job_id in jobs} == {"completed"}
    assert next(child for child in call(daemon, calls.status()).children if child.name == "worker-2").restarts == 1


def test_a_rolling_restart_loses_nothing_and_counts_no_attempt(
    start_daemon: StartDaemon, simulator: SimulatorProcess
) -> None:
    simulator.turn({"*": {"latency_ms": 100}})
    daemon = start_daemon({**simulator.env, **FAST_BEATS}, "--workers", "2")
    before = pids(daemon)
    jobs = [daemon.enqueue(wallet) for wallet in WALLETS[:200]]
    rolled = cli(daemon, "workers", "restart")
    assert rolled.returncode == 0, rolled.stderr
    after = pids(daemon)
    assert set(after) == set(before)
    assert not set(after.values()) & set(before.values())
    ended = [daemon.wait(job_id) for job_id in jobs]
    assert {job.state for job in ended} == {"completed"}
    assert {job.attempts for job in ended} == {1}, "what was handed back counted no attempt"
    refused = cli(daemon, "workers", "restart", "nobody")
    assert refused.returncode == 1
    assert "runs no worker 'nobody'" in refused.stderr


def test_four_workers_share_four_thousand_jobs_evenly(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    simulator.turn({"*": {"latency_ms": 30}})
    environ = {**simulator.env, **FAST_BEATS, "ENABLED_CHAINS": "base", "MOONXD_QUEUE__REMOVE_ON_COMPLETE": "-1"}
    environ = {name: value for name, value in environ.items() if not name.endswith("_RPC_URL") or "BASE" in name}
    daemon = start_daemon(environ, "--workers", "4")
    until(lambda: len(pids(daemon)) == 4, "all are up")
    call(daemon, calls.pause())
    with daemon.client() as client:
        for number in range(4000):
            ask = {"wallet_address": f"0x{number + 1:040x}", "user_id": f"u{number}"}
            client.call(calls.enqueue(_ask(**ask)))
    began = time.monotonic()
    call(daemon, calls.resume())
    until(lambda: call(daemon, calls.status()).queue.completed == 4000, "all are done", within_s=240)
    took = time.monotonic() - began
    shares: Counter[str] = Counter()
    with daemon.client() as client:
        for start in range(0, 4000, 1000):
            page = client.call(calls.jobs("completed", start=start, limit=1000))
            shares.update(job.processed_by for job in page.jobs)
    have("four workers", f"{4000 / took:.0f} jobs/s on {os.cpu_count()} cores, {sorted(shares.values())} jobs each")
    assert sum(shares.values()) == 4000
    assert all(800 <= count <= 1200 for count in shares.values()), shares
    assert len(shares) == 4


def _ask(**fields: str) -> Any:

    return EnqueueRequest(type="portfolio-sync", **fields)  # type: ignore[arg-type]


@pytest.mark.redis
@pytest.mark.postgres
def test_several_workers_on_an_external_redis_and_postgresql(
    start_daemon: StartDaemon, simulator: SimulatorProcess, redis_url: str, postgres_dsn: str
) -> None:
    external = {"REDIS_URL": redis_url, "DATABASE_URL": postgres_dsn}
    daemon = start_daemon({**simulator.env, **FAST_BEATS, **external}, "--workers", "2")
    jobs = [daemon.enqueue(wallet) for wallet in WALLETS[:100]]
    assert {daemon.wait(job_id).state for job_id in jobs} == {"completed"}
    found = Counter(call(daemon, calls.job(job_id)).processed_by for job_id in jobs)
    assert found.keys() == {"box-1", "box-2"}
    told = Counter(
        event.wallet for event in call(daemon, calls.events(limit=1000)).events if event.type == "sync.completed"
    )
    assert told == Counter(WALLETS[:100]), "each wallet once in effect"
