"""The schedule on tables that an earlier program made, and how PostgreSQL finds what is due."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from moonxd.adapters.postgres.ledger import open_postgres_ledger
from moonxd.adapters.postgres.migrate import migrate
from moonxd.domain.errors import Permanent
from moonxd.domain.schedule import Change, Registration, Targets
from tests.conformance.ledger_data import address, synced
from tests.runtime.test_postgres_migrate import OLD_TABLES, OTHER_USER, USER

pytestmark = pytest.mark.postgres
TARGETS = Targets(active_s=86400, stale_s=3600, fresh_s=450, fresh_intervals=1.5)


@pytest.fixture
def old_database(empty_postgres_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(empty_postgres_dsn, autocommit=True) as connection:
        connection.execute(OLD_TABLES.encode())
        for user in (USER, OTHER_USER):
            connection.execute("INSERT INTO users VALUES (%s)", [user])
        yield connection


def entry(user: str, wallet: str, now: float, **more: Any) -> Registration:
    return Registration(user_id=user, wallet=wallet, due_at=int(now) - 5, revive_at=int(now), active_at=now, **more)


async def test_users_are_uuids_there(empty_postgres_dsn: str, old_database: psycopg.Connection[Any]) -> None:
    await migrate(empty_postgres_dsn)
    wallet = address(1)
    async with open_postgres_ledger(empty_postgres_dsn) as ledger:
        schedule = ledger.schedule
        now = (await schedule.take(0, 1.0)).at
        assert await schedule.register([entry(USER.upper(), wallet, now, interval_minutes=20)]) == 1
        assert await schedule.register([entry(USER, wallet, now)]) == 0
        assert await schedule.change(USER.upper(), None, Change(timezone="UTC")) == 1
        (due,) = (await schedule.take(10, 0.0)).wallets
        assert (due.user_id, due.interval_minutes, due.timezone) == (USER, 20, "UTC")
        with pytest.raises(Permanent, match="refused a value"):
            await schedule.register([entry("no uuid", wallet, now)])
        assert [row.user_id for row in await schedule.page(user_id=USER.upper())] == [USER]
        assert (await schedule.figures(TARGETS)).stale == 1
        old_database.execute("UPDATE user_sync_status SET last_sync_at = now(), auto_sync_interval_minutes = -3")
        (due,) = (await schedule.take(10, 0.0)).wallets
        assert due.interval_minutes is None, "nonsense is no interval"
        assert due.last_sync_at == pytest.approx(now, abs=30)
        assert await schedule.remove(USER.upper(), wallet) == 1


async def test_what_another_program_sets_counts_at_the_next_slot(postgres_dsn: str) -> None:
    wallet = address(2)
    async with open_postgres_ledger(postgres_dsn) as ledger:
        schedule = ledger.schedule
        now = (await schedule.take(0, 1.0)).at
        await schedule.register([entry("user-1", wallet, now)])
        await synced(ledger, wallet)
        with psycopg.connect(postgres_dsn, autocommit=True) as other:
            other.execute("UPDATE user_sync_status SET is_sync_enabled = false, auto_sync_interval_minutes = 45")
        (due,) = (await schedule.take(10, 0.0)).wallets
        assert (due.is_enabled, due.interval_minutes) == (False, 45)


def test_due_wallets_are_found_by_index_whatever_is_registered(postgres_dsn: str) -> None:
    """Right after an import, before the server has statistics of the table."""
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO moonxd_wallet_schedule (user_id, wallet_address, due_at, look_at, last_active_at) "
            "SELECT 'u' || n, '0x' || n, now() + n * interval '1 s', now() + n * interval '1 s', now() "
            "FROM generate_series(-50, 20000) n"
        )
        connection.execute("SELECT moonxd_schedule_take(20, 60, false)")
        before = _rows_read(connection)
        connection.execute("SELECT moonxd_schedule_take(20, 60, false)")
        after = _rows_read(connection)
    assert after[0] - before[0] == 0, "no sequential scan"
    assert after[1] - before[1] < 200


def _rows_read(connection: psycopg.Connection[Any]) -> tuple[int, int]:
    """Rows of the schedule read so far by sequential scans, and by indexes."""
    # Counters of a session reach the view at its end at the latest, or when it is told to.
    connection.execute("SELECT pg_stat_force_next_flush()")
    connection.execute("SELECT 1")
    row = connection.execute(
        "SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'moonxd_wallet_schedule'"
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])
