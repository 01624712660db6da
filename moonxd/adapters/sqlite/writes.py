"""What changes the ledger, as plain functions on a connection inside a transaction. `now` is unix seconds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from ...domain.guard import COUNTED
from ...domain.ledger import (
    ABANDONED,
    AFTER_ENDING,
    FOREIGN_GRACE_S,
    Admission,
    Admitted,
    AlreadyCommitted,
    Busy,
    Commit,
    DeadLetter,
    Decision,
    Ending,
    Event,
    Lease,
    Orphan,
    RateLimited,
    Withdrawal,
    audit_metadata,
    lease_lost,
    storable,
    storable_json,
)
from ...domain.token import Holding
from .guards import call_off, guard, refuse, show_breaker
from .reads import holdings, tokens_seen
from .rows import (
    HOLDING_COLUMNS,
    LETTER_COLUMNS,
    decimal_of,
    decimal_text,
    holding_row,
    letter_row,
    mapping_of,
    time_of,
    time_text,
)


def admit(db: sqlite3.Connection, ask: Admission, now: float) -> Decision:
    """One attempt's way in: refused while another operation's lease lives, else a higher fence than ever before."""
    operation, at = str(ask.operation), time_text(now)
    audit = db.execute("SELECT status, metadata FROM sync_operations WHERE id = ?", (operation,)).fetchone()
    if audit and audit[0] == "completed":
        return AlreadyCommitted(mapping_of(audit[1]).get("result") or {})
    wallet = db.execute(
        "SELECT fence, lease_operation, lease_expires_at, snapshot_at, told_value_usd, snapshot_owed "
        "FROM moonxd_wallets WHERE user_id = ? AND wallet_address = ?",
        (ask.user_id, ask.wallet),
    ).fetchone()
    if wallet and wallet[1] not in (None, operation) and wallet[2] > at:
        return Busy(UUID(wallet[1]), datetime.fromisoformat(wallet[2]))
    said = mapping_of(audit[1]) if audit else {}
    was_counted = bool(said.get(COUNTED))
    refusal = guard(db, ask, was_counted, now)
    if refusal is not None:
        if isinstance(refusal, RateLimited) and ask.window is not None and ask.window.reject:
            refuse(db, ask, at)
            _emit(db, ask.rejection, at)
        return refusal
    fence = wallet[0] + 1 if wallet else 1
    db.execute(
        "INSERT INTO moonxd_wallets (user_id, wallet_address, fence, lease_operation, lease_expires_at) "
        "VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET fence = excluded.fence, "
        "lease_operation = excluded.lease_operation, lease_expires_at = excluded.lease_expires_at",
        (ask.user_id, ask.wallet, fence, operation, time_text(now + ask.lease_s)),
    )
    _open_audit(db, ask, fence, said, at)
    _emit(db, ask.events, at)
    previous = holdings(db, ask.user_id, ask.wallet)
    return Admitted(
        fence=fence,
        previous=previous,
        seen=tokens_seen(db, ask.wallet, previous),
        snapshot_at=time_of(wallet[3]) if wallet else None,
        told_value_usd=decimal_of(wallet[4]) if wallet else None,
        snapshot_owed=bool(wallet and wallet[5]),
    )


def _open_audit(db: sqlite3.Connection, ask: Admission, fence: int, before: dict[str, Any], at: str) -> None:
    # A row that had ended is a job that was requeued: its attempts start anew, and so does their count. One that the
    # limit had rejected counts from now on.
    was_rejected = before.pop("rejected", False)
    db.execute(
        "INSERT INTO sync_operations (id, user_id, wallet_address, type, status, priority, started_at, max_retries, "
        "worker_id, worker_version, metadata, created_at, updated_at, retry_count) "
        "VALUES (?1, ?2, ?3, ?4, 'running', ?5, ?6, ?7, ?8, ?9, ?10, ?6, ?6, ?11) ON CONFLICT (id) DO UPDATE SET "
        "retry_count = CASE WHEN status IN ('failed', 'cancelled') THEN ?11 ELSE retry_count END, "
        "status = 'running', priority = excluded.priority, started_at = excluded.started_at, completed_at = NULL, "
        "duration_ms = NULL, max_retries = excluded.max_retries, worker_id = excluded.worker_id, "
        "worker_version = excluded.worker_version, metadata = excluded.metadata, updated_at = excluded.updated_at, "
        "created_at = CASE WHEN ?12 THEN excluded.created_at ELSE created_at END",
        (
            str(ask.operation),
            ask.user_id,
            ask.wallet,
            ask.sync_type,
            ask.priority,
            at,
            ask.max_attempts - 1,
            ask.worker_id,
            ask.worker_version,
            storable_json({**before, **audit_metadata(ask, fence)}),
            ask.attempt - 1,
            was_rejected,
        ),
    )


def commit(db: sqlite3.Connection, change: Commit, now: float) -> None:
    """The whole commit. Repeating one that is on the disk already changes nothing."""
    lease, at = change.lease, time_text(now)
    if not _holds(db, lease):
        if _ended_by(db, lease, "completed"):
            return
        raise lease_lost(lease)
    _write_holdings(db, change, at)
    db.executemany(
        "INSERT INTO moonxd_wallet_tokens VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [(lease.wallet, *token, at) for token in (*(h.token for h in change.changed), *change.removed)],
    )
    if change.snapshot is not None:
        _write_history(db, change, change.snapshot, at)
    metadata = _metadata(db, lease.operation)
    _count(db, lease, metadata.get("counted"), "completed", None, change.duration_ms, at)
    db.execute(
        "UPDATE user_sync_status SET last_sync_at = ?3, last_sync_operation_id = ?4, sync_type = ?5, "
        "tokens_count = ?6, chains_count = ?7, total_value_usd = ?8 WHERE user_id = ?1 AND wallet_address = ?2",
        (lease.user_id, lease.wallet, at, str(lease.operation), change.sync_type, change.tokens_count,
         change.chains_synced, decimal_text(change.total_value_usd)),
    )  # fmt: skip
    metadata |= {**change.metadata, "result": change.result, "counted": "completed"}
    db.execute(
        "UPDATE sync_operations SET status = 'completed', completed_at = ?2, duration_ms = ?3, tokens_synced = ?4, "
        "chains_synced = ?5, total_value_usd = ?6, error_message = NULL, metadata = ?7, updated_at = ?2 WHERE id = ?1",
        (str(lease.operation), at, change.duration_ms, change.tokens_count, change.chains_synced,
         decimal_text(change.total_value_usd), storable_json(metadata)),
    )  # fmt: skip
    if change.breaker is not None:
        show_breaker(db, lease, change.breaker)
    _emit(db, change.events, at)
    if change.told_value_usd is not None or change.snapshot_owed is not None:
        db.execute(
            "UPDATE moonxd_wallets SET told_value_usd = coalesce(?, told_value_usd), "
            "snapshot_owed = coalesce(?, snapshot_owed) WHERE user_id = ? AND wallet_address = ?",
            (decimal_text(change.told_value_usd), change.snapshot_owed, lease.user_id, lease.wallet),
        )
    _free(db, lease)


def _write_holdings(db: sqlite3.Connection, change: Commit, at: str) -> None:
    lease = change.lease
    owner = (lease.user_id, lease.wallet)
    db.executemany(
        "DELETE FROM user_token_holdings "
        "WHERE user_id = ? AND wallet_address = ? AND chain_id = ? AND token_address = ?",
        [(*owner, *token) for token in change.removed],
    )
    for chain in change.chains:
        db.execute(
            "UPDATE user_token_holdings SET last_updated = ? WHERE user_id = ? AND wallet_address = ? AND chain_id = ?",
            (at, *owner, chain),
        )
    db.executemany(
        f"INSERT INTO user_token_holdings (user_id, wallet_address, {HOLDING_COLUMNS}, last_updated, created_at, "
        f"updated_at) VALUES ({_marks(18)}) ON CONFLICT DO UPDATE SET token_symbol = excluded.token_symbol, "
        "token_name = excluded.token_name, token_decimals = excluded.token_decimals, balance = excluded.balance, "
        "balance_formatted = excluded.balance_formatted, price_usd = excluded.price_usd, "
        "value_usd = excluded.value_usd, logo_url = excluded.logo_url, is_spam = excluded.is_spam, "
        "is_verified = excluded.is_verified, alchemy_data = excluded.alchemy_data, "
        "last_updated = excluded.last_updated, updated_at = excluded.updated_at",
        [(*owner, *holding_row(holding), at, at, at) for holding in change.changed],
    )


def _write_history(db: sqlite3.Connection, change: Commit, snapshot: Iterable[Holding], at: str) -> None:
    lease = change.lease
    db.executemany(
        f"INSERT INTO user_token_holdings_history (user_id, wallet_address, {HOLDING_COLUMNS}, last_updated, "
        f"created_at, updated_at, snapshot_type, sync_operation_id) VALUES ({_marks(20)})",
        [
            (lease.user_id, lease.wallet, *holding_row(holding), at, at, at, change.snapshot_type, str(lease.operation))
            for holding in snapshot
        ],
    )
    db.execute(
        "UPDATE moonxd_wallets SET snapshot_at = ? WHERE user_id = ? AND wallet_address = ?",
        (at, lease.user_id, lease.wallet),
    )


def close(db: sqlite3.Connection, ending: Ending, now: float) -> None:
    """An attempt that ended without a commit. Repeating one that is on the disk already changes nothing."""
    lease, at = ending.lease, time_text(now)
    status = AFTER_ENDING[ending.status]
    if not _holds(db, lease):
        if _ended_by(db, lease, status):
            return
        raise lease_lost(lease)
    _end_audit(db, lease, ending.status, storable(ending.error), ending.duration_ms, at)
    if ending.breaker is not None:
        show_breaker(db, lease, ending.breaker)
    _emit(db, ending.events, at)
    _free(db, lease)


def _end_audit(
    db: sqlite3.Connection, lease: Lease, ending: str, error: str | None, duration_ms: int | None, at: str
) -> None:
    status = AFTER_ENDING[ending]
    metadata = _metadata(db, lease.operation)
    if ending != "released":
        _count(db, lease, metadata.get("counted"), ending, error, None, at)
    if ending == "failed":
        metadata["counted"] = "failed"
    db.execute(
        "UPDATE sync_operations SET status = ?2, retry_count = retry_count + ?3, duration_ms = ?4, "
        "completed_at = CASE WHEN ?2 = 'pending' THEN NULL ELSE ?5 END, "
        "error_message = coalesce(?6, error_message), metadata = ?7, updated_at = ?5 WHERE id = ?1",
        (str(lease.operation), status, ending == "retrying", duration_ms, at, error, storable_json(metadata)),
    )


def _count(
    db: sqlite3.Connection,
    lease: Lease,
    counted: str | None,
    ending: str,
    error: str | None,
    duration_ms: int | None,
    at: str,
) -> None:
    """Keep the wallet's counters: every operation counts once, by its latest outcome (`counted` is the one before)."""
    db.execute(
        "INSERT INTO user_sync_status (user_id, wallet_address, created_at, updated_at) VALUES (?, ?, ?3, ?3) "
        "ON CONFLICT DO NOTHING",
        (lease.user_id, lease.wallet, at),
    )
    is_done, is_failed = ending == "completed", ending == "failed"
    # Before the expressions below: the right-hand sides of an UPDATE see the row as it was.
    db.execute(
        "UPDATE user_sync_status SET "
        "total_syncs = total_syncs + ?3, successful_syncs = successful_syncs + ?4, failed_syncs = failed_syncs + ?5, "
        "avg_sync_duration_ms = CASE WHEN ?6 IS NULL THEN avg_sync_duration_ms ELSE CAST(round("
        "(coalesce(avg_sync_duration_ms, 0) * successful_syncs + ?6) / (successful_syncs + 1.0)) AS INTEGER) END, "
        "sync_duration_ms = coalesce(?6, sync_duration_ms), "
        "consecutive_failures = CASE WHEN ?7 = 'completed' THEN 0 ELSE consecutive_failures + (?7 = 'failed') END, "
        "last_error_message = CASE WHEN ?7 = 'completed' THEN NULL ELSE coalesce(?8, last_error_message) END, "
        "last_error_at = CASE WHEN ?8 IS NULL THEN last_error_at ELSE ?9 END, "
        "sync_status = CASE WHEN ?7 = 'retrying' THEN sync_status ELSE ?7 END, updated_at = ?9 "
        "WHERE user_id = ?1 AND wallet_address = ?2",
        (
            lease.user_id,
            lease.wallet,
            (is_done or is_failed) and counted is None,
            is_done,
            is_failed - (counted == "failed") if is_done or is_failed else 0,
            duration_ms,
            ending,
            error,
            at,
        ),
    )


