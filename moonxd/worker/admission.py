"""Before an attempt runs: what the ledger is asked, and what becomes of a job that is not let in."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from ..domain import event
from ..domain.guard import REJECTED, Asked, Guards, counts_for_user, stands_in
from ..domain.job import Completed, Failed, Job, Outcome, Postpone
from ..domain.ledger import Admission, AlreadyCommitted, BreakerOpen, Busy, RateLimited
from ..domain.payload import WalletSync
from ..domain.schedule import is_activity
from ..ports import Ledger

log = logging.getLogger("moonxd.admission")

#: Seconds until a job is looked at again when its wallet is busy.
BUSY_S = 1.0
Refusal = Busy | AlreadyCommitted | RateLimited | BreakerOpen


def admission(
    job: Job,
    task: WalletSync,
    about: event.Subject,
    *,
    chains: Collection[int],
    attempts: int,
    worker_id: str,
    lease_s: float,
    guards: Guards,
) -> Admission:
    """What the ledger is asked for this attempt. `attempts` holds where the producer said nothing."""
    number = job.attempts_made + 1
    window = guards.window
    reason = _too_many(task, window.most, window.window_s) if window is not None else ""
    most = job.options.attempts if job.options.attempts is not None else attempts
    queued = event.queued(job, task, about.version)
    started = event.started(
        about, task, job=job, attempts=most, chains=tuple(chains), worker_id=worker_id, cause=queued.id
    )
    is_rejecting = window is not None and window.reject
    is_asked = is_activity(task.extra)
    return Admission(
        operation=about.operation,
        user_id=task.user_id,
        wallet=task.wallet,
        sync_type=task.sync_type,
        priority=task.priority,
        queue=job.queue,
        job_id=job.id,
        attempt=number,
        max_attempts=most,
        worker_id=worker_id,
        worker_version=about.version,
        lease_s=lease_s,
        # The producer's own words first: they must not overwrite ours.
        metadata={**task.extra, "jobId": job.id, "chainIds": list(chains), "forceRefresh": task.force_refresh},
        # In this order: whoever replays them learns of a job before its start. Told again, the first two are nothing.
        events=(queued, event.activity(about, job, task), started) if is_asked else (queued, started),
        counted=counts_for_user(task.extra, is_child=job.parent_key is not None),
        window=window,
        breaker=None if task.force_refresh else guards.breaker,
        rejection=(queued, event.rejected(about, reason=reason, worker_id=worker_id)) if is_rejecting else (),
        rejection_reason=reason,
    )


def outcome_of(refusal: Refusal, ask: Admission, now: float) -> Outcome:
    """What becomes of a job that was not admitted. None of it counts as an attempt; `now` is unix seconds."""
    match refusal:
        case AlreadyCommitted():
            return Completed(event.JSON.encode(refusal.result))
        case Busy():
            return Postpone(int((now + BUSY_S) * 1000))
        case RateLimited() if ask.window is not None and ask.window.reject:
            return Failed(REJECTED + ask.rejection_reason)
    # Rounded up: woken a moment too early it would only be told the same again.
    return Postpone(int(refusal.retry_at.timestamp() * 1000) + 1)


def _too_many(task: WalletSync, most: int, window_s: float) -> str:
    return f"user {task.user_id} has had {most} syncs within {window_s:g} s, the limit: try again later"


def waited(job: Job) -> bool:
    """Whether the job was turned away before: it was taken more often than its failures explain."""
    return job.attempts_started > job.attempts_made + 1


async def answered_by_another(
    ledger: Ledger, job: Job, task: WalletSync, operation: UUID, chains: Collection[int]
) -> tuple[Completed, str] | None:
    """The outcome of a job that had to wait and whose wallet meanwhile got all it asks for, and why its own operation
    will never run; None: it has to."""
    asked = Asked(
        sync_type=task.sync_type,
        chains=frozenset(chains),
        force_refresh=task.force_refresh,
        at=job.timestamp + job.options.delay,
    )
    rows = await ledger.operations(user_id=task.user_id, wallet=task.wallet, status="completed", limit=1)
    for row in rows:
        if row.id != operation and stands_in(row.type, row.completed_at, row.metadata, asked):
            log.info("merged into another sync of the wallet", extra={"job_id": job.id, "operation": str(row.id)})
            outcome = Completed(event.JSON.encode(_merged(row.metadata["result"], row.id, job)))
            return outcome, f"merged into operation {row.id}, which gave all that this one asks for"
    return None


def _merged(result: dict[str, Any], into: UUID, job: Job) -> dict[str, Any]:
    return {**result, "jobId": job.id, "merged": True, "mergedInto": str(into)}


def told(refusal: Refusal, job: Job, task: WalletSync) -> str | None:
    """The guard that turned the job away, for the counters; said in the log as well."""
    who = {"job_id": job.id, "user": task.user_id, "wallet": task.wallet}
    match refusal:
        case RateLimited():
            log.info("over the user's rate limit until %s", _clock(refusal.retry_at), extra=who)
            return "rate-limit"
        case BreakerOpen():
            log.info("the user's breaker is open until %s", _clock(refusal.retry_at), extra=who)
            return "breaker"
    return None


def _clock(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")
