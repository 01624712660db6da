"""Where breakers are kept: memory, SQLite and PostgreSQL behave alike, and a start survives what it finds there."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import trio

from moonxd.adapters.memory.breakers import MemoryBreakers
from moonxd.adapters.postgres.ledger import open_postgres_ledger
from moonxd.adapters.sqlite.ledger import open_sqlite_ledger
from moonxd.agents.breakers import BreakerKeeper, new_breakers
from moonxd.domain.breaker import Policy, State, dump
from moonxd.domain.breakers import Breakers
from moonxd.domain.errors import Transient
from moonxd.ports import BreakerStore
from tests.services import have

USERS = 100_000


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        dsn: str = request.getfixturevalue("emptied_postgres_dsn")
        return dsn
    return "memory" if request.param == "memory" else str(tmp_path / "ledger.db")


@pytest.fixture
async def store(place: str) -> AsyncIterator[BreakerStore]:
    if place == "memory":
        yield MemoryBreakers()
    elif place.endswith("ledger.db"):
        async with open_sqlite_ledger(place) as ledger:
            yield ledger.breakers()
    else:
        async with open_postgres_ledger(place) as opened:
            yield opened.breakers()


def keeper(breakers: Breakers, store: BreakerStore) -> BreakerKeeper:
    return BreakerKeeper(breakers, store, recovered=lambda seconds: None)


async def test_what_is_saved_is_loaded(store: BreakerStore) -> None:
    assert await store.load() == {}
    await store.save({"base/a": "1", "base/b": "2"})
    await store.save({"base/b": "3"})
    assert await store.load() == {"base/a": "1", "base/b": "3"}


async def test_what_is_set_aside_is_not_loaded_and_its_name_is_free(store: BreakerStore) -> None:
    for text in ("torn", "torn again"):
        await store.save({"base/a": text})
        await store.set_aside("base/a")
        assert await store.load() == {}
    await store.save({"base/a": "sound"})
    assert await store.load() == {"base/a": "sound"}


async def test_changes_are_kept_and_taken_up_again(store: BreakerStore) -> None:
    breakers = new_breakers(lambda name, reason: None)
    breakers.register("base/a", Policy(), "url")
    async with trio.open_nursery() as nursery:
        await nursery.start(_run, keeper(breakers, store))
        breakers.trip("base/a", "HTTP 401", 600.0)
        await _until_kept(store, lambda kept: '"mode":"open"' in kept.get("base/a", ""))
        breakers.reset("base/a")
        breakers.cordon("base/a", "maintenance")
        await _until_kept(store, lambda kept: "maintenance" in kept["base/a"])
        nursery.cancel_scope.cancel()
    successor = new_breakers(lambda name, reason: None)
    await keeper(successor, store).recover()
    successor.register("base/a", Policy(), "url")
    assert [(view.mode, view.reason) for view in successor.views()] == [("cordoned", "maintenance")]
    successor.uncordon("base/a")
    successor.trip("base/a", "HTTP 401", 600.0)
    successor.register("base/a", Policy(), "another url")
    assert successor.view("base/a").mode == "closed", "what was known of the old endpoint says nothing about it"


async def test_what_an_operator_says_to_one_daemon_is_heard_by_the_others(
    store: BreakerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moonxd.agents.breakers.LISTEN_S", 0.05)
    one, other = new_breakers(lambda name, reason: None), new_breakers(lambda name, reason: None)

    async def heard(mode: str) -> None:
        with trio.fail_after(20):
            while other.view("base/a").mode != mode:  # noqa: ASYNC110 (a breaker tells nobody)
                await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        for breakers in (one, other):
            breakers.register("base/a", Policy())
            await nursery.start(_run, keeper(breakers, store))
        one.cordon("base/a", "maintenance", 600.0)
        await heard("cordoned")
        # The other daemon's own state does not undo what was said.
        other.trip("base/a", "down", 600.0)
        one.uncordon("base/a")
        await heard("open")
        one.reset("base/a")
        await heard("closed")
        nursery.cancel_scope.cancel()


async def test_a_cordon_is_remembered_whoever_kept_the_breaker_last(store: BreakerStore) -> None:
    one, other = new_breakers(lambda name, reason: None), new_breakers(lambda name, reason: None)
    async with trio.open_nursery() as nursery:
        for breakers in (one, other):
            breakers.register("base/a", Policy())
            await nursery.start(_run, keeper(breakers, store))
        one.cordon("base/a", "maintenance")
        await _until_kept(store, lambda kept: "maintenance" in kept.get("base/a", ""))
        other.trip("base/a", "down", 600.0)
        await _until_kept(store, lambda kept: "maintenance" not in kept["base/a"])
        nursery.cancel_scope.cancel()
    successor = new_breakers(lambda name, reason: None)
    await keeper(successor, store).recover()
    successor.register("base/a", Policy())
    assert successor.view("base/a").mode == "cordoned"


async def _run(kept: BreakerKeeper, task_status: trio.TaskStatus[None]) -> None:
    await kept.run(task_status.started)


async def _until_kept(store: BreakerStore, said: Callable[[Mapping[str, str]], bool]) -> None:
    with trio.fail_after(20):
        while not said(await store.load()):  # noqa: ASYNC110 (the store tells nobody)
            await trio.sleep(0.01)


async def test_the_last_counts_are_kept_when_the_daemon_stops(store: BreakerStore) -> None:
    breakers = new_breakers(lambda name, reason: None)
    breakers.register("base/a", Policy())
    async with trio.open_nursery() as nursery:
        await nursery.start(_run, keeper(breakers, store))
        ticket = breakers.admit("base/a")
        assert ticket is not None
        breakers.settle("base/a", ticket, "bad")
        nursery.cancel_scope.cancel()
    assert '"streak":1' in (await store.load())["base/a"]


@pytest.mark.parametrize("torn", ["", "{", '{"mode":"ajar"}', "null", "[" * 50_000])
async def test_an_unreadable_row_is_set_aside_and_the_start_goes_on(store: BreakerStore, torn: str) -> None:
    await store.save({"base/torn": torn, "base/sound": dump(State(mode="open", turn=1e12, seen=time.time()))})
    breakers = new_breakers(lambda name, reason: None)
    lost: list[str] = []
    await BreakerKeeper(breakers, store, recovered=lambda seconds: None, lost=lost.append).recover()
    breakers.register("base/torn", Policy())
    breakers.register("base/sound", Policy())
    assert {view.name: view.mode for view in breakers.views()} == {"base/torn": "closed", "base/sound": "open"}
    assert (await store.load()).keys() == {"base/sound"}
    (sentence,) = lost
    assert "base/torn" in sentence


class Away(MemoryBreakers):
    """A store that fails until it is told otherwise."""

    is_away = True

    async def load(self) -> dict[str, str]:
        if self.is_away:
            raise Transient("the database is away")
        return await super().load()

    async def save(self, states: Mapping[str, str]) -> None:
        if self.is_away:
            raise Transient("the database is away")
        await super().save(states)


async def test_a_store_that_is_away_stops_nobody(autojump_clock: object) -> None:
    store, breakers = Away(), Breakers(trio.current_time)
    keeping = keeper(breakers, store)
    await keeping.recover()
    breakers.register("base/a", Policy())
    async with trio.open_nursery() as nursery:
        await nursery.start(_run, keeping)
        breakers.trip("base/a", "down", 600.0)
        await trio.sleep(60)
        assert store.states == {}
        store.is_away = False
        await trio.sleep(6)
        assert "base/a" in store.states
        nursery.cancel_scope.cancel()


def register_users(place: str) -> None:
    """As many users whose syncs failed before."""
    if place.endswith("ledger.db"):
        with closing(sqlite3.connect(place)) as database, database:
            database.executemany(
                "INSERT INTO user_sync_status (user_id, wallet_address, consecutive_failures, created_at, updated_at) "
                "VALUES (?, ?, 7, '', '')",
                ((f"user-{n}", f"0x{n:040x}") for n in range(USERS)),
            )
        return
    with psycopg.connect(place, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO user_sync_status (user_id, wallet_address, consecutive_failures) "
            "SELECT gen_random_uuid(), '0x' || n, 7 FROM generate_series(1, %s) n",
            [USERS],
        )


@pytest.mark.slow
async def test_breakers_are_ready_beside_a_hundred_thousand_users(place: str, store: BreakerStore) -> None:
    """What users' breakers follow from is read when a job is admitted: a start loads nothing of it."""
    await store.save({f"base/{n}": dump(State(mode="open", turn=60.0)) for n in range(50)})
    if place != "memory":
        await trio.to_thread.run_sync(register_users, place)
    took: list[float] = []
    for _ in range(3):
        await BreakerKeeper(new_breakers(lambda name, reason: None), store, recovered=took.append).recover()
    have("breakers ready", f"{min(took) * 1000:.1f} ms beside {USERS} users in {type(store).__name__}")
    assert len(await store.load()) == 50, "and nothing of the users"
