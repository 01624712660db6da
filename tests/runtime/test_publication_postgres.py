"""What only a real PostgreSQL can show of publication: long transactions, dead sessions, poolers, notifications."""

from __future__ import annotations

import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from functools import partial
from typing import Any

import msgspec
import psycopg
import pytest
import trio

from moonxd.adapters.postgres.ledger import PostgresLedger, open_postgres_ledger
from moonxd.adapters.postgres.migrate import migrate
from moonxd.adapters.postgres.publication import PostgresPublication
from moonxd.domain.errors import ConfigError, LeaseLost
from moonxd.domain.ledger import Event, StoredEvent
from moonxd.ports import Drain
from tests.conformance.ledger_data import event, new_wallet
from tests.runtime.relay_world import eventually
from tests.services.postgres import PostgresServer
from tests.services.proxy import Proxy

pytestmark = pytest.mark.postgres
PATIENCE_S = 20.0


@pytest.fixture
async def ledger(postgres_dsn: str) -> AsyncIterator[PostgresLedger]:
    async with open_postgres_ledger(postgres_dsn, min_size=1) as opened:
        yield opened


def publication(dsn: str, ledger: PostgresLedger) -> PostgresPublication:
    return PostgresPublication(dsn, ledger._ask)


def emit(connection: psycopg.Connection[Any], *events: Event) -> None:
    document = msgspec.json.encode(events).decode()
    connection.execute("SELECT moonxd_emit(%s::jsonb)", [document])


async def drained(drain: Drain, count: int, within_s: float = PATIENCE_S) -> list[StoredEvent]:
    """The next `count` events, marked."""
    found: list[StoredEvent] = []
    with trio.fail_after(within_s):
        while len(found) < count:
            page = await drain.unpublished(found[-1].position if found else 0, 100)
            found += page
            await drain.mark([one.position for one in page])
            if not page:
                await drain.wait(PATIENCE_S)
    return found


# ---- order and gaps ------------------------------------------------------------------------------------------------


class Writers:
    """Threads that write wallets' events in transactions of every kind, each under its wallet's lock."""

    def __init__(self, dsn: str, wallets: list[str], seed: int) -> None:
        self._dsn = dsn
        self._locks = {wallet: threading.Lock() for wallet in wallets}
        #: Per wallet what was committed, in the order of the commits.
        self.committed: dict[str, list[str]] = {wallet: [] for wallet in wallets}
        self._seed = seed
        self._pause = threading.Event()

    def write(self, number: int) -> None:
        rand = random.Random(self._seed * 100 + number)
        with closing(psycopg.connect(self._dsn)) as connection:
            for turn in range(25):
                wallet = rand.choice(list(self._locks))
                name = f"{number}-{turn}"
                # The ledger holds the wallet's row; a lock here is the same for the order.
                with self._locks[wallet]:
                    self._transaction(connection, wallet, name, rand)

    def _transaction(self, connection: psycopg.Connection[Any], wallet: str, name: str, rand: random.Random) -> None:
        emit(connection, event(wallet, f"{name}a"), event(wallet, f"{name}b"))
        # Ids are taken; others take and commit later ones meanwhile.
        self._pause.wait(rand.choice((0, 0, 0.001, 0.01, 0.1)))
        if rand.random() < 0.25:
            connection.rollback()
            return
        connection.commit()
        self.committed[wallet] += [f"{name}a", f"{name}b"]


@pytest.mark.parametrize("seed", range(3))
async def test_no_event_is_skipped_and_no_wallet_reordered(
    postgres_dsn: str, ledger: PostgresLedger, seed: int
) -> None:
    """Interleaved, slow and undone transactions beside two readers that hand out positions, and a sleeping relay."""
    wallets = [new_wallet() for _ in range(6)]
    writers = Writers(postgres_dsn, wallets, seed)
    done = trio.Event()
    seen: list[StoredEvent] = []

    async def read_as_api() -> None:
        while not done.is_set():
            await ledger.read(0, 3)
            await trio.sleep(0.003)

    async def relay() -> None:
        async with ledger.publication().hold() as drain:
            while True:
                is_last = done.is_set()
                page = await drain.unpublished(seen[-1].position if seen else 0, 10)
                seen.extend(page)
                await drain.mark([one.position for one in page])
                if not page and is_last:
                    return
                if not page:
                    await drain.wait(0.5)

    with trio.fail_after(60):
        async with trio.open_nursery() as readers:
            readers.start_soon(relay)
            readers.start_soon(read_as_api)
            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(trio.to_thread.run_sync, writers.write, number)
            done.set()
    assert [one.position for one in seen] == list(range(1, len(seen) + 1))
    for wallet in wallets:
        assert [one.event.type for one in seen if one.event.wallet == wallet] == writers.committed[wallet]


