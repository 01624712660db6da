"""The ledger on PostgreSQL: one function call, one round trip and one transaction per step of a job's life."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import trio

from ...domain.errors import Transient
from ...domain.guard import Window
from ...domain.ledger import (
    ABANDONED,
    FOREIGN_GRACE_S,
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
    lease_lost,
    storable,
    storable_json,
)
from ...ports import ANY_LETTER
from . import wire
from .breakers import PostgresBreakers
from .connection import assert_supported
from .errors import COLLISIONS, bordered
from .migrate import assert_current
from .pool import Pool, open_pool
from .publication import PostgresPublication
from .records import PostgresRecords
from .schedule import PostgresSchedule

_log = logging.getLogger("moonxd.postgres")
#: Seconds a statement may take. Then it is cancelled on the server, which takes up to another GRACE_S.
CALL_S = 10.0
#: How often a transaction that the server undid in favour of another one is sent again.
COLLISION_RETRIES = 5
#: Rows closed per transaction of a sweep.
SWEEP_PAGE = 200

#: The breaker's view is written after the counters that it shows, in the same statement.
_ADMIT = "SELECT moonxd_admit(%s)::text, moonxd_told_value(%s, %s), moonxd_snapshot_owed(%s, %s)"
_COMMIT = "SELECT moonxd_show_breaker(%s::jsonb, standing) FROM moonxd_commit(%s::jsonb) AS standing"
_COMMIT_AND_NOTE = (
    "SELECT moonxd_note_commit(%s, %s, %s::numeric, %s, moonxd_show_breaker(%s::jsonb, standing)) "
    "FROM moonxd_commit(%s::jsonb) AS standing"
)
_CLOSE = "SELECT moonxd_show_breaker(%s::jsonb, standing) FROM moonxd_close(%s::jsonb) AS standing"
#: The sequence remembers when the rows are gone; while there are any it may be ahead of a giver who did not commit yet.
_NEWEST = """SELECT coalesce(max(position), CASE WHEN EXISTS (SELECT FROM moonxd_outbox) THEN 0
    ELSE (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM moonxd_outbox_position) END)
    FROM moonxd_outbox"""

Rows = list[tuple[Any, ...]]


class PostgresLedger:
    """Ledger, LedgerUpkeep, History, DeadLetters and Outbox on PostgreSQL.

    What changes something is bounded, not cancellable, once it has a connection: whoever is cancelled knows that
    nothing was written, and whoever gets no answer in time is told that the outcome is unknown (Transient).
    """

    def __init__(self, pool: Pool, direct_dsn: str = "") -> None:
        """`direct_dsn` leads to the server itself, where `pool` may go through a pooler."""
        self._pool = pool
        self._direct_dsn = direct_dsn
        self.schedule = PostgresSchedule(self._ask, self._change)

    async def ping(self) -> None:
        """Raises Transient when the database does not answer."""
        await self._ask("asking PostgreSQL for a sign of life", "SELECT 1")

    async def admit(self, ask: Admission) -> Decision:
        doing = f"admitting operation {ask.operation}"
        wallet = (ask.user_id, ask.wallet)
        rows = await self._change(doing, _ADMIT, [storable_json(ask), *wallet, *wallet])
        return wire.decision(*rows[0])

    async def commit(self, change: Commit) -> None:
        doing = f"committing operation {change.lease.operation}"
        document = storable_json(change)
        statement, values = _COMMIT, [document, document]  # type: tuple[str, list[str | bool | None]]
        told, owed = change.told_value_usd, change.snapshot_owed
        if told is not None or owed is not None:
            wallet = (storable(change.lease.user_id), change.lease.wallet)
            values = [*wallet, None if told is None else str(told), owed, document, document]
            statement = _COMMIT_AND_NOTE
        rows = await self._change(doing, statement, values)
        _assert_not_lost(rows, change.lease)

    async def close(self, ending: Ending) -> None:
        doing = f"closing operation {ending.lease.operation}"
        document = storable_json(ending)
        rows = await self._change(doing, _CLOSE, [document, document])
        _assert_not_lost(rows, ending.lease)

    async def renew(self, leases: Sequence[Lease], lease_s: float) -> tuple[UUID, ...]:
        if not leases:
            return ()
        rows = await self._change(
            "renewing leases", "SELECT moonxd_renew(%s, %s)", [storable_json(list(leases)), lease_s]
        )
        kept = {row[0] for row in rows}
        return tuple(lease.operation for lease in leases if lease.operation not in kept)

    async def sweep(self, grace_s: float, told: Callable[[Orphan], Event] | None = None) -> int:
        closed: int = 0
        while True:
            rows = await self._ask(
                "looking for abandoned operations",
                "SELECT * FROM moonxd_orphans(%s, %s, %s)",
                [float(grace_s), FOREIGN_GRACE_S, SWEEP_PAGE],
            )
            if not rows:
                return closed
            orphans = [wire.orphan(row) for row in rows]
            done = await self._change(
                "closing abandoned operations",
                "SELECT moonxd_close_orphans(%s::jsonb, %s, %s)",
                [storable_json([wire.closing(one, told) for one in orphans]), float(grace_s), ABANDONED],
            )
            closed += int(done[0][0])
            if len(rows) < SWEEP_PAGE or not done[0][0]:
                return closed

    async def portfolio(self, wallet: str, user_id: str | None = None) -> tuple[Portfolio, ...]:
        rows = await self._ask(
            "reading a portfolio", "SELECT moonxd_portfolio(%s::text, %s::text)::text", [wallet, user_id]
        )
        return wire.portfolios(rows[0][0], wallet)

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
        wanted = {
            "user_id =": user_id,
            "wallet_address =": wallet,
            "status =": status,
            "type =": sync_type,
            "created_at >=": since,
        }
        given = {test: value for test, value in wanted.items() if value is not None}
        where = " AND ".join(f"{test} %s" for test in given) or "true"
        rows = await self._ask(
            "reading operations",
            f"SELECT {wire.OPERATION_COLUMNS} FROM sync_operations WHERE {where} ORDER BY created_at DESC, id LIMIT %s",
            [*given.values(), limit],
        )
        return tuple(map(wire.operation, rows))

    async def bury(self, letter: DeadLetter) -> None:
        columns = wire.LETTER_COLUMNS.split(", ")
        values = ", ".join(["%s"] * len(columns))
        updates = ", ".join(f"{column} = excluded.{column}" for column in columns[2:])
        await self._change(
            f"keeping dead letter {letter.job_id}",
            f"INSERT INTO moonxd_dead_letters ({wire.LETTER_COLUMNS}) VALUES ({values}) "
            f"ON CONFLICT (queue, job_id) DO UPDATE SET {updates}",
            wire.letter_row(letter),
        )

    async def letter(self, queue: str, job_id: str) -> DeadLetter | None:
        rows = await self._ask(
            f"reading dead letter {job_id}",
            f"SELECT {wire.LETTER_COLUMNS} FROM moonxd_dead_letters WHERE queue = %s AND job_id = %s",
            [queue, job_id],
        )
        return wire.letter(rows[0]) if rows else None

    async def letters(
        self, queue: str, *, limit: int = 50, wanted: LetterFilter = ANY_LETTER, after: Page | None = None
    ) -> tuple[DeadLetter, ...]:
        where, values = wire.letters_where(queue, wanted)
        if after is not None:
            where += " AND (failed_at < %s OR (failed_at = %s AND job_id > %s))"
            values += [after.failed_at, after.failed_at, after.job_id]
        rows = await self._ask(
            "reading dead letters",
            f"SELECT {wire.LETTER_COLUMNS} FROM moonxd_dead_letters WHERE {where} "
            "ORDER BY failed_at DESC, job_id LIMIT %s",
            [*values, limit],
        )
        return tuple(map(wire.letter, rows))

    async def count_letters(self, queue: str, wanted: LetterFilter) -> int:
        where, values = wire.letters_where(queue, wanted)
        rows = await self._ask(
            "counting dead letters", f"SELECT count(*) FROM moonxd_dead_letters WHERE {where}", values
        )
        return int(rows[0][0])

    async def exhume(self, queue: str, job_ids: Sequence[str]) -> int:
        rows = await self._change(
            "forgetting dead letters",
            "DELETE FROM moonxd_dead_letters WHERE queue = %s AND job_id = ANY(%s) RETURNING job_id",
            [queue, list(job_ids)],
        )
        return len(rows)

    async def read(self, after: int, limit: int) -> tuple[StoredEvent, ...]:
        rows = await self._change(
            "reading events", f"SELECT {wire.EVENT_COLUMNS} FROM moonxd_events(%s, %s)", [after, limit]
        )
        return tuple(map(wire.stored_event, rows))

    async def newest(self) -> int:
        rows = await self._ask("looking for the newest event", _NEWEST)
        return int(rows[0][0])

    async def backlog(self) -> int:
        rows = await self._ask("counting events", "SELECT count(*) FROM moonxd_outbox WHERE published_at IS NULL")
        return int(rows[0][0])

    def publication(self) -> PostgresPublication:
        """The right to publish this ledger's events."""
        return PostgresPublication(self._direct_dsn, self._ask)

    def records(self) -> PostgresRecords:
        """Everything in it, for whoever compares it with the other stores."""
        return PostgresRecords(self._ask, self)

    def breakers(self) -> PostgresBreakers:
        """Where the states of breakers are kept, in the same database."""
        return PostgresBreakers(self._ask, self._change)

    async def history(
        self,
        wallet: str,
        *,
        user_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 50,
    ) -> tuple[PastPortfolio, ...]:
        rows = await self._ask(
            "reading a wallet's history",
            "SELECT moonxd_history(%s::text, %s::text, %s::timestamptz, %s::timestamptz, %s)::text",
            [wallet, user_id, since, until, limit],
        )
        return wire.history(rows[0][0], wallet)

    async def window_frees_at(self, user_id: str, window: Window) -> datetime | None:
        rows = await self._ask(
            "looking at a user's window",
            "SELECT moonxd_window_frees_at(moonxd_owner(%s), %s::jsonb, clock_timestamp())",
            [user_id, storable_json(window)],
        )
        free: datetime | None = rows[0][0]
        return free

    async def prune(self, keep: Retention, limit: int) -> Pruned:
        rows = await self._change(
            "removing old rows", "SELECT moonxd_prune(%s::jsonb, %s)::text", [storable_json(keep), limit]
        )
        return wire.pruned(rows[0][0])

    async def tell(self, events: Sequence[Event]) -> None:
        await self._change("keeping events", "SELECT moonxd_emit(%s::jsonb)", [storable_json(list(events))])

    async def withdraw(self, jobs: Sequence[Withdrawal]) -> int:
        rows = await self._change(
            "noting withdrawn jobs", "SELECT moonxd_withdraw(%s::jsonb)", [storable_json(list(jobs))]
        )
        return int(rows[0][0])

    # ---- one statement, one transaction --------------------------------------------------------------------------

    async def _ask(self, doing: str, statement: str, values: Sequence[Any] = ()) -> Rows:
        """The rows of a statement that changes nothing."""
        with bordered(doing):
            async with self._pool.connection() as connection:
                with trio.move_on_after(CALL_S):
                    cursor = await connection.execute(statement.encode(), values)
                    return await cursor.fetchall()
        raise Transient(f"PostgreSQL did not answer within {CALL_S:g} s while {doing}")

    async def _change(self, doing: str, statement: str, values: Sequence[Any]) -> Rows:
        """The rows of a statement that changes something: cancellable until it is sent, then only bounded."""
        for attempt in range(COLLISION_RETRIES):
            try:
                return await self._send(doing, statement, values)
            except _Collision:
                _log.info("a transaction collided and is sent again", extra={"doing": doing, "attempt": attempt + 1})
                await trio.sleep(random.uniform(0, 0.01 * 2**attempt))
        raise Transient(f"PostgreSQL kept undoing our transaction in favour of others while {doing}")

    async def _send(self, doing: str, statement: str, values: Sequence[Any]) -> Rows:
        with bordered(doing):
            async with self._pool.connection() as connection:
                await trio.lowlevel.checkpoint_if_cancelled()
                with trio.CancelScope(shield=True, deadline=trio.current_time() + CALL_S):
                    try:
                        cursor = await connection.execute(statement.encode(), values)
                        return await cursor.fetchall() if cursor.description else []
                    except COLLISIONS as error:
                        raise _Collision from error
        raise Transient(
            f"PostgreSQL did not answer within {CALL_S:g} s while {doing}: the outcome is unknown, "
            "the next attempt will find out"
        )


class _Collision(Exception):
    """The server undid our transaction (serialization failure or deadlock): nothing was written."""


def _assert_not_lost(rows: Rows, lease: Lease) -> None:
    if rows[0][0] == "lost":
        raise lease_lost(lease)


@asynccontextmanager
async def open_postgres_ledger(
    dsn: str,
    *,
    min_size: int = 5,
    max_size: int = 20,
    idle_s: float = 30.0,
    connect_timeout_s: float = 10.0,
    wait_s: float = 10.0,
    direct_dsn: str | None = None,
) -> AsyncIterator[PostgresLedger]:
    """The ledger in the database at `dsn`, which `migrate` has prepared. `direct_dsn`: past a connection pooler.

    Raises ConfigError when the schema is missing, old or newer than ours or the server refuses us, Transient when it
    cannot be reached.
    """
    assert_supported()
    async with open_pool(
        dsn, min_size=min_size, max_size=max_size, idle_s=idle_s, connect_timeout_s=connect_timeout_s, wait_s=wait_s
    ) as pool:
        with bordered("opening the ledger"):
            async with pool.connection() as connection:
                await assert_current(connection)
        yield PostgresLedger(pool, direct_dsn or dsn)
