"""History, dead letters by filter, and what is removed because it is old."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from ...domain.ledger import DeadLetter, LetterFilter, Page, PastPortfolio, Pruned, Retention, storable_json
from ...domain.money import total
from ...domain.token import Holding
from .rows import HOLDING_COLUMNS, LETTER_COLUMNS, holding_of, letter_of, time_text

_SNAPSHOT = "user_id, created_at, snapshot_type, sync_operation_id"
#: Ended, old, and not what a wallet's status row points to.
_OLD_OPERATIONS = (
    "SELECT o.id FROM sync_operations o WHERE o.created_at < ? AND o.updated_at < ? "
    "AND o.status IN ('completed', 'failed', 'cancelled') AND NOT EXISTS (SELECT 1 FROM user_sync_status s "
    "WHERE s.user_id = o.user_id AND s.wallet_address = o.wallet_address AND s.last_sync_operation_id = o.id) "
    "ORDER BY o.created_at LIMIT ?"
)


def history(
    db: sqlite3.Connection,
    wallet: str,
    user_id: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
) -> tuple[PastPortfolio, ...]:
    wanted: list[tuple[str, Any]] = [("wallet_address = ?", wallet)]
    if user_id is not None:
        wanted.append(("user_id = ?", user_id))
    if since is not None:
        wanted.append(("created_at >= ?", time_text(since.timestamp())))
    if until is not None:
        wanted.append(("created_at < ?", time_text(until.timestamp())))
    where = " AND ".join(clause for clause, _ in wanted)
    # A snapshot's rows share one time, and a wallet of a user has one snapshot at a time.
    rows = db.execute(
        f"WITH taken AS (SELECT DISTINCT user_id, created_at FROM user_token_holdings_history WHERE {where} "
        f"ORDER BY created_at DESC, user_id LIMIT ?) SELECT {_SNAPSHOT}, {HOLDING_COLUMNS} "
        "FROM user_token_holdings_history JOIN taken USING (user_id, created_at) WHERE wallet_address = ? "
        "ORDER BY created_at DESC, user_id, chain_id, token_address",
        (*(value for _, value in wanted), limit, wallet),
    )
    grouped = groupby(rows, key=lambda row: (row[0], row[1]))
    return tuple(_past(wallet, list(members)) for _, members in grouped)


def _past(wallet: str, rows: Sequence[Sequence[Any]]) -> PastPortfolio:
    user_id, taken_at, kind, operation = rows[0][:4]
    holdings: tuple[Holding, ...] = tuple(holding_of(row[4:]) for row in rows)
    return PastPortfolio(
        user_id=user_id,
        wallet=wallet,
        taken_at=datetime.fromisoformat(taken_at),
        type=kind,
        operation=UUID(operation) if operation else None,
        holdings=holdings,
        total_value_usd=total([row.value_usd for row in holdings if row.value_usd is not None and not row.is_spam]),
    )


def letters(
    db: sqlite3.Connection, queue: str, wanted: LetterFilter, after: Page | None, limit: int
) -> tuple[DeadLetter, ...]:
    where, values = _where(queue, wanted)
    if after is not None:
        where += " AND (failed_at < ? OR (failed_at = ? AND job_id > ?))"
        values += [after.failed_at, after.failed_at, after.job_id]
    rows = db.execute(
        f"SELECT {LETTER_COLUMNS} FROM moonxd_dead_letters WHERE {where} ORDER BY failed_at DESC, job_id LIMIT ?",
        (*values, limit),
    )
    return tuple(map(letter_of, rows))


def count_letters(db: sqlite3.Connection, queue: str, wanted: LetterFilter) -> int:
    where, values = _where(queue, wanted)
    (count,) = db.execute(f"SELECT count(*) FROM moonxd_dead_letters WHERE {where}", values).fetchone()
    return int(count)


def _where(queue: str, wanted: LetterFilter) -> tuple[str, list[Any]]:
    clauses: list[tuple[str, Any]] = [
        ("queue = ?", queue),
        ("job_id IN (SELECT value FROM json_each(?))", None if wanted.ids is None else storable_json(wanted.ids)),
        ("instr(lower(reason), lower(?)) > 0", wanted.reason),
        ("name = ?", wanted.name),
        ("user_id = ?", wanted.user),
        ("failed_at < ?", wanted.before),
        ("failed_at >= ?", wanted.since),
    ]
    given = [(clause, value) for clause, value in clauses if value is not None]
    return " AND ".join(clause for clause, _ in given), [value for _, value in given]


def prune(db: sqlite3.Connection, keep: Retention, limit: int, now: float) -> Pruned:
    history_gone = operations_gone = 0
    if keep.history_s is not None:
        history_gone = db.execute(
            "DELETE FROM user_token_holdings_history WHERE rowid IN (SELECT rowid FROM user_token_holdings_history "
            "WHERE created_at < ? ORDER BY created_at LIMIT ?)",
            (time_text(now - keep.history_s), limit),
        ).rowcount
    if keep.operations_s is not None:
        before = time_text(now - keep.operations_s)
        operations_gone = db.execute(
            f"DELETE FROM sync_operations WHERE id IN ({_OLD_OPERATIONS})", (before, before, limit)
        ).rowcount
    return Pruned(history=history_gone, operations=operations_gone, outbox=_prune_outbox(db, keep, limit, now))


def _prune_outbox(db: sqlite3.Connection, keep: Retention, limit: int, now: float) -> int:
    which = "true" if keep.unpublished else "published_at IS NOT NULL"
    old: list[str] = []
    values: list[Any] = []
    if keep.outbox_s is not None:
        old.append("created_at < ?")
        values.append(time_text(now - keep.outbox_s))
    if keep.outbox_rows is not None:
        old.append("position <= (SELECT max(position) FROM moonxd_outbox) - ?")
        values.append(keep.outbox_rows)
    if not old:
        return 0
    return db.execute(
        "DELETE FROM moonxd_outbox WHERE position IN (SELECT position FROM moonxd_outbox "
        f"WHERE {which} AND ({' OR '.join(old)}) ORDER BY position LIMIT ?)",
        (*values, limit),
    ).rowcount
