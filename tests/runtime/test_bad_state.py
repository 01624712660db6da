"""A whole daemon on files and tables that are torn, damaged or somebody else's: it goes on, or refuses by name."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from moonxd.api import calls
from moonxd.api.messages import EnqueueRequest
from moonxd.domain.job import JobState
from tests.services.daemon import DaemonProcess, StartDaemon, until
from tests.services.simulator import SimulatorProcess

pytestmark = pytest.mark.slow

WALLET = "0x" + "5a" * 20
REFUSED = 78


def refused(daemon: DaemonProcess) -> str:
    """The log of a daemon that would not start."""
    assert daemon.process is not None
    assert daemon.process.wait(40) == REFUSED, daemon.log()[-2000:]
    assert "Traceback" not in daemon.log()
    return daemon.log()


def ledger_of(state: Path) -> Path:
    return state / "moonxd.db"


def test_a_torn_ledger_is_refused_and_left_as_it_is(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    daemon = start_daemon(simulator.env)
    assert daemon.wait(daemon.enqueue(WALLET)).state == "completed"
    assert daemon.terminate() == 0
    file = ledger_of(daemon.state)
    os.truncate(file, file.stat().st_size // 2)
    content = file.read_bytes()
    daemon.start(wait=False)
    log = refused(daemon)
    assert f"the ledger {file} is torn" in log
    assert "restore a backup or move it away" in log
    assert file.read_bytes() == content
    # What it says to do helps: the jobs of the queue are still there.
    file.rename(file.with_suffix(".torn"))
    for part in ("-wal", "-shm"):
        Path(f"{file}{part}").unlink(missing_ok=True)
    daemon.start()
    assert daemon.wait(daemon.enqueue(WALLET)).state == "completed"


def test_another_programs_file_is_refused_by_name(
    start_daemon: StartDaemon, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(ledger_of(tmp_path))) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
        other.commit()
    log = refused(start_daemon(simulator.env, state=tmp_path, wait=False))
    assert "is another program's database (it holds recipes)" in log


@pytest.mark.postgres
def test_a_foreign_schema_is_refused_by_name(
    start_daemon: StartDaemon, simulator: SimulatorProcess, empty_postgres_dsn: str
) -> None:
    with psycopg.connect(empty_postgres_dsn, autocommit=True) as database:
        database.execute("CREATE TABLE sync_operations (id bigint PRIMARY KEY, what text)")
        log = refused(start_daemon({**simulator.env, "DATABASE_URL": empty_postgres_dsn}, wait=False))
        assert "the table sync_operations in this database is not the one moonxd knows" in log
        assert database.execute("SELECT to_regclass('moonxd_schema')").fetchone() == (None,), "nothing was changed"


def test_a_truncated_queue_file_is_cut_and_alerted(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    daemon = start_daemon(simulator.env)
    with daemon.client() as client:
        client.call(calls.pause())
        ask = EnqueueRequest(type="portfolio-sync", user_id="u1", wallet_address=WALLET)
        ids = [client.call(calls.enqueue(ask)).job_id for _ in range(5)]
    redis_pid = int((daemon.state / "redis.pid").read_text())
    os.kill(redis_pid, signal.SIGKILL)
    daemon.kill()
    [file] = (daemon.state / "redis").rglob("*.incr.aof")
    os.truncate(file, file.stat().st_size - 3)
    daemon.start()
    with daemon.client() as client:

        def alerts() -> list[str]:
            page = client.call(calls.events(limit=1000))
            return [bytes(one.body).decode() for one in page.events if one.type == "system.alert"]

        (alert,) = until(alerts, "the alert is written")
        assert "queue_file_torn" in alert
        client.call(calls.resume())
        for job_id in ids[:4]:
            assert client.call(calls.wait_for_job(job_id, 30)).state == JobState.COMPLETED
    assert "ended in the middle of a command" in daemon.log()


def test_a_damaged_queue_file_is_never_started_empty(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    daemon = start_daemon(simulator.env)
    daemon.enqueue(WALLET)
    assert daemon.terminate() == 0
    [file] = (daemon.state / "redis").rglob("*.incr.aof")
    content = bytearray(file.read_bytes())
    # Where a command begins: damage inside a value would go unnoticed, by Redis and by anybody.
    command = content.index(b"\r\n*", len(content) // 2) + 2
    content[command : command + 50] = b"?" * 50
    file.write_bytes(content)
    daemon.start(wait=False)
    until(lambda: "Bad file format" in daemon.log(), "the log names what is wrong")
    assert daemon.snapshot() is None
    daemon.stop()
    assert file.read_bytes() == content, "whatever can be saved of it is still there"
