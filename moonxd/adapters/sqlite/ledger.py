"""The embedded ledger: one file, one thread; the same promises as the PostgreSQL ledger (one conformance suite)."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import trio

from ...domain.guard import Window
from ...domain.ledger import (
    Admission,
    Commit,
    DeadLetter,
    Decision,
    Ending,
    Event,
    Lease,
    LetterFilter,
    Operation,
    Orphan,
    Page,
    PastPortfolio,
    Portfolio,
    Pruned,
    Retention,
    StoredEvent,
    Withdrawal,
)
from ...ports import ANY_LETTER
from . import guards, reads, upkeep, writes
from .breakers import Runner, SqliteBreakers
from .database import open_file
from .publication import Bell, FileLock, RelayLock, SqlitePublication
from .rows import time_text
from .schedule import SqliteSchedule
from .thread import DatabaseThread

R = TypeVar("R")


class SqliteLedger:
    """Ledger, LedgerUpkeep, History, DeadLetters and Outbox on SQLite. `now` gives unix seconds.

    What changes something is bounded, not cancellable: whoever is cancelled knows that nothing was written.
    """

    def __init__(self, runner: Runner, now: Callable[[], float], lock: RelayLock) -> None:
        self._runner = runner
        self._now = now
        self._lock = lock
        self._bell = Bell()
        self.schedule = SqliteSchedule(runner, now)

    async def ping(self) -> None:
        """Raises Transient when the database does not answer."""
        await self._runner.read(lambda db: db.execute("SELECT 1").fetchone())

    async def admit(self, ask: Admission) -> Decision:
        return await self._telling(lambda db: writes.admit(db, ask, self._now()))

    async def commit(self, change: Commit) -> None:
        await self._telling(lambda db: writes.commit(db, change, self._now()))

    async def close(self, ending: Ending) -> None:
        await self._telling(lambda db: writes.close(db, ending, self._now()))

    async def renew(self, leases: Sequence[Lease], lease_s: float) -> tuple[UUID, ...]:
        return await self._runner.write(lambda db: writes.renew(db, leases, lease_s, self._now()))

    async def sweep(self, grace_s: float, told: Callable[[Orphan], Event] | None = None) -> int:
        return await self._runner.write(lambda db: writes.sweep(db, grace_s, told, self._now()))

    async def portfolio(self, wallet: str, user_id: str | None = None) -> tuple[Portfolio, ...]:
        return await self._runner.read(lambda db: reads.portfolio(db, wallet, user_id))

    async def operations(
        self,
        *,
        user_id: str | None = None,
        wallet: str | None = None,
        status: str | None = None,
        sync_type: str | None = None,
        since: datetime | None = None,
        limit: int = 50,
    ) -> tuple[Operation, ...]:
        created = None if since is None else time_text(since.timestamp())
        wanted = {
            "user_id =": user_id,
            "wallet_address =": wallet,
            "status =": status,
            "type =": sync_type,
            "created_at >=": created,
        }
        return await self._runner.read(lambda db: reads.operations(db, wanted, limit))

    async def bury(self, letter: DeadLetter) -> None:
        await self._runner.write(lambda db: writes.bury(db, letter))

    async def letter(self, queue: str, job_id: str) -> DeadLetter | None:
        return await self._runner.read(lambda db: reads.letter(db, queue, job_id))

    async def letters(
        self, queue: str, *, limit: int = 50, wanted: LetterFilter = ANY_LETTER, after: Page | None = None
    ) -> tuple[DeadLetter, ...]:
        return await self._runner.read(lambda db: upkeep.letters(db, queue, wanted, after, limit))

    async def count_letters(self, queue: str, wanted: LetterFilter) -> int:
        return await self._runner.read(lambda db: upkeep.count_letters(db, queue, wanted))

    async def exhume(self, queue: str, job_ids: Sequence[str]) -> int:
        return await self._runner.write(lambda db: writes.exhume(db, queue, job_ids))

    async def read(self, after: int, limit: int) -> tuple[StoredEvent, ...]:
        return await self._runner.read(lambda db: reads.events(db, after, limit))

    async def newest(self) -> int:
        return await self._runner.read(reads.newest_position)

    async def backlog(self) -> int:
        return await self._runner.read(reads.backlog)

    def publication(self) -> SqlitePublication:
        """The right to publish this ledger's events."""
        return SqlitePublication(self._runner, self._now, self._lock, self._bell)

    def breakers(self) -> SqliteBreakers:
        """Where the states of breakers are kept, in the same file."""
        return SqliteBreakers(self._runner, self._now)

    async def history(
        self,
        wallet: str,
        *,
        user_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 50,
    ) -> tuple[PastPortfolio, ...]:
        return await self._runner.read(lambda db: upkeep.history(db, wallet, user_id, since, until, limit))

    async def window_frees_at(self, user_id: str, window: Window) -> datetime | None:
        return await self._runner.read(lambda db: guards.free_at(db, user_id, window, self._now()))

    async def prune(self, keep: Retention, limit: int) -> Pruned:
        return await self._runner.write(lambda db: upkeep.prune(db, keep, limit, self._now()))

    async def tell(self, events: Sequence[Event]) -> None:
        await self._telling(lambda db: writes.tell(db, events, self._now()))

    async def _telling(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """A write that may leave events: the relay of this process looks at once."""
        result = await self._runner.write(work)
        self._bell.ring()
        return result

    async def withdraw(self, jobs: Sequence[Withdrawal]) -> int:
        return await self._runner.write(lambda db: sum(writes.withdraw(db, one, self._now()) for one in jobs))


@asynccontextmanager
async def open_sqlite_ledger(path: str | Path, *, now: Callable[[], float] = time.time) -> AsyncIterator[SqliteLedger]:
    """The ledger in the file at `path`, created (mode 0600) and migrated if needed.

    Several processes may open one file: leases and fences live in it. Raises ConfigError, naming the file, when it
    is torn, another program's, or of a newer version.
    """
    file = Path(path)
    thread = DatabaseThread(lambda: open_file(file), str(file))
    await thread.start()
    try:
        yield SqliteLedger(thread, now, FileLock(file.with_name(f"{file.name}.relay")))
    finally:
        with trio.CancelScope(shield=True):
            await thread.stop()
