"""The right to publish on SQLite: a locked file beside the ledger, which the kernel frees when its holder dies.

Positions are given when events are written, and one writer at a time commits, so they are in commit order as they are.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Protocol

import trio

from ...domain.errors import Transient
from ...domain.ledger import Backlog, StoredEvent
from .breakers import Runner
from .rows import EVENT_COLUMNS, event_of, time_text

#: Seconds between two looks of a relay that waits for the one at work to go.
TRY_EVERY_S = 0.2
#: Seconds between two looks at what other processes committed. Our own commits ring.
LOOK_EVERY_S = 0.1


class Bell:
    """Rung after commits that may have left events."""

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        self._rung.set()
        self._rung = trio.Event()

    @property
    def next(self) -> trio.Event:
        """Set at the next ring."""
        return self._rung


class RelayLock(Protocol):
    """Held by one relay at a time."""

    def try_take(self) -> Callable[[], None] | None:
        """How to let go again; None while somebody else holds it."""
        ...


class FileLock:
    """For all processes of a machine. The file stays: removing it would let two hold it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def try_take(self) -> Callable[[], None] | None:
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Transient(f"the relay's lock {self._path} cannot be opened ({error.strerror})") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if isinstance(error, BlockingIOError):
                return None
            raise Transient(f"the relay's lock {self._path} cannot be locked ({error.strerror})") from error
        return lambda: os.close(handle)


class MemoryLock:
    """For the tasks of one process."""

    def __init__(self) -> None:
        self._is_held = False

    def try_take(self) -> Callable[[], None] | None:
        if self._is_held:
            return None
        self._is_held = True
        return self._let_go

    def _let_go(self) -> None:
        self._is_held = False


class SqlitePublication:
    """A `ports.Publication`."""

    def __init__(self, runner: Runner, now: Callable[[], float], lock: RelayLock, bell: Bell) -> None:
        self._runner = runner
        self._now = now
        self._lock = lock
        self._bell = bell

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[SqliteDrain]:
        let_go = await self._take()
        try:
            yield SqliteDrain(self._runner, self._now, self._bell)
        finally:
            let_go()

    async def _take(self) -> Callable[[], None]:
        await trio.lowlevel.checkpoint()
        while True:
            let_go = self._lock.try_take()
            if let_go is not None:
                return let_go
            await trio.sleep(TRY_EVERY_S)

    async def backlog(self) -> Backlog:
        count, oldest = await self._runner.read(_backlog)
        age_s = self._now() - datetime.fromisoformat(oldest).timestamp() if oldest else 0.0
        return Backlog(count=count, age_s=max(0.0, age_s))

    async def holdup(self, longer_s: float) -> str | None:
        """Nothing: whoever writes for long keeps all of us from committing, and each call says so."""
        await trio.lowlevel.checkpoint()
        return None


class SqliteDrain:
    """A `ports.Drain`. The lock cannot be lost while we live."""

    def __init__(self, runner: Runner, now: Callable[[], float], bell: Bell) -> None:
        self._runner = runner
        self._now = now
        self._bell = bell
        self._heard = bell.next
        #: The highest position that was handed out.
        self._seen = 0

    async def unpublished(self, after: int, limit: int) -> tuple[StoredEvent, ...]:
        self._heard = self._bell.next
        statement = (
            f"SELECT {EVENT_COLUMNS} FROM moonxd_outbox WHERE position > ? AND published_at IS NULL "
            "ORDER BY position LIMIT ?"
        )
        rows = await self._runner.read(lambda db: db.execute(statement, (after, limit)).fetchall())
        self._seen = rows[-1][0] if rows else after
        return tuple(map(event_of, rows))

    async def mark(self, positions: Sequence[int]) -> None:
        at = time_text(self._now())
        statement = "UPDATE moonxd_outbox SET published_at = ? WHERE position = ? AND published_at IS NULL"
        await self._runner.write(lambda db: db.executemany(statement, [(at, one) for one in positions]))

    async def park(self, position: int, reason: str) -> None:
        statement = "UPDATE moonxd_outbox SET published_at = ?, parked = ? WHERE position = ? AND published_at IS NULL"
        values = (time_text(self._now()), reason, position)
        await self._runner.write(lambda db: db.execute(statement, values))

    async def confirm(self) -> None:
        await trio.lowlevel.checkpoint()

    async def wait(self, timeout: float) -> bool:
        deadline = trio.current_time() + timeout
        while True:
            with trio.move_on_at(min(deadline, trio.current_time() + LOOK_EVERY_S)):
                await self._heard.wait()
            if self._heard.is_set() or await self._runner.read(self._has_more):
                return True
            if trio.current_time() >= deadline:
                return False

    def _has_more(self, db: sqlite3.Connection) -> bool:
        due = "SELECT EXISTS (SELECT 1 FROM moonxd_outbox WHERE position > ? AND published_at IS NULL)"
        return bool(db.execute(due, (self._seen,)).fetchone()[0])


def _backlog(db: sqlite3.Connection) -> tuple[int, str | None]:
    where = "FROM moonxd_outbox WHERE published_at IS NULL"
    (count,) = db.execute(f"SELECT count(*) {where}").fetchone()
    oldest = db.execute(f"SELECT created_at {where} ORDER BY position LIMIT 1").fetchone()
    return count, oldest[0] if oldest else None
