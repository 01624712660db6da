"""Builds the events of syncs, users and alerts. What they look like is domain/events/; statistics: stats_event.py.

An event's id derives from its operation, so that one which is written twice is one. What may happen to an operation
more than once (it starts again, fails again after a requeue) is told apart by the fence or the time of its admission.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET

from .events import (
    BY_STRUCT,
    PORTFOLIO_UPDATES,
    STATS_EVENTS,
    SYNC_EVENTS,
    SYSTEM_ALERTS,
    USER_ACTIVITIES,
    others,
    portfolio,
    sync,
)
from .events.envelope import EVENT_VERSION, JSON, SOURCE, SYSTEM, Data, Envelope, Metadata, encode
from .job import Job
from .ledger import Event, storable
from .operation import event_id, operation_id
from .payload import WalletSync
from .portfolio_diff import Difference
from .schedule import trigger_of
from .token import Holding

__all__ = [
    "EVENT_VERSION", "JSON", "PORTFOLIO_UPDATES", "SOURCE", "STATS_EVENTS", "SYNC_EVENTS", "SYSTEM", "SYSTEM_ALERTS",
    "USER_ACTIVITIES", "Subject", "activity", "alert", "build", "cancelled", "completed", "failed", "handed_back",
    "portfolio_updated", "queued", "rejected", "retrying", "started", "viewed",
]  # fmt: skip

Severity = Literal["info", "warning", "critical"]
#: Looks at one portfolio within this many milliseconds are one event: dashboards ask every few seconds.
VIEW_MS = 60_000
#: How POST /jobs marks what was asked for through it.
MANUAL = "manual"


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What an event is about: one operation on one user's wallet, told at `at_ms` by `version`."""

    operation: UUID
    user_id: str
    wallet: str
    version: str
    at_ms: int


def build(about: Subject, data: Data, discriminator: str = "", *, cause: UUID | None = None) -> Event:
    """The event that says `data`. Equal operation, type and discriminator make one event; `cause` is another's id."""
    kind = BY_STRUCT[type(data)]
    identity = event_id(about.operation, kind.name, discriminator)
    metadata = Metadata(
        event_id=identity,
        event_type=kind.name,
        event_version=EVENT_VERSION,
        correlation_id=about.operation,
        causation_id=UNSET if cause is None else cause,
        timestamp=about.at_ms,
        source=SOURCE,
        source_version=about.version,
        user_id=about.user_id,
        data_classification="internal",
    )
    body = encode(
        Envelope(metadata=metadata, user_id=about.user_id, wallet_address=about.wallet, type=kind.name, data=data)
    )
    return Event(id=identity, type=kind.name, topic=kind.topic, key=about.user_id, wallet=about.wallet, body=body)


# ---- syncs -------------------------------------------------------------------------------------------------------


def queued(job: Job, task: WalletSync, version: str) -> Event:
    """The same from whoever tells it: at the adding, or at the first admission."""
    about = Subject(
        operation=operation_id(job.queue, job.id, job.timestamp),
        user_id=task.user_id,
        wallet=task.wallet,
        version=version,
        at_ms=job.timestamp,
    )
    data = sync.SyncQueued(
        queue=job.queue,
        job_id=job.id,
        sync_type=task.sync_type,
        priority=task.priority,
        chains=task.chain_ids,
        force_refresh=task.force_refresh,
        trigger=trigger_of(task.extra),
        delay=job.options.delay,
        queued_at=job.timestamp,
    )
    return build(about, data)


def started(
    about: Subject,
    task: WalletSync,
    *,
    job: Job,
    attempts: int,
    chains: Sequence[int],
    worker_id: str,
    cause: UUID | None = None,
) -> Event:
    """Each admission is a start of its own: the fence that tells them apart is not known before it. `cause`: the id of
    its sync.queued."""
    data = sync.SyncStarted(
        sync_type=task.sync_type,
        chains=tuple(chains),
        priority=task.priority,
        attempt=job.attempts_made + 1,
        max_attempts=attempts,
        worker_id=worker_id,
        worker_version=about.version,
        started_at=about.at_ms,
    )
    return build(about, data, f"{job.attempts_made + 1}.{job.attempts_started}.{about.at_ms}", cause=cause)


def completed(about: Subject, *, result: dict[str, Any], total_value_usd: Decimal, tokens_total: int) -> Event:
    data = sync.SyncCompleted(
        processing_time=result["processingTime"],
        tokens_sync=result["tokensSync"],
        chains_sync=result["chainsSync"],
        total_value_usd=total_value_usd,
        success=result["success"],
        tokens_total=tokens_total,
        completed_at=about.at_ms,
    )
    return build(about, data)


def retrying(about: Subject, *, fence: int, attempt: int, error: str, duration_ms: int, delay_ms: int) -> Event:
    data = sync.SyncRetrying(
        error=storable(error),
        processing_time=duration_ms,
        retry_count=attempt,
        retry_at=about.at_ms + delay_ms,
        handed_back=False,
    )
    return build(about, data, str(fence))


