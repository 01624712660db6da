"""One SQLite connection and the one thread that owns it, reached from Trio.

A thread of our own instead of Trio's pool: the writes that queue up while a commit waits for the disk share the next
commit, so the cost of `synchronous = FULL` is paid once per group. Each write has its own savepoint, so one that
fails takes nobody along.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

import trio

from ...domain.errors import MoonxdError, Permanent, Transient

R = TypeVar("R")
#: Longest a caller waits for its answer, in seconds. Far above the busy timeout, so that SQLite speaks first.
PATIENCE_S = 30.0
#: Most writes that share one commit: bounds how long the first of them waits for the last.
GROUP = 64


class _Ticket(Generic[R]):
    """One piece of work and its result; `done` is set on Trio's side."""

    __slots__ = ("done", "error", "is_write", "result", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], R], is_write: bool) -> None:
        self.work = work
        self.is_write = is_write
        self.done = trio.Event()
        self.result: R | None = None
        self.error: BaseException | None = None

    def outcome(self) -> R:
        if self.error is not None:
            raise self.error
        return cast(R, self.result)


class DatabaseThread:
    """Runs work on its connection, in the order it was asked, and groups writes into shared commits."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], name: str) -> None:
        self._connect = connect
        self._name = name
        self._queue: queue.SimpleQueue[_Ticket[Any] | None] = queue.SimpleQueue()
        #: Taken from the queue already, to be run next.
        self._held: _Ticket[Any] | None = None
        self._ended = False
        self._closed = trio.Event()
        self._trio: trio.lowlevel.TrioToken | None = None

    async def start(self) -> None:
        """Open the connection; raises what opening raised."""
        self._trio = trio.lowlevel.current_trio_token()
        opened: _Ticket[None] = _Ticket(lambda _: None, is_write=False)
        threading.Thread(target=self._serve, args=(opened,), name=f"sqlite {self._name}", daemon=True).start()
        await self._wait(opened)
        opened.outcome()

    async def stop(self) -> None:
        """Finish what was asked, close the connection. Bounded; to be called in a shielded scope."""
        self._ended = True
        self._queue.put(None)
        with trio.move_on_after(PATIENCE_S):
            await self._closed.wait()

    async def read(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """The result of `work`, which changes nothing. A cancelled caller leaves at once."""
        ticket = _Ticket(work, is_write=False)
        self._put(ticket)
        await self._wait(ticket)
        return ticket.outcome()

    async def write(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """The result of `work` once it is on the disk.

        Not cancellable, only bounded: a caller that hears a cancellation knows that nothing was written. Over the
        bound it raises Transient and the outcome is unknown.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        ticket = _Ticket(work, is_write=True)
        self._put(ticket)
        with trio.CancelScope(shield=True):
            await self._wait(ticket)
        return ticket.outcome()

    def _put(self, ticket: _Ticket[Any]) -> None:
        if self._ended:
            raise Transient(f"the database {self._name} is closed")
        self._queue.put(ticket)

    async def _wait(self, ticket: _Ticket[Any]) -> None:
        with trio.move_on_after(PATIENCE_S):
            await ticket.done.wait()
        if not ticket.done.is_set():
            raise Transient(
                f"the database {self._name} did not answer within {PATIENCE_S:.0f} s and the outcome is unknown: "
                "look at the disk it is on"
            )

    # ---- the thread's side ---------------------------------------------------------------------------------------

    def _serve(self, opened: _Ticket[None]) -> None:
        try:
            connection = self._connect()
        except BaseException as error:
            opened.error = error
            self._ended = True
            self._resolve([opened])
            return
        self._resolve([opened])
        try:
            while batch := self._next_batch():
                self._run(connection, batch)
                self._resolve(batch)
        finally:
            # The last one out folds the WAL into the file.
            connection.close()
            self._tell(self._closed.set)

    def _next_batch(self) -> list[_Ticket[Any]]:
        """What is queued, at least one; empty when the thread is to end.

        Reads and writes are not mixed: a read must neither see nor suffer from a commit that fails.
        """
        first, self._held = self._held or self._queue.get(), None
        if first is None:
            return []
        batch = [first]
        while len(batch) < GROUP and not self._queue.empty():
            ticket = self._queue.get()
            if ticket is None:
                self._queue.put(None)
                break
            if ticket.is_write != first.is_write:
                self._held = ticket
                break
            batch.append(ticket)
        return batch

    def _run(self, connection: sqlite3.Connection, batch: Sequence[_Ticket[Any]]) -> None:
        try:
            connection.execute("BEGIN IMMEDIATE" if batch[0].is_write else "BEGIN")
            for ticket in batch:
                _run_one(connection, ticket)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            # The shared commit failed: nobody's work is on the disk, whatever it returned.
            self._undo(connection)
            for ticket in batch:
                ticket.error = self._ours(error)
        for ticket in batch:
            if isinstance(ticket.error, sqlite3.Error):
                ticket.error = self._ours(ticket.error)

    @staticmethod
    def _undo(connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            # SQLite rolled back by itself (disk full, I/O error): what we wanted.
            return

    def _ours(self, error: sqlite3.Error) -> MoonxdError:
        if isinstance(error, sqlite3.IntegrityError):
            return Permanent(f"the database {self._name} refused a row: {error}")
        hint = {
            "SQLITE_BUSY": "another process keeps it locked",
            "SQLITE_FULL": "free some disk space",
            "SQLITE_CORRUPT": "restore it from a backup or move it away",
            "SQLITE_READONLY": "make the file and its directory writable",
        }.get(getattr(error, "sqlite_errorname", ""), "look at the disk it is on")
        return Transient(f"the database {self._name} failed ({error}): {hint}")

    def _resolve(self, batch: Sequence[_Ticket[Any]]) -> None:
        self._tell(lambda: _set_all(batch))

    def _tell(self, what: Callable[[], object]) -> None:
        assert self._trio is not None
        try:
            self._trio.run_sync_soon(what)
        except trio.RunFinishedError:
            # Nobody is left to hear it; the work itself is done.
            return


def _run_one(connection: sqlite3.Connection, ticket: _Ticket[Any]) -> None:
    if not ticket.is_write:
        try:
            ticket.result = ticket.work(connection)
        except Exception as error:
            ticket.error = error
        return
    connection.execute("SAVEPOINT one")
    try:
        ticket.result = ticket.work(connection)
    except Exception as error:
        ticket.error = error
        if not connection.in_transaction:
            raise
        connection.execute("ROLLBACK TO one")
    connection.execute("RELEASE one")


def _set_all(batch: Sequence[_Ticket[Any]]) -> None:
    for ticket in batch:
        ticket.done.set()
