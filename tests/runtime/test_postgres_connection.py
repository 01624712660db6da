"""psycopg on Trio against a real server: cancelled at random, frozen, terminated."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
import trio
import trio.testing
import trustme
from psycopg import errors as e
from psycopg.pq import TransactionStatus

from moonxd.adapters.postgres import connection as module
from moonxd.adapters.postgres.connection import TrioConnection, assert_supported, connect, parsed
from moonxd.domain.errors import ConfigError, Transient
from tests.services import free_port
from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.postgres
ATTEMPTS = 400


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[TrioConnection]:
    connection = await connect(dsn, timeout_s=10)
    try:
        yield connection
    finally:
        await connection.close()


async def scalar(connection: TrioConnection, sql: str, *values: object) -> object:
    cursor = await connection.execute(sql.encode(), values)
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


def test_the_installed_psycopg_is_the_one_we_know() -> None:
    assert_supported()


def test_another_psycopg_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psycopg, "__version__", "3.4.0")
    with pytest.raises(ConfigError, match=r"psycopg 3\.3\.9 is needed, 3\.4\.0 is installed"):
        assert_supported()


async def test_it_speaks_over_the_unix_socket_and_tcp_and_resolves_names(postgres_server: PostgresServer) -> None:
    named = postgres_server.tcp_dsn.replace("127.0.0.1", "localhost")
    for dsn in (postgres_server.dsn, postgres_server.tcp_dsn, named):
        async with connected(dsn) as connection:
            assert await scalar(connection, "SELECT 1 + %s", 1) == 2
            assert await scalar(connection, "SHOW timezone") == "UTC"


async def test_hundreds_of_random_cancellations_leave_nothing_half_done(empty_postgres_dsn: str) -> None:
    """Sleeps, inserts and transactions, cancelled at any moment. What a caller was told is what is in the table."""
    dice = random.Random(7)
    told: dict[tuple[str, int], bool] = {}
    tally: Counter[str] = Counter()

    async def sleep(connection: TrioConnection, number: int) -> None:
        await connection.execute("SELECT pg_sleep(0.02)")

    async def insert(connection: TrioConnection, number: int) -> None:
        await connection.execute("INSERT INTO t VALUES ('insert', %s, 1), ('insert', %s, 2)", [number, number])

    async def transaction(connection: TrioConnection, number: int) -> None:
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES ('transaction', %s, 1)", [number])
            await connection.execute("SELECT pg_sleep(0.002)")
            await connection.execute("INSERT INTO t VALUES ('transaction', %s, 2)", [number])

    async def nested(connection: TrioConnection, number: int) -> None:
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES ('nested', %s, 1)", [number])
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES ('nested', %s, 2)", [number])

    kinds: list[Callable[[TrioConnection, int], object]] = [sleep, insert, transaction, nested]

    async def client(connection: TrioConnection, numbers: range) -> None:
        for number in numbers:
            work = dice.choice(kinds)
            name = work.__name__
            told[name, number] = False
            with trio.move_on_after(dice.random() * 0.006):
                await work(connection, number)  # type: ignore[misc]
                told[name, number] = True
            tally["done" if told[name, number] else "cancelled"] += 1
            assert not connection.closed, "a cancellation cost the connection"
            assert connection.is_clean
            assert await scalar(connection, "SELECT %s::int", number) == number

    async with connected(empty_postgres_dsn) as watcher:
        await watcher.execute("CREATE TABLE t (kind text, number int, half int)")
        connections = [await connect(empty_postgres_dsn, timeout_s=10) for _ in range(4)]
        async with trio.open_nursery() as nursery:
            for index, connection in enumerate(connections):
                share = ATTEMPTS // 4
                nursery.start_soon(client, connection, range(index * share, (index + 1) * share))
        for connection in connections:
            await connection.close()
        cursor = await watcher.execute("SELECT kind, number, count(*) FROM t GROUP BY 1, 2")
        written = {(kind, number): halves for kind, number, halves in await cursor.fetchall()}
    assert set(written.values()) <= {2}, "half-written"
    for (kind, number), is_told in told.items():
        if kind == "sleep":
            continue
        if is_told:
            assert (kind, number) in written, f"{kind} was reported as done but is absent"
        elif kind != "insert":
            # An autocommit statement may have taken effect although it was cancelled; a transaction may not.
            assert (kind, number) not in written, f"{kind} was reported as cancelled but was committed"
    assert tally["cancelled"] > ATTEMPTS // 8
    assert tally["done"] > ATTEMPTS // 8


async def test_nothing_goes_on_on_the_server_after_a_cancellation(empty_postgres_dsn: str) -> None:
    async with connected(empty_postgres_dsn) as connection, connected(empty_postgres_dsn) as watcher:
        with trio.move_on_after(0.05):
            await connection.execute("SELECT pg_sleep(60)")
        pid = connection.info.backend_pid
        state = await scalar(watcher, "SELECT state FROM pg_stat_activity WHERE pid = %s", pid)
        assert state == "idle"


async def test_a_cancel_request_never_hits_the_next_statement(empty_postgres_dsn: str) -> None:
    async with connected(empty_postgres_dsn) as connection:
        for number in range(50):
            with trio.move_on_after(0.001 * (number % 5)):
                await connection.execute("SELECT pg_sleep(0.003)")
            assert (
                await scalar(connection, "SELECT %s + count(*) FROM generate_series(1, 1000)", number) == number + 1000
            )


async def test_nothing_is_compiled_for_statements_that_take_no_time(empty_postgres_dsn: str) -> None:
    async with connected(empty_postgres_dsn) as connection:
        cursor = await connection.execute("SELECT current_setting('jit')::boolean")
        assert await cursor.fetchone() == (False,)


async def test_in_a_cancelled_scope_nothing_is_sent(empty_postgres_dsn: str) -> None:
    async with connected(empty_postgres_dsn) as connection:
        await connection.execute("CREATE TABLE t (n int)")
        with trio.CancelScope() as scope:
            scope.cancel()
            await connection.execute("INSERT INTO t VALUES (1)")
        assert scope.cancelled_caught
        assert await scalar(connection, "SELECT count(*) FROM t") == 0


async def test_a_transaction_is_rolled_back_although_the_scope_stays_cancelled(empty_postgres_dsn: str) -> None:
    async with connected(empty_postgres_dsn) as connection:
        await connection.execute("CREATE TABLE t (n int)")
        with trio.CancelScope() as scope:
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (1)")
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert connection.is_clean
        assert await scalar(connection, "SELECT count(*) FROM t") == 0


async def test_a_cancelled_copy_brings_the_connection_to_rest(empty_postgres_dsn: str) -> None:
    async with connected(empty_postgres_dsn) as connection:
        await connection.execute("CREATE TABLE t (n int)")
        with trio.move_on_after(0.05):
            async with connection.cursor() as cursor, cursor.copy("COPY t FROM STDIN") as copy:
                await copy.write("1\n")
                await trio.sleep_forever()
        with trio.move_on_after(0.05):
            async with (
                connection.cursor() as cursor,
                cursor.copy("COPY (SELECT n FROM generate_series(1, 3000000) n) TO STDOUT") as copy,
            ):
                async for _ in copy:
                    pass
        assert connection.is_clean
        assert await scalar(connection, "SELECT count(*) FROM t") == 0


async def test_a_pipeline_works_and_survives_an_error(empty_postgres_dsn: str) -> None:
    async with connected(empty_postgres_dsn) as connection:
        await connection.execute("CREATE TABLE t (n int PRIMARY KEY)")
        async with connection.pipeline(), connection.transaction():
            for number in range(20):
                await connection.execute("INSERT INTO t VALUES (%s)", [number])
        with pytest.raises(e.UniqueViolation):  # noqa: PT012 (the error comes out of the block's end)
            async with connection.pipeline(), connection.transaction():
                await connection.execute("INSERT INTO t VALUES (20)")
                await connection.execute("INSERT INTO t VALUES (1)")
        async with connection.cursor() as cursor:
            await cursor.executemany("INSERT INTO t VALUES (%s)", [(number,) for number in range(100, 400)])
        assert await scalar(connection, "SELECT count(*) FROM t") == 320


async def test_a_frozen_backend_costs_the_bound_and_the_connection(
    empty_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.5)
    async with connected(empty_postgres_dsn) as connection:
        pid = connection.info.backend_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            with trio.move_on_after(0.1):
                await connection.execute("SELECT 1")
            assert time.monotonic() - begun < 3
            assert connection.closed
        finally:
            os.kill(pid, signal.SIGCONT)


async def test_a_commit_without_an_answer_is_an_unknown_outcome(
    empty_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.3)
    async with connected(empty_postgres_dsn) as connection:
        await connection.execute("CREATE TABLE t (n int)")
        pid = connection.info.backend_pid
        try:
            with pytest.raises(e.OperationalError, match="unknown"):  # noqa: PT012 (the block's end raises)
                async with connection.transaction():
                    await connection.execute("INSERT INTO t VALUES (1)")
                    os.kill(pid, signal.SIGSTOP)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert connection.closed


async def test_a_terminated_backend_is_an_error_at_once(empty_postgres_dsn: str) -> None:
    async with connected(empty_postgres_dsn) as connection, connected(empty_postgres_dsn) as other:
        pid = connection.info.backend_pid
        async with trio.open_nursery() as nursery:

            async def terminate() -> None:
                while await scalar(other, "SELECT state FROM pg_stat_activity WHERE pid = %s", pid) != "active":
                    await trio.lowlevel.checkpoint()
                await scalar(other, "SELECT pg_terminate_backend(%s)", pid)

            nursery.start_soon(terminate)
            with trio.fail_after(10), pytest.raises(e.AdminShutdown):
                await connection.execute("SELECT pg_sleep(60)")
        assert not connection.is_clean


async def test_closing_wakes_whoever_waits(empty_postgres_dsn: str) -> None:
    async with connected(empty_postgres_dsn) as connection, trio.open_nursery() as nursery:

        async def closer() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await connection.close()

        nursery.start_soon(closer)
        with trio.fail_after(10), pytest.raises(e.OperationalError):
            await connection.execute("SELECT pg_sleep(60)")


async def test_an_open_transaction_is_not_clean(empty_postgres_dsn: str) -> None:
    async with connected(empty_postgres_dsn) as connection:
        await connection.execute("BEGIN")
        assert connection.pgconn.transaction_status == TransactionStatus.INTRANS
        assert not connection.is_clean
        assert connection.is_in_transaction
        await connection.rollback()
        assert connection.is_clean


@pytest.mark.slow
async def test_it_speaks_tls_and_checks_the_server(
    start_postgres: Callable[..., PostgresServer], tmp_path: Path
) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = start_postgres(tls=(issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes()))
    address = f"postgresql://moonxd@localhost:{server.port}/postgres?sslmode=verify-full"
    async with connected(f"{address}&sslrootcert={tmp_path / 'ca.pem'}") as connection:
        assert await scalar(connection, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") is True
        with trio.move_on_after(0.05):
            await connection.execute("SELECT pg_sleep(60)")
        assert await scalar(connection, "SELECT length(repeat('x', 3000000))") == 3000000
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    with pytest.raises(Transient, match="certificate verify failed"):
        await connect(f"{address}&sslrootcert={tmp_path / 'other.pem'}", timeout_s=5)


# ---- what goes wrong on the way in ---------------------------------------------------------------------------------


@pytest.mark.slow
async def test_no_message_ever_holds_the_password(start_postgres: Callable[..., PostgresServer]) -> None:
    server = start_postgres(password="right-horse")
    good = f"postgresql://moonxd:right-horse@127.0.0.1:{server.port}/postgres"
    async with connected(good) as connection:
        assert await scalar(connection, "SELECT 1") == 1
    for dsn in (good.replace("right-horse", "sw0rdfish"), good.replace("right-horse", "sw0rdfish") + "x"):
        with pytest.raises(ConfigError, match="check user, password and database") as caught:
            await connect(dsn, timeout_s=5)
        assert "sw0rdfish" not in str(caught.value)
    with pytest.raises(ConfigError, match="check user, password and database"):
        await connect(good + "_absent", timeout_s=5)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql//moonxd:sw0rdfish@host/db",
        "postgresql://u:sw0rdfish@host:x:y/db",
        "no=such option=sw0rdfish",
        "postgresql://u:12@sw0rdfish@h/db",
    ],
)
def test_an_unreadable_address_is_not_repeated(dsn: str) -> None:
    with pytest.raises(ConfigError, match="postgresql://user:password@host:port/database") as caught:
        parsed(dsn)
    assert "sw0rdfish" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_a_server_that_is_away_is_transient() -> None:
    with pytest.raises(Transient, match="cannot be reached"):
        await connect(f"postgresql://moonxd:sw0rdfish@127.0.0.1:{free_port()}/db", timeout_s=5)
    with pytest.raises(Transient, match="cannot be reached"):
        await connect("postgresql://moonxd@/db?host=/no/such/directory", timeout_s=5)
    with pytest.raises(Transient, match="cannot be reached"):
        await connect("postgresql://moonxd@no-such-host.invalid/db", timeout_s=5)


async def test_a_server_that_never_answers_is_bounded() -> None:
    async with _silent() as port:
        with trio.fail_after(5), pytest.raises(Transient, match=r"no answer within 0\.3 s"):
            await connect(f"postgresql://moonxd@127.0.0.1:{port}/db", timeout_s=0.3)


@asynccontextmanager
async def _silent() -> AsyncIterator[int]:
    """A port that accepts and says nothing."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        yield listener.socket.getsockname()[1]
