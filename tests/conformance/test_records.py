"""ports.Records on SQLite and PostgreSQL: every row once, page by page, nothing changed. And ports.Scratch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from moonxd.adapters.postgres.ledger import open_postgres_ledger
from moonxd.adapters.scratch import open_scratch
from moonxd.adapters.sqlite.ledger import open_sqlite_ledger
from moonxd.adapters.sqlite.records import open_sqlite_records
from moonxd.domain.errors import ConfigError, Transient
from moonxd.domain.ledger import Page, StoredEvent
from moonxd.domain.verify import Row
from moonxd.ports import Records
from tests.conformance.ledger_data import LEASE_S, WholeLedger, admission, admitted, event, letter, new_wallet, synced


class Both(NamedTuple):
    ledger: WholeLedger
    records: Records


@asynccontextmanager
async def _sqlite(path: Path) -> AsyncIterator[Both]:
    async with open_sqlite_ledger(path) as ledger, open_sqlite_records(path) as records:
        yield Both(ledger, records)


@asynccontextmanager
async def _postgres(dsn: str) -> AsyncIterator[Both]:
    async with open_postgres_ledger(dsn) as ledger:
        yield Both(ledger, ledger.records())


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> AbstractAsyncContextManager[Both]:
    if request.param == "postgres":
        return _postgres(request.getfixturevalue("postgres_dsn"))
    return _sqlite(tmp_path / "ledger.db")


@pytest.fixture
async def both(opening: AbstractAsyncContextManager[Both]) -> AsyncIterator[Both]:
    async with opening as opened:
        yield opened


async def all_rows(records: Records, page: int, since: float | None = None) -> list[Row]:
    found: list[Row] = []
    while rows := await records.rows(found[-1].id if found else None, page, since=since):
        assert len(rows) <= page
        found += rows
    return found


async def all_events(records: Records, page: int) -> list[StoredEvent]:
    found: list[StoredEvent] = []
    while events := await records.placed(found[-1].position if found else 0, page):
        found += events
    return [*found, *await records.unplaced(1000)]


async def test_every_operation_once_by_id(both: Both) -> None:
    leases = [await synced(both.ledger, new_wallet()) for _ in range(7)]
    rows = await all_rows(both.records, 3)
    assert [row.id for row in rows] == sorted(lease.operation for lease in leases)
    assert {row.status for row in rows} == {"completed"}
    assert all(row.is_ours and row.queue == "sync-jobs" and row.lease_until is None for row in rows)
    assert all(row.completed_at is not None and row.completed_at >= row.created_at for row in rows)
    latest = max(row.created_at for row in rows)
    assert await all_rows(both.records, 3, since=latest + 1) == []
    assert await all_rows(both.records, 3, since=latest - 100) == rows


async def test_a_running_operation_and_its_lease(both: Both) -> None:
    ask = admission(new_wallet())
    await admitted(both.ledger, ask)
    (row,) = await both.records.rows(None, 10)
    assert (row.id, row.status, row.job_id, row.user_id) == (ask.operation, "running", ask.job_id, ask.user_id)
    assert row.lease_until is not None
    assert row.lease_until - row.updated_at == pytest.approx(LEASE_S, abs=1)


async def test_every_event_once_and_looking_gives_no_positions(both: Both) -> None:
    assert await both.records.newest() == 0
    told = [event(new_wallet()) for _ in range(5)]
    await both.ledger.tell(told[:3])
    await both.ledger.read(0, 10)
    await both.ledger.tell(told[3:])
    newest = await both.records.newest()
    found = await all_events(both.records, 2)
    assert [one.event for one in found] == told
    assert [one.position for one in found][:3] == [1, 2, 3]
    assert await both.records.newest() == newest
    # The same again: told twice is told once, and costs no position.
    await both.ledger.tell(told)
    await both.ledger.tell([event(new_wallet())])
    assert [one.position for one in await both.ledger.read(0, 10)] == [1, 2, 3, 4, 5, 6]


async def test_letters_newest_first(both: Both) -> None:
    for number in range(5):
        await both.ledger.bury(letter(f"job-{number}", failed_at=1000 + number))
    first = await both.records.letters("sync-jobs", limit=3, after=None)
    rest = await both.records.letters("sync-jobs", limit=3, after=Page(first[-1].failed_at, first[-1].job_id))
    assert [one.job_id for one in (*first, *rest)] == [f"job-{number}" for number in (4, 3, 2, 1, 0)]
    assert await both.records.letters("other", limit=3, after=None) == ()


async def test_a_file_that_is_no_ledger_is_named_and_left_alone(tmp_path: Path) -> None:
    missing, foreign = tmp_path / "none.db", tmp_path / "foreign.db"
    foreign.write_bytes(b"not a database, and long enough to be looked at" * 100)
    for path in (missing, foreign):
        with pytest.raises(ConfigError, match=path.name):
            async with open_sqlite_records(path):
                pytest.fail("it was opened")
    assert not missing.exists()


# ---- Scratch -------------------------------------------------------------------------------------------------------


async def test_equal_keys_meet_in_one_share_in_order() -> None:
    async with open_scratch(5) as scratch:
        entries = [(f"key-{number % 30} \u00e9\0", b"%d" % number) for number in range(600)]
        for start in range(0, 600, 100):
            await scratch.put(entries[start : start + 100])
        shares = [await scratch.share(number) for number in range(scratch.shares)]
        assert sum(len(share) for share in shares) == 30
        assert sum(bool(share) for share in shares) > 1
        together = {key: bodies for share in shares for key, bodies in share.items()}
        for number in range(30):
            assert together[f"key-{number} \u00e9\0"] == [b"%d" % one for one in range(number, 600, 30)]
        await scratch.put([("late", b"")])
        await scratch.clear()
        assert [await scratch.share(number) for number in range(5)] == [{}] * 5


async def test_no_room_is_said() -> None:
    async with open_scratch(1) as scratch:
        full = open("/dev/full", "w+b", buffering=0)  # noqa: SIM115, ASYNC230
        real, scratch._files = scratch._files, [full]  # type: ignore[assignment]
        with pytest.raises(Transient, match="TMPDIR"):
            await scratch.put([("key", b"body")])
        scratch._files = real
        full.close()
