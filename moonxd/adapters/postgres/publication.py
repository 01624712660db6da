"""The right to publish on PostgreSQL: an advisory lock on a session of its own, and what that session reads and marks.

Whatever is done for the relay is a statement in the session that holds the lock, so a relay that lost it can mark
nothing. The session ends within seconds when its owner does: at once when the process dies, by TCP keepalives when its
host does, by the server's own patience when it is frozen. See docs/adr/0053 and 0054.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import trio
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ...domain.errors import ConfigError, LeaseLost, Transient
from ...domain.ledger import Backlog, StoredEvent
from . import wire
from .connection import TrioConnection, connect
from .errors import bordered, translated

Rows = list[tuple[Any, ...]]
Ask = Callable[[str, str, Sequence[Any]], Awaitable[Rows]]

#: Seconds between two looks of a relay that waits for the one at work to go.
TRY_EVERY_S = 0.5
#: Seconds without a word after which the holder asks its session for a sign of life.
PULSE_S = 2.0
#: Seconds a statement of the session may take before the session counts as lost.
STATEMENT_S = 10.0
#: Seconds between two looks while somebody is about to commit events; doubled up to the second number.
_NEARLY_S = (0.01, 0.1)
#: A dead peer is noticed on either side within five seconds, whatever keepalive says.
_TCP = {"keepalives_idle": 2, "keepalives_interval": 1, "keepalives_count": 3, "tcp_user_timeout": 5000}
_SERVER_SIDE = (
    "SET tcp_keepalives_idle = 2; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 3; "
    "SET tcp_user_timeout = 5000"
)
#: The server ends the session of a relay that is silent for so long (frozen, not dead). Since PostgreSQL 14.
_PATIENCE = "; SET idle_session_timeout = '8s'"
_PATIENCE_SINCE = 140000

_HOLDUP = """
SELECT pid, extract(epoch FROM clock_timestamp() - xact_start)::float8, application_name, datname, state
FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND xact_start < clock_timestamp() - make_interval(secs => %s)
    AND (backend_xid IS NOT NULL OR (backend_xmin IS NOT NULL AND datname = current_database()))
ORDER BY xact_start LIMIT 1
"""
_PREPARED = """
SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::float8, database FROM pg_prepared_xacts
WHERE prepared < clock_timestamp() - make_interval(secs => %s) ORDER BY prepared LIMIT 1
"""
_BACKLOG = """
SELECT count(*), (SELECT extract(epoch FROM clock_timestamp() - min(o.created_at))::float8 FROM (
    (SELECT d.created_at FROM moonxd_outbox d WHERE d.published_at IS NULL AND d.position IS NOT NULL
        ORDER BY d.position LIMIT 1)
    UNION ALL (SELECT f.created_at FROM moonxd_outbox f WHERE f.position IS NULL ORDER BY f.id LIMIT 1)) o)