def renew(db: sqlite3.Connection, leases: Sequence[Lease], lease_s: float, now: float) -> tuple[UUID, ...]:
    until = time_text(now + lease_s)
    lost_ones = []
    for lease in leases:
        changed = db.execute(
            "UPDATE moonxd_wallets SET lease_expires_at = ? "
            "WHERE user_id = ? AND wallet_address = ? AND fence = ? AND lease_operation = ?",
            (until, lease.user_id, lease.wallet, lease.fence, str(lease.operation)),
        )
        if changed.rowcount == 0:
            lost_ones.append(lease.operation)
    return tuple(lost_ones)


def sweep(db: sqlite3.Connection, grace_s: float, told: Callable[[Orphan], Event] | None, now: float) -> int:
    """Close running rows that no live lease stands behind; the janitor's part in a crash."""
    at, ended, foreign = time_text(now), time_text(now - grace_s), time_text(now - grace_s - FOREIGN_GRACE_S)
    orphans = db.execute(
        "SELECT o.id, o.user_id, o.wallet_address, coalesce(json_extract(o.metadata, '$.fence'), 0), "
        "json_extract(o.metadata, '$.attempt') "
        "FROM sync_operations o "
        "LEFT JOIN moonxd_wallets w ON w.user_id = o.user_id AND w.wallet_address = o.wallet_address "
        "AND w.lease_operation = o.id "
        "WHERE o.status = 'running' AND coalesce(w.lease_expires_at, o.updated_at) <= ?1 "
        "AND (json_extract(o.metadata, '$.fence') IS NOT NULL OR o.updated_at <= ?2)",
        (ended, foreign),
    ).fetchall()
    for operation, user_id, wallet, fence, attempt in orphans:
        lease = Lease(operation=UUID(operation), user_id=user_id, wallet=wallet, fence=fence)
        _end_audit(db, lease, "failed", ABANDONED, None, at)
        if told is not None:
            orphan = Orphan(operation=lease.operation, user_id=user_id, wallet=wallet, fence=fence, attempt=attempt)
            _emit(db, (told(orphan),), at)
        _free(db, lease)
    return len(orphans)


