"""Users' limits, merging, dead letters and retention on a whole daemon, asked as programs and operators ask."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest

from moonxd.api import calls
from moonxd.api.client import ApiError, Client
from moonxd.api.messages import JobDetail
from moonxd.domain.job import JobState
from tests.runtime.test_daemon_breakers import metrics
from tests.services.daemon import DaemonProcess, StartDaemon, until
from tests.services.simulator import SimulatorProcess

pytestmark = pytest.mark.slow

LIMITED = {"MOONXD_RATE_LIMIT__ENABLED": "true", "WORKER_RATE_LIMIT_MAX": "5", "WORKER_RATE_LIMIT_WINDOW": "900000"}


def wallet(number: int) -> str:
    return f"0x{0xC0FFEE0000 + number:040x}"


def cli(daemon: DaemonProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "moonxd", *arguments, "--socket", str(daemon.socket)],
        capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(daemon.state)},
    )  # fmt: skip


def jobs(client: Client, state: JobState) -> tuple[JobDetail, ...]:
    return client.call(calls.jobs(state, limit=1000)).jobs


def events(client: Client, kind: str) -> list[dict[str, Any]]:
    page = client.call(calls.events(limit=1000))
    return [json.loads(bytes(one.body)) for one in page.events if one.type == kind]


@pytest.mark.parametrize("part", ["embedded", pytest.param("external", marks=pytest.mark.postgres)])
def test_of_ten_requests_five_run_now_and_five_when_the_window_frees(
    start_daemon: StartDaemon, simulator: SimulatorProcess, request: pytest.FixtureRequest, part: str
) -> None:
    stores = {"DATABASE_URL": request.getfixturevalue("postgres_dsn")} if part == "external" else {}
    daemon = start_daemon({**simulator.env, **LIMITED, **stores})
    with daemon.client() as client:
        client.call(calls.pause())
        for number in range(10):
            daemon.enqueue(wallet(number), "eve")
        daemon.enqueue(wallet(99), "mallory")
        client.call(calls.resume())
        asked = time.time()
        until(lambda: len(jobs(client, JobState.COMPLETED)) == 6, "what may run has run")
        delayed = until(lambda: len(found := jobs(client, JobState.DELAYED)) == 5 and found, "the rest waits")
        for job in delayed:
            assert job.timestamps.due is not None
            assert 880 < job.timestamps.due / 1000 - asked < 930
            assert job.attempts == 0
        assert "rate_limit_exceeded_total 5.0" in metrics(daemon)
        with pytest.raises(ApiError, match="has used up the syncs of this window") as refused:
            daemon.enqueue(wallet(50), "eve")
        assert refused.value.status == 429
        asked_by_hand = cli(daemon, "enqueue", "portfolio-sync", "--user", "eve", "--wallet", wallet(51), "--force")
        assert asked_by_hand.returncode == 1
        assert "try again in" in asked_by_hand.stderr
        daemon.enqueue(wallet(98), "mallory")
    # A restart forgets nothing, since nothing was kept.
    assert daemon.terminate() == 0
    daemon.start()
    with pytest.raises(ApiError):
        daemon.enqueue(wallet(52), "eve")


def test_rejecting_says_so_everywhere(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    daemon = start_daemon({**simulator.env, **LIMITED, "MOONXD_RATE_LIMIT__ON_LIMIT": "reject"})
    with daemon.client() as client:
        client.call(calls.pause())
        ids = [daemon.enqueue(wallet(number), "eve") for number in range(6)]
        client.call(calls.resume())
        ended = [client.call(calls.wait_for_job(job_id, 30)) for job_id in ids]
        (rejected,) = [job for job in ended if job.state == JobState.FAILED]
        assert rejected.reason is not None
        assert rejected.reason.startswith("Rejected: user eve has had 5 syncs")
        (operation,) = client.call(calls.operations(status="cancelled")).operations
        assert operation.error == rejected.reason.removeprefix("Rejected: ")
        assert len(events(client, "sync.rejected")) == 1
        assert [job.job_id for job in client.call(calls.dead_letters()).jobs] == [rejected.job_id]


def test_failures_are_dead_letters_an_alert_and_work_again(
    start_daemon: StartDaemon, simulator: SimulatorProcess
) -> None:
    daemon = start_daemon(
        {
            **simulator.env,
            # Their users would be left alone for a minute, and rightly so.
            "ENABLE_CIRCUIT_BREAKER": "false",
            "MOONXD_ALERTS__MIN_JOBS": "10",
            "MOONXD_ALERTS__WINDOW_S": "5",
            "MOONXD_QUEUE__REMOVE_ON_FAIL": "3",
        }
    )
    with daemon.client() as client:
        # What is not supported is nothing that a retry could mend.
        for number in range(12):
            daemon.enqueue(wallet(number), f"u{number % 3}", sync_type="trades")
        until(lambda: client.call(calls.dead_letters()).total == 12, "all of them are kept")
        assert len(jobs(client, JobState.FAILED)) == 3, "the queue itself kept three"
        alert = until(lambda: events(client, "system.alert"), "somebody is called")[0]["data"]
        assert (alert["alertType"], alert["severity"]) == ("job_failure_rate", "critical")
        cleared = until(lambda: len(found := events(client, "system.alert")) == 2 and found[1], "and it is over")
        assert cleared["data"]["metadata"]["raised"] is False
    listed = cli(daemon, "dlq", "list", "--user", "u1", "--json")
    assert json.loads(listed.stdout)["total"] == 4
    asked = cli(daemon, "dlq", "requeue", "--user", "u1")
    assert asked.returncode == 2
    assert "requeue 4 dead letters?" in asked.stderr
    assert "4 requeued" in cli(daemon, "dlq", "requeue", "--user", "u1", "--yes").stdout
    with daemon.client() as client:
        until(lambda: client.call(calls.dead_letters()).total == 12, "they failed again")
    assert "12 dead letters match" in cli(daemon, "dlq", "purge", "--all", "--dry-run").stdout
    assert "12 purged" in cli(daemon, "dlq", "purge", "--all", "--yes").stdout
    assert "no dead letters" in cli(daemon, "dlq", "list").stderr


def test_the_past_is_kept_for_as_long_as_it_was_told(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    daemon = start_daemon({**simulator.env, "WORKER_CLEANUP_INTERVAL": "200"})
    assert daemon.wait(daemon.enqueue(wallet(1))).state == JobState.COMPLETED
    (snapshot,) = json.loads(cli(daemon, "portfolio", wallet(1), "--history", "--json").stdout)["snapshots"]
    assert len(snapshot["holdings"]) > 10
    shown = cli(daemon, "portfolio", wallet(1), "--history")
    assert "TAKEN (UTC)" in shown.stdout
    assert shown.stdout.count("u1") == 1
    assert cli(daemon, "portfolio", wallet(1), "--since", "2025-01-01").returncode == 2
    assert daemon.terminate() == 0

    second = 1 / 86_400
    config = daemon.state / "config.toml"
    config.write_text(f"[retention]\nhistory_days = {second:.9f}\noutbox_days = {second:.9f}\n")
    brief = DaemonProcess(
        daemon.state, {**simulator.env, "WORKER_CLEANUP_INTERVAL": "200"}, "--config", str(config)
    ).start()
    try:
        with brief.client() as client:
            until(lambda: not client.call(calls.history(wallet(1))).snapshots, "the history is removed")
            until(lambda: client.call(calls.events()).backlog == 0, "and so are events that nobody publishes")
            assert client.call(calls.portfolio(wallet(1))).portfolios[0].holdings
            assert len(client.call(calls.operations()).operations) == 1
    finally:
        brief.stop()
