"""The user's rate limit and breaker, read from the ledger's rows inside the admission's own transaction."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

from ...domain.guard import BREAKER_VIEW, COUNTED, Trip, Window, breaker_closes_at, breaker_view, window_frees_at
from ...domain.ledger import Admission, BreakerOpen, Lease, RateLimited, audit_metadata, storable_json
from .rows import mapping_of, time_of, time_text


def guard(db: sqlite3.Connection, ask: Admission, was_counted: bool, now: float) -> BreakerOpen | RateLimited | None:
    """Why this admission has to wait; None: it need not."""
    at = datetime.fromtimestamp(now, UTC)
    if ask.breaker is not None:
        until = _breaker(db, ask, ask.breaker, at)
        if until is not None:
            return BreakerOpen(until)
    if ask.window is not None and ask.counted and not was_counted:
        free = free_at(db, ask.user_id, ask.window, now)
        if free is not None:
            return RateLimited(free)
    return None


def free_at(db: sqlite3.Connection, user_id: str, window: Window, now: float) -> datetime | None:
    rows = db.execute(
        "SELECT created_at FROM sync_operations WHERE user_id = ? AND created_at > ? "
        f"AND json_extract(metadata, '$.{COUNTED}') ORDER BY created_at DESC LIMIT ?",
        (user_id, time_text(now - window.window_s), window.most),
    )
    return window_frees_at((datetime.fromisoformat(at) for (at,) in rows), window, datetime.fromtimestamp(now, UTC))


def _breaker(db: sqlite3.Connection, ask: Admission, trip: Trip, at: datetime) -> datetime | None:
    failures, failed_at = db.execute(
        "SELECT coalesce(sum(consecutive_failures), 0), max(last_error_at) FROM user_sync_status WHERE user_id = ?",
        (ask.user_id,),
    ).fetchone()
    if failures < trip.threshold:
        return None
    latest = db.execute(
        "SELECT status FROM sync_operations WHERE user_id = ? AND status IN ('completed', 'failed') "
        "ORDER BY created_at DESC, status LIMIT ?",
        (ask.user_id, trip.threshold),
    ).fetchall()
    probe = db.execute(
        "SELECT 1 FROM moonxd_wallets WHERE user_id = ? AND lease_operation <> ? AND lease_expires_at > ? LIMIT 1",
        (ask.user_id, str(ask.operation), at.isoformat(timespec="microseconds")),
    ).fetchone()
    return breaker_closes_at(
        trip,
        failures=failures,
        latest=[status for (status,) in latest],
        failed_at=time_of(failed_at),
        probing=probe is not None,
        now=at,
    )


def refuse(db: sqlite3.Connection, ask: Admission, at: str) -> None:
    """The audit row of a sync that the limit rejects. It counts against nobody."""
    call_off(db, ask, at, ask.rejection_reason, rejected=True)


def call_off(db: sqlite3.Connection, ask: Admission, at: str, reason: str, **said: bool) -> None:
    """The audit row of a sync that is not let in any more: opened as cancelled if there is none."""
    metadata = {**audit_metadata(ask, 0), COUNTED: False, **said}
    db.execute(
        "INSERT INTO sync_operations (id, user_id, wallet_address, type, status, priority, completed_at, max_retries, "
        "worker_id, worker_version, metadata, created_at, updated_at, error_message) "
        "VALUES (?1, ?2, ?3, ?4, 'cancelled', ?5, ?6, ?7, ?8, ?9, ?10, ?6, ?6, ?11) ON CONFLICT (id) DO UPDATE SET "
        "status = 'cancelled', completed_at = ?6, duration_ms = NULL, error_message = ?11, updated_at = ?6",
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
            storable_json(metadata),
            reason,
        ),
    )


def show_breaker(db: sqlite3.Connection, lease: Lease, trip: Trip) -> None:
    """Keep the view of the breaker that readers find in the wallet's status row."""
    row = db.execute(
        "SELECT consecutive_failures, last_error_at, sync_metadata FROM user_sync_status "
        "WHERE user_id = ? AND wallet_address = ?",
        (lease.user_id, lease.wallet),
    ).fetchone()
    if row is None:
        return
    said = mapping_of(row[2])
    if row[0] == 0 and BREAKER_VIEW not in said:
        return
    said[BREAKER_VIEW] = breaker_view(trip, row[0], time_of(row[1]))
    db.execute(
        "UPDATE user_sync_status SET sync_metadata = ? WHERE user_id = ? AND wallet_address = ?",
        (storable_json(said), lease.user_id, lease.wallet),
    )