async def test_a_long_writer_holds_nobody_up(postgres_dsn: str, ledger: PostgresLedger, wallet: str) -> None:
    """Neither one with events of its own, nor one that writes elsewhere, nor one that only reads."""
    other = new_wallet()
    with closing(psycopg.connect(postgres_dsn)) as writer, closing(psycopg.connect(postgres_dsn)) as stranger:
        emit(writer, event(other, "late"))
        stranger.execute("CREATE TABLE strangers (n int)")
        async with ledger.publication().hold() as drain:
            await ledger.tell([event(wallet, "a")])
            await ledger.tell([event(wallet, "b")])
            first = await drained(drain, 2, 5.0)
            assert [one.event.type for one in first] == ["a", "b"]
            assert await drain.wait(0.3) in (True, False)
            await ledger.tell([event(wallet, "c")])
            assert [one.event.type for one in await drained(drain, 1, 5.0)] == ["c"]
            writer.commit()
            (late,) = await drained(drain, 1, 5.0)
    # Later in order, as it was committed later, though its id is lower.
    assert (late.event.type, late.position) == ("late", 4)


async def test_a_transaction_that_is_open_for_long_is_named(postgres_dsn: str, ledger: PostgresLedger) -> None:
    publication = ledger.publication()

    async def nobody() -> None:
        with trio.fail_after(PATIENCE_S):
            await eventually(partial(publication.holdup, 0.0), None)

    await nobody()
    with closing(psycopg.connect(postgres_dsn, application_name="nightly-report")) as long:
        long.execute("SELECT pg_current_xact_id()")
        said = await publication.holdup(0.0)
        assert said is not None
        assert f"pid {long.info.backend_pid}" in said
        assert "nightly-report" in said
        assert await publication.holdup(60.0) is None
        long.rollback()
        long.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        long.execute("SELECT count(*) FROM moonxd_outbox")
        assert f"pid {long.info.backend_pid}" in (await publication.holdup(0.0) or "")
    await nobody()


async def test_what_a_rollback_undid_leaves_no_gap(postgres_dsn: str, ledger: PostgresLedger, wallet: str) -> None:
    with closing(psycopg.connect(postgres_dsn)) as undone:
        await ledger.tell([event(wallet, "a"), event(wallet, "b")])
        undone.execute("SELECT moonxd_place_events(10)")
        undone.rollback()
    await ledger.tell([event(wallet, "c")])
    assert [one.position for one in await ledger.read(0, 10)] == [1, 2, 3]


# ---- waking --------------------------------------------------------------------------------------------------------


async def test_only_a_sleeping_relay_is_notified(postgres_dsn: str, ledger: PostgresLedger, wallet: str) -> None:
    with closing(psycopg.connect(postgres_dsn, autocommit=True)) as listener:
        listener.execute("LISTEN moonxd_outbox")

        def heard() -> int:
            return len(list(listener.notifies(timeout=0.2)))

        await ledger.tell([event(wallet, "nobody publishes")])
        assert heard() == 0
        async with ledger.publication().hold() as drain:
            await drained(drain, 1)
            await ledger.tell([event(wallet, "it works")])
            assert heard() == 0
            await drained(drain, 1)
            assert await drain.wait(0.01) is False
            await ledger.tell([event(wallet, "it sleeps"), event(wallet, "one transaction, one notification")])
            assert heard() == 1
            await drained(drain, 2)
            await ledger.tell([event(wallet, "awake again")])
            assert heard() == 0


async def test_a_sleeper_that_is_cancelled_at_any_moment_wakes_all_the_same(
    postgres_dsn: str, ledger: PostgresLedger, wallet: str
) -> None:
    """Afterwards it holds the lock "asleep" once or not at all, and knows which."""
    async with ledger.publication().hold() as drain:
        for step in range(40):
            with trio.move_on_after(0.0001 * step):
                await drain.wait(PATIENCE_S)
            with trio.move_on_after(0.0001 * (40 - step)):
                await drain.unpublished(0, 10)
        assert await drain.unpublished(0, 10) == ()
        with closing(psycopg.connect(postgres_dsn, autocommit=True)) as other:
            key = "moonxd_lock_key('outbox.asleep')"
            assert other.execute(f"SELECT pg_try_advisory_lock({key})".encode()).fetchone() == (True,)
            other.execute(f"SELECT pg_advisory_unlock({key})".encode())
        assert await drain.wait(0.01) is False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ledger.tell, [event(wallet, "news")])
            assert len(await drained(drain, 1, 2.0)) == 1


