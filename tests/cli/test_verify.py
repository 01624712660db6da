"""`moonxd verify` as an operator runs it: beside the daemon, under load, on the state of one that is stopped."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.chaos.world import await_all, enqueue, wallet
from tests.services.daemon import DaemonProcess, StartDaemon, until
from tests.services.simulator import SimulatorProcess

pytestmark = pytest.mark.slow


def answer(daemon: DaemonProcess, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = daemon.run("verify", "--json", *arguments)
    return done.returncode, msgspec.json.decode(done.stdout or done.stderr)


def tamper(daemon: DaemonProcess, statement: str) -> None:
    with sqlite3.connect(daemon.state / "moonxd.db") as connection:
        assert connection.execute(statement).rowcount
    connection.close()


def test_the_embedded_default_running_and_stopped(
    start_daemon: StartDaemon, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    daemon = start_daemon(simulator.env)
    jobs = [daemon.enqueue(wallet(number)) for number in range(3)]
    for job in jobs:
        assert daemon.wait(job).state == "completed"
    listed = tmp_path / "jobs"
    listed.write_text("\n".join(jobs))
    for _ in ("running", "stopped"):
        code, report = answer(daemon, "--jobs", str(listed))
        assert (code, report["ok"], report["found"]) == (0, True, [])
        assert report["read"]["completed jobs"] == report["read"]["operations"] == report["read"]["claimed jobs"] == 3
        assert report["places"]["topics"] == "not looked at"
        daemon.terminate()
    listed.write_text(f'{jobs[0]}\n\n{{"id": "lost-1", "timestamp": 1}}\n"lost-2"\n')
    code, report = answer(daemon, "--jobs", str(listed))
    assert code == 1
    (found,) = report["found"]
    assert (found["kind"], found["isFault"], found["count"]) == ("lost-job", True, 2)
    assert {one["subject"] for one in found["examples"]} == {"lost-1", "lost-2"}


def test_faults_are_listed_with_what_to_do(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    daemon = start_daemon(simulator.env)
    for number in range(8):
        daemon.wait(daemon.enqueue(wallet(number)))
    tamper(daemon, f"UPDATE sync_operations SET chains_synced = 99 WHERE wallet_address <> '{wallet(0)}'")
    tamper(daemon, f"DELETE FROM moonxd_outbox WHERE event_type = 'sync.completed' AND wallet_address = '{wallet(0)}'")
    for _ in ("running", "stopped"):
        done = daemon.run("verify")
        assert done.returncode == 1
        lines = done.stdout.splitlines()
        assert lines[-1] == "9 faults"
        assert "FAULT  table-differs  7 operations that their own events tell differently" in lines
        assert "         and 2 more (--json)" in lines
        assert any(line.startswith("       > sync_operations was written past moonxd") for line in lines)
        assert any("no sync.completed of it" in line for line in lines)
        assert "ledger: " in done.stderr
        daemon.terminate()
    # Nothing was changed by looking.
    daemon.start()
    assert daemon.wait(daemon.enqueue(wallet(20))).state == "completed"


@pytest.mark.parametrize(
    "stores", ["embedded", pytest.param("external", marks=[pytest.mark.postgres, pytest.mark.kafka])]
)
def test_work_in_flight_is_no_fault(
    start_daemon: StartDaemon, simulator: SimulatorProcess, stores: str, request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    external: dict[str, str] = {}
    if stores == "external":
        external["DATABASE_URL"] = request.getfixturevalue("postgres_dsn")
        external["REDIS_URL"] = request.getfixturevalue("redis_url")
        external["KAFKA_BROKERS"] = request.getfixturevalue("start_kafka")().address()
    daemon = start_daemon(
        {**simulator.env, **external, "MOONXD_QUEUE__REMOVE_ON_COMPLETE": "50", "PERIODIC_SYNC_ENABLED": "false"}
    )
    # Some fail and are tried again meanwhile.
    simulator.turn({"*": {"latency_ms": 100}, "polygon": {"error_rate": 0.2}})
    jobs = enqueue(daemon, 300)
    listed = daemon.state / "jobs"
    listed.write_text("\n".join(jobs))
    looks = 0
    while (snapshot := daemon.snapshot()) is None or snapshot.queue.waiting + snapshot.queue.prioritized > 20:
        code, report = answer(daemon, "--jobs", str(listed))
        faults = [found for found in report["found"] if found["isFault"]]
        assert (code, faults) == (0, [])
        looks += 1
    assert looks > 0
    await_all(daemon, 50, 60)
    if stores == "external":
        until(lambda: (now := daemon.snapshot()) and now.outbox and now.outbox.unpublished == 0, "all is published")
    code, report = answer(daemon, "--jobs", str(listed), "--since", "1h")
    assert (code, report["found"]) == (0, [])
    assert report["read"]["operations"] == 300
    assert ("records" in report["read"]) == (stores == "external")


def test_what_cannot_be_looked_at_is_said(
    start_daemon: StartDaemon, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    daemon = start_daemon(simulator.env)
    code, report = answer(daemon, "--kafka")
    assert (code, report["error"]["code"]) == (78, "bad-configuration")
    assert daemon.run("verify", "--jobs", str(tmp_path / "none")).returncode == 2
    listed = tmp_path / "jobs"
    listed.write_text('{"timestamp": 3}\n')
    done = daemon.run("verify", "--jobs", str(listed))
    assert done.returncode == 2
    assert "line 1" in done.stderr
    # Another ledger than the daemon's would only look as if all were well.
    other = DaemonProcess(daemon.state, {"DATABASE_URL": "postgresql://u:geheim@127.0.0.1:9/x"})
    done = other.run("verify")
    assert done.returncode == 78
    assert "give verify the daemon's own configuration" in done.stderr
    daemon.terminate()
    done = other.run("verify")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "geheim" not in done.stderr
    empty = DaemonProcess(tmp_path / "empty", {})
    done = empty.run("verify")
    assert done.returncode == 78
    assert not (tmp_path / "empty").exists()