FROM moonxd_outbox WHERE published_at IS NULL
"""


class PostgresPublication:
    """A `ports.Publication`. `dsn` leads to the server itself; `ask` runs a statement on any connection."""

    def __init__(self, dsn: str, ask: Ask, *, connect_timeout_s: float = 10.0) -> None:
        self._dsn = make_conninfo(dsn, application_name="moonxd relay", **_TCP)
        self._ask = ask
        self._connect_timeout_s = connect_timeout_s

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[PostgresDrain]:
        connection = await connect(self._dsn, timeout_s=self._connect_timeout_s)
        failure: BaseException | None = None
        try:
            drain = PostgresDrain(connection)
            await drain.take()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drain.beat)
                nursery.start_soon(drain.listen)
                try:
                    yield drain
                except BaseException as error:
                    # Raised again outside, where the nursery does not wrap it.
                    failure = error
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await connection.close()
        if failure is not None:
            raise failure

    async def backlog(self) -> Backlog:
        ((count, age_s),) = await self._ask("counting unpublished events", _BACKLOG, ())
        return Backlog(count=count, age_s=max(0.0, age_s or 0.0))

    async def holdup(self, longer_s: float) -> str | None:
        rows = await self._ask("looking for long transactions", _HOLDUP, [longer_s])
        if rows:
            pid, age, program, database, state = rows[0]
            return (
                f"a transaction of pid {pid} ({program or 'no name'}, database {database}, {state}) is open for "
                f"{age:.0f} s: while it lasts PostgreSQL cannot clean the outbox up and reading it gets slower. "
                f"End it, or: SELECT pg_terminate_backend({pid})"
            )
        prepared = await self._ask("looking for prepared transactions", _PREPARED, [longer_s])
        if prepared:
            gid, age, database = prepared[0]
            return (
                f"the prepared transaction {gid!r} in database {database} is open for {age:.0f} s: while it lasts "
                "PostgreSQL cannot clean the outbox up. COMMIT PREPARED or ROLLBACK PREPARED it"
            )
        return None


class PostgresDrain:
    """A `ports.Drain` in one session. One statement at a time; what is cancelled may have taken effect."""

    def __init__(self, connection: TrioConnection) -> None:
        self._connection = connection
        self._turn = trio.Lock()
        self._heard_at = trio.current_time()
        self._is_lost = False
        #: Whether the session has the lock "asleep"; None after a statement about it that was cancelled.
        self._is_asleep: bool | None = False
        #: Set by a notification, and by the end of the session.
        self._rung = trio.Event()
        self._nearly_s = _NEARLY_S[0]
        #: The highest position that was handed out.
        self._seen = 0

    # ---- the hold ------------------------------------------------------------------------------------------------

    async def take(self) -> None:
        """Wait for the lock. A blocked `pg_advisory_lock` would keep a snapshot, and VACUUM from its work: we ask."""
        await self._assert_direct()
        patience = _PATIENCE if self._connection.info.server_version >= _PATIENCE_SINCE else ""
        with bordered("preparing the relay's session"):
            await self._connection.execute(sql.SQL(_SERVER_SIDE + patience))
            await self._connection.execute(sql.SQL("LISTEN moonxd_outbox"))
        # Those that come while a statement runs.
        self._connection.add_notify_handler(lambda _: self._rung.set())
        while True:
            if (await self._run("asking for the right to publish", _TAKE))[0][0]:
                return
            await trio.sleep(TRY_EVERY_S)

    async def _assert_direct(self) -> None:
        (row,) = await self._run("looking at the connection", "SELECT pg_backend_pid()")
        if row[0] != self._connection.info.backend_pid:
            raise ConfigError(
                "a connection pooler stands between us and PostgreSQL: the relay's lock and LISTEN need a session of "
                "their own. Set database.direct_url to the server's own address; everything else may use the pooler"
            )

    async def beat(self) -> None:
        """Keep the session in the server's good books, and notice when it is gone. Runs until that."""
        while not self._is_lost:
            await trio.sleep(PULSE_S / 2)
            if trio.current_time() - self._heard_at >= PULSE_S and not self._turn.locked():
                try:
                    await self._run("keeping the right to publish", "SELECT 1")
                except (LeaseLost, Transient):
                    # Whoever uses the drain is told by its own call.
                    continue

    async def listen(self) -> None:
        """Hear notifications and the end of the session while no statement runs. Runs until the latter."""
        # A descriptor of its own: two tasks may not wait for the same one.
        ear = os.dup(self._connection.pgconn.socket)
        try:
            while not self._is_lost:
                await trio.lowlevel.wait_readable(ear)
                async with self._turn:
                    self._take_in()
        finally:
            trio.lowlevel.notify_closing(ear)
            os.close(ear)

    def _take_in(self) -> None:
        if self._connection.closed:
            self._is_lost = True
        else:
            try:
                self._connection.pgconn.consume_input()
            except psycopg.Error:
                self._is_lost = True
        if self._is_lost or self._connection.pgconn.notifies() is not None:
            self._rung.set()

    async def confirm(self) -> None:
        # The monotonic clock also counts the time in which this process was frozen.
        if self._is_lost or trio.current_time() - self._heard_at >= 2 * PULSE_S:
            await self._run("confirming the right to publish", "SELECT 1")

    # ---- events --------------------------------------------------------------------------------------------------

    async def unpublished(self, after: int, limit: int) -> tuple[StoredEvent, ...]:
        statement = f"SELECT {wire.EVENT_COLUMNS} FROM moonxd_due(%s, %s, %s)"
        woken = self._is_asleep is not False
        self._is_asleep = None if woken else False
        rows = await self._run("reading unpublished events", statement, [after, limit, woken])
        self._is_asleep = False
        self._seen = rows[-1][0] if rows else after
        if rows:
            self._nearly_s = _NEARLY_S[0]
        return tuple(map(wire.stored_event, rows))

    async def mark(self, positions: Sequence[int]) -> None:
        await self._run(
            "marking published events",
            "UPDATE moonxd_outbox SET published_at = clock_timestamp() "
            "WHERE position = ANY(%s) AND published_at IS NULL",
            [list(positions)],
        )

    async def park(self, position: int, reason: str) -> None:
        await self._run(
            "parking an event",
            "UPDATE moonxd_outbox SET published_at = clock_timestamp(), parked = %s "
            "WHERE position = %s AND published_at IS NULL",
            [reason, position],
        )

    async def wait(self, timeout: float) -> bool:
        if not await self._fall_asleep():
            # Somebody wrote events and has not committed yet.
            pause, self._nearly_s = self._nearly_s, min(_NEARLY_S[1], 2 * self._nearly_s)
            await trio.sleep(min(pause, timeout))
            return True
        # From here on whoever writes events notifies us; what was written before is visible now.
        if (await self._run("looking for events", _ANY, [self._seen]))[0][0]:
            return True
        with trio.move_on_after(timeout):
            await self._rung.wait()
        return self._rung.is_set()

    async def _fall_asleep(self) -> bool:
        if self._is_asleep is None:
            await self._run("waking up", _WAKE)
            self._is_asleep = False
        if not self._is_asleep:
            self._rung, self._is_asleep = trio.Event(), None
            self._is_asleep = bool((await self._run("falling asleep", _SLEEP))[0][0])
        return self._is_asleep

    async def _run(self, doing: str, statement: str, values: Sequence[Any] = ()) -> Rows:
        async with self._turn:
            if self._is_lost or self._connection.closed:
                raise self._lost(doing, "the session is closed")
            with trio.move_on_after(STATEMENT_S):
                try:
                    cursor = await self._connection.execute(statement.encode(), values)
                    rows = await cursor.fetchall() if cursor.description else []
                except psycopg.Error as error:
                    if self._connection.closed:
                        raise self._lost(doing, str(error)) from error
                    raise translated(error, doing) from error
                self._heard_at = trio.current_time()
                return rows
            await self._connection.close()
            raise self._lost(doing, f"no answer within {STATEMENT_S:g} s")

    def _lost(self, doing: str, why: str) -> LeaseLost:
        self._is_lost = True
        reason = (why.strip() or "no reason given").splitlines()[0]
        return LeaseLost(f"the right to publish was lost while {doing} ({reason}): it is sought again")


_TAKE = "SELECT pg_try_advisory_lock(moonxd_lock_key('relay'))"
_SLEEP = "SELECT pg_try_advisory_lock(moonxd_lock_key('outbox.asleep'))"
_WAKE = "SELECT pg_advisory_unlock(moonxd_lock_key('outbox.asleep'))"
_ANY = (
    "SELECT EXISTS (SELECT FROM moonxd_outbox WHERE position IS NULL) "
    "OR EXISTS (SELECT FROM moonxd_outbox WHERE position > %s AND published_at IS NULL)"
)
