"""ports.Records on SQLite, beside a daemon that works or without one. Changes nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from uuid import UUID

import trio

from ...domain.errors import ConfigError
from ...domain.ledger import DeadLetter, Page, StoredEvent
from ...domain.verify import Row
from ...domain.verify.facts import of_row
from ...ports import ANY_LETTER
from . import reads, upkeep
from .database import APPLICATION_ID, BUSY_S, migrations
from .rows import operation_of, time_text
from .thread import DatabaseThread

_ROWS = """
SELECT o.id, o.user_id, o.wallet_address, o.type, o.status, o.priority, o.started_at, o.completed_at, o.duration_ms,
    o.tokens_synced, o.chains_synced, o.total_value_usd, o.error_message, o.retry_count, o.worker_id, o.worker_version,
    o.metadata, o.created_at, o.updated_at, w.lease_expires_at
FROM sync_operations o LEFT JOIN moonxd_wallets w
    ON w.user_id = o.user_id AND w.wallet_address = o.wallet_address AND w.lease_operation = o.id
WHERE o.id > ? AND o.created_at >= ? ORDER BY o.id LIMIT ?
"""


class SqliteRecords:
    """See ports.Records."""

    def __init__(self, thread: DatabaseThread) -> None:
        self._thread = thread

    async def rows(self, after: UUID | None, limit: int, *, since: float | None = None) -> tuple[Row, ...]:
        values = (str(after or ""), time_text(since or 0.0), limit)
        found = await self._thread.read(lambda db: db.execute(_ROWS, values).fetchall())
        return tuple(of_row(operation_of(row), _seconds(row[17]), _seconds(row[18]), _lease(row[19])) for row in found)

    async def placed(self, after: int, limit: int) -> tuple[StoredEvent, ...]:
        return await self._thread.read(lambda db: reads.events(db, after, limit))

    async def unplaced(self, limit: int) -> tuple[StoredEvent, ...]:
        """None: here a position is given with the row."""
        await trio.lowlevel.checkpoint()
        return ()

    async def newest(self) -> int:
        return await self._thread.read(reads.newest_position)

    async def letters(self, queue: str, *, limit: int, after: Page | None) -> tuple[DeadLetter, ...]:
        return await self._thread.read(lambda db: upkeep.letters(db, queue, ANY_LETTER, after, limit))


@asynccontextmanager
async def open_sqlite_records(path: Path) -> AsyncIterator[SqliteRecords]:
    """The ledger in the file at `path`, which is neither made nor migrated. Raises ConfigError, naming it."""
    thread = DatabaseThread(lambda: _connect(path), str(path))
    await thread.start()
    try:
        yield SqliteRecords(thread)
    finally:
        with trio.CancelScope(shield=True):
            await thread.stop()


def _connect(path: Path) -> sqlite3.Connection:
    if not path.exists():
        raise ConfigError(f"there is no ledger at {path}: name the daemon's state directory, or its DATABASE_URL")
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, cached_statements=64)
    try:
        connection.execute("PRAGMA query_only = ON")
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if application != APPLICATION_ID:
            raise ConfigError(f"{path} is no ledger of moonxd")
        (version,) = connection.execute("SELECT max(version) FROM moonxd_schema").fetchone()
        if version != (newest := migrations()[-1][0]):
            raise ConfigError(
                f"the ledger {path} has schema version {version}, this moonxd looks at version {newest}: use the "
                "version that the daemon has"
            )
    except sqlite3.DatabaseError as error:
        connection.close()
        raise ConfigError(f"the ledger {path} cannot be read ({error})") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _lease(text: str | None) -> float | None:
    return None if text is None else _seconds(text)
