"""What is the file's own: its mode, torn and foreign files, several processes, a full disk, kill -9, group commit."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trio.testing

from moonxd.adapters.sqlite import thread as thread_module
from moonxd.adapters.sqlite.database import migrate, migrations, open_file
from moonxd.adapters.sqlite.ledger import open_sqlite_ledger
from moonxd.adapters.sqlite.thread import DatabaseThread
from moonxd.domain.errors import ConfigError, Permanent, Transient
from moonxd.domain.ledger import AlreadyCommitted
from tests.conformance.ledger_data import admission, admitted, change, event, holding, new_wallet, synced
from tests.services import ROOT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


async def open_and_close(path: Path) -> None:
    async with open_sqlite_ledger(path):
        pass


# ---- the file ------------------------------------------------------------------------------------------------------


async def test_nobody_else_may_read_it(path: Path) -> None:
    previous = os.umask(0)
    try:
        async with open_sqlite_ledger(path) as ledger:
            await synced(ledger, new_wallet(), [holding(1)])
            modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    finally:
        os.umask(previous)
    assert set(modes.values()) == {0o600}
    assert "ledger.db-wal" in modes


async def test_it_survives_being_closed(path: Path) -> None:
    wallet = new_wallet()
    async with open_sqlite_ledger(path) as ledger:
        await synced(ledger, wallet, [holding(1)])
    async with open_sqlite_ledger(path) as ledger:
        (view,) = await ledger.portfolio(wallet)
        assert len(view.holdings) == 1


async def test_a_text_file_is_refused_by_name(path: Path) -> None:
    text = b"this is not a database, whatever its name says\n" * 100
    await trio.Path(path).write_bytes(text)
    with pytest.raises(ConfigError, match=r"ledger\.db is torn or not a SQLite file"):
        await open_and_close(path)
    assert await trio.Path(path).read_bytes() == text


async def test_a_torn_file_is_refused_by_name(path: Path) -> None:
    async with open_sqlite_ledger(path) as ledger:
        await synced(ledger, new_wallet(), [holding(n) for n in range(200)])
    os.truncate(path, os.path.getsize(path) // 2)  # noqa: ASYNC240
    with pytest.raises(ConfigError, match=r"ledger\.db is torn"):
        await open_and_close(path)


async def test_a_damaged_page_is_refused_by_name(path: Path) -> None:
    async with open_sqlite_ledger(path) as ledger:
        await synced(ledger, new_wallet(), [holding(n) for n in range(200)])
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(os.urandom(4096 * 20))
    with pytest.raises(ConfigError, match=r"ledger\.db is torn"):
        await open_and_close(path)


async def test_another_programs_database_is_refused_by_name(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
        other.commit()
    with pytest.raises(ConfigError, match=r"another program's database \(it holds recipes\)"):
        await open_and_close(path)


async def test_a_newer_schema_is_refused(path: Path) -> None:
    await open_and_close(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO moonxd_schema VALUES (99, '0099_future.sql', 'later')")
        connection.commit()
    with pytest.raises(ConfigError, match=r"schema version 99, this moonxd knows up to \d+: upgrade moonxd"):
        await open_and_close(path)


async def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory"):
        await open_and_close(tmp_path / "absent" / "ledger.db")


def test_migrations_are_applied_once(path: Path) -> None:
    with closing(open_file(path)) as connection:
        assert migrate(connection, str(path)) == []
        rows = connection.execute("SELECT name FROM moonxd_schema").fetchall()
        assert rows == [(name,) for _, name, _ in migrations()]


# ---- what can go wrong while it runs -------------------------------------------------------------------------------


async def test_a_full_disk_is_transient_and_nothing_is_half_written(path: Path) -> None:
    wallet = new_wallet()
    rows = [holding(n, name="x" * 1000) for n in range(500)]

    def limit(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 3}")

    async with open_sqlite_ledger(path) as ledger:
        await ledger._runner.read(limit)
        lease = await admitted(ledger, admission(wallet))
        with pytest.raises(Transient, match=r"full.*free some disk space"):
            await ledger.commit(change(lease, rows, events=(event(wallet),)))
        assert await ledger.backlog() == 0
        await ledger._runner.read(lambda db: db.execute("PRAGMA max_page_count = 100000").fetchone())
        await ledger.commit(change(lease, rows, events=(event(wallet),)))
        assert await ledger.backlog() == 1


async def test_another_process_that_keeps_the_lock_is_transient(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_sqlite_ledger(path) as ledger:
        await ledger._runner.read(lambda db: db.execute("PRAGMA busy_timeout = 50").fetchone())
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Transient, match="another process keeps it locked"):
                await ledger.admit(admission(new_wallet()))
            other.execute("ROLLBACK")
        await synced(ledger, new_wallet(), [holding(1)])


async def test_two_daemons_on_one_file_respect_each_others_leases(path: Path) -> None:
    wallets = [new_wallet() for _ in range(20)]
    async with open_sqlite_ledger(path) as one, open_sqlite_ledger(path) as two:

        async def run(ledger: object, name: str) -> None:
            for wallet in wallets:
                lease = await admitted(ledger, admission(wallet, job=name, user=name))  # type: ignore[arg-type]
                await ledger.commit(change(lease, [holding(1)]))  # type: ignore[attr-defined]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, one, "one")
            nursery.start_soon(run, two, "two")
        for wallet in wallets:
            assert len(await one.portfolio(wallet)) == 2


async def test_a_refused_row_is_permanent_and_alone(path: Path) -> None:
    """Writes share a commit; one that fails takes nobody along."""
    good, bad = new_wallet(), new_wallet()
    async with open_sqlite_ledger(path) as ledger:
        fine = await admitted(ledger, admission(good))
        broken = await admitted(ledger, admission(bad))
        refused: list[Permanent] = []

        async def write_badly() -> None:
            try:
                await ledger.commit(change(broken, [holding(1)], snapshot=(holding(1),), snapshot_type="nonsense"))
            except Permanent as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_badly)
            nursery.start_soon(ledger.commit, change(fine, [holding(1)]))
        assert len(refused) == 1
        assert "CHECK constraint" in str(refused[0])
        assert len((await ledger.portfolio(good))[0].holdings) == 1
        assert await ledger.portfolio(bad) == ()


async def test_a_failed_shared_commit_fails_everybody_in_it(path: Path) -> None:
    def with_deferred_check() -> sqlite3.Connection:
        connection = open_file(path)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
        connection.execute("CREATE TABLE child (id REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
        return connection

    thread = DatabaseThread(with_deferred_check, "shared")
    await thread.start()
    gate = threading.Event()
    refused: list[str] = []

    async def write(sql: str) -> None:
        try:
            await thread.write(lambda db: db.execute(sql))
        except Permanent:
            refused.append(sql)

    orphan, fine = "INSERT INTO child VALUES (7)", "INSERT INTO parent VALUES (1)"
    async with trio.open_nursery() as nursery:
        # While the thread is held, both queue up for one commit.
        nursery.start_soon(thread.read, lambda _: gate.wait(10))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(write, orphan)
        nursery.start_soon(write, fine)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert sorted(refused) == [orphan, fine]
    assert await thread.read(lambda db: db.execute("SELECT count(*) FROM parent").fetchone()) == (0,)
    await write(fine)
    assert await thread.read(lambda db: db.execute("SELECT count(*) FROM parent").fetchone()) == (1,)
    await thread.stop()


async def test_a_database_that_never_answers_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = threading.Event()
    thread = DatabaseThread(lambda: open_file(path), "slow")
    await thread.start()
    monkeypatch.setattr(thread_module, "PATIENCE_S", 0.05)
    try:
        with pytest.raises(Transient, match="outcome is unknown"):
            await thread.write(lambda _: stuck.wait(10))
        # A reader does not have to wait at all.
        with trio.move_on_after(0.01) as scope:
            await thread.read(lambda _: None)
        assert scope.cancelled_caught
    finally:
        stuck.set()
        monkeypatch.setattr(thread_module, "PATIENCE_S", 5.0)
        await thread.stop()
    with pytest.raises(Transient, match="is closed"):
        await thread.read(lambda _: None)


# ---- group commit and kill -9 --------------------------------------------------------------------------------------


async def test_writes_that_queue_up_share_a_commit(path: Path) -> None:
    commits = 0

    def traced() -> sqlite3.Connection:
        connection = open_file(path)

        def count(statement: str) -> None:
            nonlocal commits
            commits += statement == "COMMIT"

        connection.set_trace_callback(count)
        return connection

    thread = DatabaseThread(traced, "traced")
    await thread.start()
    await thread.write(lambda db: db.execute("CREATE TABLE t (n)"))
    before = commits

    async def insert(number: int) -> None:
        await thread.write(lambda db: db.execute("INSERT INTO t VALUES (?)", (number,)))

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(insert, number)
    assert commits - before < 100
    assert await thread.read(lambda db: db.execute("SELECT count(*) FROM t").fetchone()) == (200,)
    await thread.stop()


WRITER = """
import sys, trio
from moonxd.adapters.sqlite.ledger import open_sqlite_ledger
from tests.conformance.ledger_data import admission, admitted, change, event, holding