def withdraw(db: sqlite3.Connection, job: Withdrawal, now: float) -> bool:
    """Close the operation of a job that will not run, unless it has ended."""
    ask, at = job.ask, time_text(now)
    row = db.execute("SELECT status FROM sync_operations WHERE id = ?", (str(ask.operation),)).fetchone()
    if row is not None and row[0] in ("completed", "failed", "cancelled"):
        return False
    call_off(db, ask, at, storable(job.reason) or "")
    _emit(db, ask.events, at)
    _free(db, Lease(operation=ask.operation, user_id=ask.user_id, wallet=ask.wallet, fence=0))
    return True


def bury(db: sqlite3.Connection, letter: DeadLetter) -> None:
    row = letter_row(letter)
    db.execute(f"INSERT OR REPLACE INTO moonxd_dead_letters ({LETTER_COLUMNS}) VALUES ({_marks(12)})", row)


def exhume(db: sqlite3.Connection, queue: str, job_ids: Sequence[str]) -> int:
    one = "DELETE FROM moonxd_dead_letters WHERE queue = ? AND job_id = ?"
    return sum(db.execute(one, (queue, job_id)).rowcount for job_id in job_ids)


def tell(db: sqlite3.Connection, events: Sequence[Event], now: float) -> None:
    _emit(db, events, time_text(now))


