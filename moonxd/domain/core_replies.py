"""What the core service is answered, as its clients read it: camelCase, times as JavaScript has them, money as numbers.

Money is a number here because these clients calculate with it; what it was rounded from stays in the ledger.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from .core_service import CANCEL, SYNC, Letter, StatusAsk, SyncAsk, freshness, instant
from .ledger import Operation, Portfolio


class Reply(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of every reply."""


class JobPlace(Reply, frozen=True, kw_only=True):
    bullmq_job_id: str
    queued_at: str


class Queued(Reply, frozen=True, kw_only=True):
    job_id: str
    metadata: JobPlace
    status: str = "queued"


class Failed(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """To a sync request, and to requests of the other types that cannot be answered in their own form."""

    status: str
    error: str
    completed_at: str
    job_id: str | None = None
    request_id: str | None = None


class Status(Reply, frozen=True, kw_only=True):
    user_id: str
    wallet_address: str
    last_sync_at: str | None
    #: current | recent | stale | never
    sync_status: str
    is_running: bool
    active_sync_operations: int
    total_tokens: int
    total_value_usd: float
    #: Minutes.
    sync_frequency: int
    next_scheduled_sync: str | None


class OperationRow(Reply, frozen=True, kw_only=True):
    id: str
    user_id: str
    wallet_address: str
    type: str
    status: str
    priority: str
    started_at: str | None
    completed_at: str | None
    #: Milliseconds.
    duration: int | None
    tokens_sync: int
    chains_sync: int
    total_value_usd: float | None
    error: str | None
    worker_id: str | None
    worker_version: str | None
    metadata: dict[str, Any]


class CancelResult(Reply, frozen=True, kw_only=True, omit_defaults=True):
    found: bool
    cancelled: bool
    #: pending | running | completed | failed | cancelled
    previous_status: str | None = None
    error: str | None = None


def queued(ask: SyncAsk, job_id: str, now: float) -> bytes:
    place = JobPlace(bullmq_job_id=job_id, queued_at=instant(now))
    return msgspec.json.encode(Queued(job_id=ask.job_id or job_id, metadata=place))


def refusal(letter: Letter, error: str, now: float) -> bytes:
    """`found: false` of a cancel that failed says nothing about the job, so its error stands beside it."""
    if letter.type == CANCEL:
        return msgspec.json.encode(CancelResult(found=False, cancelled=False, error=error))
    given = letter.data.get("jobId") if letter.type == SYNC else None
    reply = Failed(
        status="failed",
        error=error,
        completed_at=instant(now),
        job_id=given if isinstance(given, str) else None,
        request_id=letter.request_id,
    )
    return msgspec.json.encode(reply)


def status(
    ask: StatusAsk,
    portfolio: Portfolio | None,
    *,
    running: int,
    pending: int,
    interval_s: float,
    next_at: float | None,
    now: float,
) -> bytes:
    last = portfolio.last_sync_at if portfolio else None
    reply = Status(
        user_id=ask.user_id,
        wallet_address=ask.wallet,
        last_sync_at=instant(last) if last else None,
        sync_status=freshness(last, now),
        is_running=running > 0,
        active_sync_operations=running + pending,
        total_tokens=len(portfolio.holdings) if portfolio else 0,
        total_value_usd=_number(portfolio.total_value_usd) if portfolio else 0.0,
        sync_frequency=max(1, round(interval_s / 60)),
        next_scheduled_sync=instant(next_at) if next_at is not None else None,
    )
    return msgspec.json.encode(reply)


def operations(rows: tuple[Operation, ...]) -> bytes:
    return msgspec.json.encode([_row(row) for row in rows])


def _row(row: Operation) -> OperationRow:
    return OperationRow(
        id=str(row.id),
        user_id=row.user_id,
        wallet_address=row.wallet,
        type=row.type,
        status=row.status,
        priority=row.priority,
        started_at=instant(row.started_at) if row.started_at else None,
        completed_at=instant(row.completed_at) if row.completed_at else None,
        duration=row.duration_ms,
        tokens_sync=row.tokens_synced,
        chains_sync=row.chains_synced,
        total_value_usd=None if row.total_value_usd is None else _number(row.total_value_usd),
        error=row.error,
        worker_id=row.worker_id,
        worker_version=row.worker_version,
        metadata=row.metadata,
    )


def cancelled(found: bool, is_cancelled: bool, before: str | None) -> bytes:
    return msgspec.json.encode(CancelResult(found=found, cancelled=is_cancelled, previous_status=before))


def _number(value: Decimal) -> float:
    return float(value)