def handed_back(about: Subject, *, fence: int, attempt: int, duration_ms: int) -> Event:
    """A worker that stops gave the job back: nothing went wrong, and the attempt does not count."""
    data = sync.SyncRetrying(
        error=None, processing_time=duration_ms, retry_count=attempt - 1, retry_at=about.at_ms, handed_back=True
    )
    return build(about, data, str(fence))


def failed(
    about: Subject, *, fence: int, attempt: int, error: str, duration_ms: int | None, abandoned: bool = False
) -> Event:
    data = sync.SyncFailed(
        error=storable(error) or "",
        processing_time=duration_ms,
        retry_count=attempt - 1,
        failed_at=about.at_ms,
        abandoned=abandoned,
    )
    return build(about, data, str(fence))


def cancelled(
    about: Subject, *, reason: str, worker_id: str, duration_ms: int | None = None, fence: int | None = None
) -> Event:
    """`fence` None: it was not running."""
    data = sync.SyncCancelled(reason=reason, processing_time=duration_ms, worker_id=worker_id, cancelled_at=about.at_ms)
    return build(about, data, str(about.at_ms) if fence is None else str(fence))


def rejected(about: Subject, *, reason: str, worker_id: str) -> Event:
    return build(
        about, sync.SyncRejected(reason=reason, worker_id=worker_id, rejected_at=about.at_ms), str(about.at_ms)
    )


# ---- portfolios, users, alerts -----------------------------------------------------------------------------------


def portfolio_updated(
    about: Subject,
    *,
    holdings: Sequence[Holding],
    total_value_usd: Decimal,
    difference: Difference,
    previous_total_usd: Decimal | None,
    duration_ms: int,
    cause: UUID | None = None,
) -> Event:
    """The wallet's portfolio as it stands now; spam is left out, as from the totals. `cause`: its sync.completed."""
    shown = [row for row in holdings if not row.is_spam]
    data = portfolio.PortfolioUpdated(
        total_value_usd=total_value_usd,
        total_tokens=len(shown),
        total_chains=len({row.chain_id for row in shown}),
        tokens=tuple(_token(row) for row in shown),
        changes=portfolio.Changes(
            added=tuple(_change(None, row) for row in difference.added),
            removed=tuple(_change(row, None) for row in difference.removed),
            changed=tuple(_change(before, after) for before, after in difference.changed),
            previous_total_value_usd=previous_total_usd,
        ),
        sync_duration=duration_ms,
        updated_at=about.at_ms,
    )
    return build(about, data, cause=cause)


def _token(row: Holding) -> portfolio.Token:
    return portfolio.Token(
        chain_id=row.chain_id, address=row.address, symbol=row.symbol, balance=_balance(row), value_usd=row.value_usd
    )


def _change(before: Holding | None, after: Holding | None) -> portfolio.TokenChange:
    row = after or before
    assert row is not None
    return portfolio.TokenChange(
        chain_id=row.chain_id,
        address=row.address,
        symbol=row.symbol,
        balance=_balance(after),
        previous_balance=_balance(before),
        value_usd=None if after is None else after.value_usd,
        previous_value_usd=None if before is None else before.value_usd,
    )


def _balance(row: Holding | None) -> str | None:
    return None if row is None or row.amount is None else format(row.amount, "f")


def activity(about: Subject, job: Job, task: WalletSync) -> Event:
    """The user asked for this sync. One per operation, however often it is admitted."""
    kind: others.Activity = "manual_sync" if trigger_of(task.extra) == MANUAL else "sync_triggered"
    return build(about, others.UserActivity(activity_type=kind, job_id=job.id, at=about.at_ms))


def viewed(user_id: str, wallet: str, *, version: str, at_ms: int) -> Event:
    """The user looked at the wallet's portfolio. Looks within one minute are one event."""
    moment = at_ms - at_ms % VIEW_MS
    about = Subject(
        operation=operation_id("user.activity", f"{user_id}\0{wallet}", moment),
        user_id=user_id,
        wallet=wallet,
        version=version,
        at_ms=at_ms,
    )
    return build(about, others.UserActivity(activity_type="portfolio_viewed", job_id=None, at=at_ms))


def alert(
    kind: str,
    message: str,
    *,
    severity: str,
    service: str,
    worker: str,
    version: str,
    at_ms: int,
    metadata: dict[str, Any],
) -> Event:
    """`severity`: info | warning | critical. Told twice by one worker in one millisecond it is one alert."""
    about = system_subject("system.alert", f"{worker}\0{kind}", version=version, at_ms=at_ms)
    level: Severity = "critical" if severity == "critical" else "info" if severity == "info" else "warning"
    data = others.SystemAlert(
        alert_type=kind, message=message, severity=level, service=service, metadata={**metadata, "worker": worker}
    )
    return build(about, data)


def system_subject(what: str, name: str, *, version: str, at_ms: int) -> Subject:
    """For what is about no user and no wallet: `what` and `name` at that time are one event."""
    return Subject(operation=operation_id(what, name, at_ms), user_id=SYSTEM, wallet="", version=version, at_ms=at_ms)
