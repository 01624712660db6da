"""The ledgers under one name: a test that asks for `ledger` runs against memory, SQLite and a real PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg.rows import dict_row

from moonxd.adapters.memory.ledger import MemoryLedger
from moonxd.adapters.postgres.ledger import open_postgres_ledger
from moonxd.adapters.sqlite.ledger import open_sqlite_ledger
from tests.conformance.ledger_data import WholeLedger, new_wallet

Opener = Callable[[], AbstractAsyncContextManager[WholeLedger]]
#: Rows of a query on the tables that other programs read: look("SELECT ... WHERE wallet_address = '...'").
Look = Callable[[str], list[dict[str, Any]]]


class Kind(NamedTuple):
    """How to open one kind of ledger, and how others see its tables."""

    open: Opener
    look: Look


class _SystemClock:
    def now(self) -> float:
        return datetime.now(UTC).timestamp()


def _rows(connection: sqlite3.Connection, sql: str) -> list[dict[str, Any]]:
    cursor = connection.execute(sql)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _memory() -> Kind:
    ledger = MemoryLedger(_SystemClock())

    @asynccontextmanager
    async def opened() -> AsyncIterator[WholeLedger]:
        yield ledger

    return Kind(opened, lambda sql: _rows(ledger._runner._connection, sql))  # type: ignore[attr-defined]


def _sqlite(path: Path) -> Kind:
    def look(sql: str) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(path)) as connection:
            return _rows(connection, sql)

    return Kind(lambda: open_sqlite_ledger(path), look)


def _postgres(dsn: str) -> Kind:
    def look(sql: str) -> list[dict[str, Any]]:
        with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
            return connection.execute(sql.encode()).fetchall()

    return Kind(lambda: open_postgres_ledger(dsn), look)


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def ledger_kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    if request.param == "memory":
        return _memory()
    if request.param == "sqlite":
        return _sqlite(tmp_path / "ledger.db")
    return _postgres(request.getfixturevalue("emptied_postgres_dsn"))


@pytest.fixture
def open_ledger(ledger_kind: Kind) -> Opener:
    return ledger_kind.open


@pytest.fixture
def look(ledger_kind: Kind) -> Look:
    return ledger_kind.look


@pytest.fixture
async def ledger(ledger_kind: Kind) -> AsyncIterator[WholeLedger]:
    async with ledger_kind.open() as opened:
        yield opened


@pytest.fixture
def wallet() -> str:
    return new_wallet()


def exact(stored: object) -> Decimal:
    """A stored amount, whichever way the database keeps it."""
    return Decimal(str(stored))
