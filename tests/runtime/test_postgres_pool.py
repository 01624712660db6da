"""The pool against a real server: turns, deadlines, what is thrown away, and a server that goes and comes back."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import trio
import trio.testing
from psycopg import errors as e

from moonxd.adapters.postgres.connection import TrioConnection
from moonxd.adapters.postgres.ledger import open_postgres_ledger
from moonxd.adapters.postgres.pool import Pool, open_pool
from moonxd.domain.errors import ConfigError, Transient
from tests.services import free_port
from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.postgres


async def scalar(connection: TrioConnection, sql: str) -> object:
    cursor = await connection.execute(sql.encode())
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def backend(pool: Pool) -> int:
    async with pool.connection() as connection:
        return connection.info.backend_pid


async def test_a_connection_is_used_again(empty_postgres_dsn: str) -> None:
    async with open_pool(empty_postgres_dsn) as pool:
        assert await backend(pool) == await backend(pool)
        assert pool.size == 1


async def test_turns_are_first_come_first_served(empty_postgres_dsn: str) -> None:
    order: list[int] = []

    async def caller(number: int) -> None:
        async with pool.connection() as connection:
            order.append(number)
            await scalar(connection, "SELECT 1")

    async with open_pool(empty_postgres_dsn, max_size=1) as pool, trio.open_nursery() as nursery, pool.connection():
        for number in range(20):
            nursery.start_soon(caller, number)
            await trio.testing.wait_all_tasks_blocked()
        assert pool.waiting == 20
    assert order == list(range(20))


async def test_waiting_for_a_turn_ends(empty_postgres_dsn: str) -> None:
    async with open_pool(empty_postgres_dsn, max_size=1, wait_s=0.05) as pool, pool.connection():
        with pytest.raises(Transient, match="all 1 PostgreSQL connections were busy"):
            await backend(pool)
        with trio.move_on_after(0.01) as scope:
            await backend(pool)
        assert scope.cancelled_caught
        assert pool.waiting == 0


async def test_never_more_than_the_maximum(empty_postgres_dsn: str) -> None:
    async with open_pool(empty_postgres_dsn, max_size=3) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(backend, pool)
        assert 1 <= pool.size <= 3


async def test_an_abandoned_transaction_is_rolled_back(empty_postgres_dsn: str) -> None:
    async with open_pool(empty_postgres_dsn) as pool:
        async with pool.connection() as connection:
            await connection.execute("CREATE TABLE t (n int)")
            pid = connection.info.backend_pid
            await connection.execute("BEGIN")
            await connection.execute("INSERT INTO t VALUES (1)")
        async with pool.connection() as connection:
            assert connection.info.backend_pid == pid
            assert await scalar(connection, "SELECT count(*) FROM t") == 0


async def test_a_terminated_connection_is_not_lent_again(
    empty_postgres_dsn: str, postgres_server: PostgresServer
) -> None:
    async with open_pool(empty_postgres_dsn) as pool:
        first = await backend(pool)
        assert postgres_server.execute(f"SELECT pg_terminate_backend({first}, 5000)") == [(True,)]
        async with pool.connection() as connection:
            assert await scalar(connection, "SELECT pg_backend_pid()") != first


async def test_a_connection_that_failed_is_not_lent_again(empty_postgres_dsn: str) -> None:
    async with open_pool(empty_postgres_dsn) as pool:
        first = await backend(pool)
        async with pool.connection() as connection:
            with pytest.raises(e.OperationalError):
                await connection.execute("SELECT pg_terminate_backend(pg_backend_pid(), 0), pg_sleep(5)")
        assert await backend(pool) != first


async def until_size(pool: Pool, size: int) -> None:
    with trio.fail_after(10):
        while pool.size != size:  # noqa: ASYNC110 (a real server: there is no event to wait for)
            await trio.sleep(0.01)


async def test_idle_connections_are_closed_down_to_the_minimum(
    empty_postgres_dsn: str, postgres_server: PostgresServer
) -> None:
    database = empty_postgres_dsn.split("/")[3].split("?")[0]
    ready = trio.Event()

    async def hold() -> None:
        async with pool.connection():
            await ready.wait()

    async with open_pool(empty_postgres_dsn, min_size=2, max_size=8, idle_s=0.2) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(hold)
            await until_size(pool, 8)
            ready.set()
        await until_size(pool, 2)
        count = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"
        with trio.fail_after(10):
            while postgres_server.execute(count) != [(2,)]:  # noqa: ASYNC110 (backends end a moment later)
                await trio.sleep(0.01)


async def test_the_bodys_error_comes_out_as_it_is(empty_postgres_dsn: str) -> None:
    with pytest.raises(KeyError, match="mine"):  # noqa: PT012 (what leaves the block is the subject)
        async with open_pool(empty_postgres_dsn) as pool:
            await backend(pool)
            raise KeyError("mine")


async def test_a_closed_pool_says_so(empty_postgres_dsn: str) -> None:
    async with open_pool(empty_postgres_dsn) as pool:
        pass
    with pytest.raises(Transient, match="closed"):
        await backend(pool)


async def test_a_server_that_is_away_is_tried_until_the_deadline() -> None:
    async with open_pool(f"postgresql://u:sw0rdfish@127.0.0.1:{free_port()}/db", wait_s=0.4) as pool:
        begun = time.monotonic()
        with pytest.raises(Transient, match="cannot be reached") as caught:
            await backend(pool)
        assert 0.1 < time.monotonic() - begun < 3
        assert "sw0rdfish" not in str(caught.value)


async def test_a_refusal_is_not_tried_again(postgres_server: PostgresServer) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        async with open_postgres_ledger(postgres_server.dsn_of("absent")):
            raise AssertionError("opened a database that does not exist")


@pytest.mark.slow
async def test_a_restarted_server_is_found_again(start_postgres: Callable[..., PostgresServer]) -> None:
    server = start_postgres()
    async with open_pool(server.dsn) as pool:
        before = await backend(pool)
        server.stop()

        async def come_back() -> None:
            await trio.sleep(0.3)
            server.start()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(come_back)
            # Asked while it was away: the caller waits and never learns of it.
            assert await backend(pool) != before