def _marks(count: int) -> str:
    return ", ".join("?" * count)


def _holds(db: sqlite3.Connection, lease: Lease) -> bool:
    row = db.execute(
        "SELECT fence, lease_operation FROM moonxd_wallets WHERE user_id = ? AND wallet_address = ?",
        (lease.user_id, lease.wallet),
    ).fetchone()
    return row is not None and row == (lease.fence, str(lease.operation))


def _ended_by(db: sqlite3.Connection, lease: Lease, status: str) -> bool:
    """Whether the audit row stands at `status` and this very attempt was the last one on it."""
    row = db.execute(
        "SELECT status, json_extract(metadata, '$.fence') FROM sync_operations WHERE id = ?", (str(lease.operation),)
    ).fetchone()
    return row is not None and row == (status, lease.fence)


def _free(db: sqlite3.Connection, lease: Lease) -> None:
    db.execute(
        "UPDATE moonxd_wallets SET lease_operation = NULL, lease_expires_at = NULL "
        "WHERE user_id = ? AND wallet_address = ? AND lease_operation = ?",
        (lease.user_id, lease.wallet, str(lease.operation)),
    )


def _metadata(db: sqlite3.Connection, operation: UUID) -> dict[str, Any]:
    row = db.execute("SELECT metadata FROM sync_operations WHERE id = ?", (str(operation),)).fetchone()
    return mapping_of(row[0]) if row else {}


def _emit(db: sqlite3.Connection, events: Sequence[Event], at: str) -> None:
    # An event id that stands already is a redelivery's repetition of the same event. It is looked for before: a
    # conflict would use up a position, and positions have no gaps.
    db.executemany(
        "INSERT INTO moonxd_outbox (event_id, event_type, topic, event_key, wallet_address, body, created_at) "
        "SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE NOT EXISTS (SELECT 1 FROM moonxd_outbox WHERE event_id = ?1)",
        [(str(e.id), e.type, e.topic, e.key, e.wallet, e.body.decode(), at) for e in events],
    )