async def main():
    async with open_sqlite_ledger(sys.argv[1]) as ledger:
        async def one(slot):
            for job in range(1000):
                wallet = f"wallet-{slot}"
                lease = await admitted(ledger, admission(wallet, job=str(job)))
                await ledger.commit(change(lease, [holding(1, raw=job)], events=(event(wallet),)))
                print(slot, job, flush=True)
        async with trio.open_nursery() as nursery:
            for slot in range(4):
                nursery.start_soon(one, slot)

trio.run(main)
"""


def write_and_kill(path: Path) -> dict[str, int]:
    """The last job that each slot of a killed writer told us was committed."""
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        told = [process.stdout.readline().split() for _ in range(120)]
        process.send_signal(signal.SIGKILL)
        told += [line.split() for line in process.stdout if line.endswith("\n")]
    last: dict[str, int] = {}
    for slot, job in told:
        last[slot] = max(last.get(slot, -1), int(job))
    return last


@pytest.mark.chaos
async def test_kill_nine_loses_nothing_that_was_told(path: Path) -> None:
    last = write_and_kill(path)
    async with open_sqlite_ledger(path) as ledger:
        for slot, job in last.items():
            wallet = f"wallet-{slot}"
            assert isinstance(await ledger.admit(admission(wallet, job=str(job))), AlreadyCommitted)
            (view,) = await ledger.portfolio(wallet)
            (row,) = view.holdings
            # At most the one commit more whose answer the writer did not live to print.
            assert row.raw in (job, job + 1)
        completed = await ledger.operations(status="completed", limit=10_000)
        assert await ledger.backlog() == len(completed)