# ---- losing the hold -----------------------------------------------------------------------------------------------


def kill_session(dsn: str) -> None:
    with closing(psycopg.connect(dsn, autocommit=True)) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'moonxd relay' AND datname = current_database()"
        )


async def test_a_lost_session_marks_nothing(postgres_dsn: str, ledger: PostgresLedger, wallet: str) -> None:
    await ledger.tell([event(wallet, "a")])
    async with ledger.publication().hold() as drain:
        (one,) = await drain.unpublished(0, 10)
        kill_session(postgres_dsn)
        with pytest.raises(LeaseLost):
            await drain.mark([one.position])
        for ask in (drain.confirm, lambda: drain.unpublished(0, 1), lambda: drain.wait(1.0)):
            with pytest.raises(LeaseLost):
                await ask()
        async with ledger.publication().hold() as next_one:
            assert len(await next_one.unpublished(0, 10)) == 1


async def asleep_for_ever(drain: Drain) -> None:
    while True:
        await drain.wait(PATIENCE_S)


async def test_a_sleeper_notices_the_end_of_its_session(postgres_dsn: str, ledger: PostgresLedger) -> None:
    async with ledger.publication().hold() as drain, trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, kill_session, postgres_dsn)
        with trio.fail_after(5), pytest.raises(LeaseLost):
            await asleep_for_ever(drain)


@pytest.mark.slow
async def test_a_restarted_server_is_found_again(start_postgres: Callable[..., PostgresServer], wallet: str) -> None:
    server = start_postgres(("synchronous_commit=on",))
    await migrate(server.dsn)
    async with open_postgres_ledger(server.dsn, min_size=1) as ledger:
        await ledger.tell([event(wallet, "a")])
        async with ledger.publication().hold() as drain:
            server.kill()
            server.start()
            with pytest.raises(LeaseLost):
                await drain.unpublished(0, 10)
        async with ledger.publication().hold() as drain:
            assert len(await drained(drain, 1)) == 1


@pytest.mark.slow
@pytest.mark.chaos
async def test_a_holder_whose_network_is_gone_is_replaced(
    postgres_server: PostgresServer, postgres_dsn: str, ledger: PostgresLedger
) -> None:
    """Half-open: neither end hears that the other is gone. (The proxy keeps both connections and passes nothing.)"""
    database = postgres_dsn.split("@/")[1].split("?")[0]
    async with Proxy("127.0.0.1", postgres_server.port).serving() as proxy:
        dsn = f"postgresql://moonxd@127.0.0.1:{proxy.port}/{database}"
        async with publication(dsn, ledger).hold() as drain:
            proxy.swallow()
            began = trio.current_time()
            with trio.fail_after(30):
                async with ledger.publication().hold():
                    taken_after = trio.current_time() - began
            with trio.fail_after(30), pytest.raises(LeaseLost):
                await drain.confirm()
    # The server's patience with a silent session.
    assert taken_after < 12


# ---- the way there -------------------------------------------------------------------------------------------------


async def test_a_pooler_is_recognized(
    postgres_server: PostgresServer, postgres_dsn: str, ledger: PostgresLedger
) -> None:
    """A pooler gives its clients a key of its own, and so do we here."""
    database = postgres_dsn.split("@/")[1].split("?")[0]

    def with_a_key_of_its_own(data: bytes) -> bytes:
        at = data.find(b"K\x00\x00\x00\x0c")
        return data if at < 0 else data[: at + 5] + b"\x00\x00\x00\x01" + data[at + 9 :]

    async with Proxy("127.0.0.1", postgres_server.port, rewrite=with_a_key_of_its_own).serving() as proxy:
        dsn = f"postgresql://moonxd@127.0.0.1:{proxy.port}/{database}?sslmode=disable"
        with pytest.raises(ConfigError, match=r"database\.direct_url"):
            async with publication(dsn, ledger).hold():
                pass


@pytest.fixture
def wallet() -> str:
    return new_wallet()
