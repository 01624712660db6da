"""What is told of the operations behind a job before any worker has them, and when they will never run."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from . import event
from .job import Job
from .ledger import Admission, Event, Withdrawal
from .operation import member_id, operation_id
from .payload import WalletSync

#: A job as one of the operations it stands for: for a job about many wallets each of them is one.
Member = tuple[Job, WalletSync]


def members(job: Job, wallets: Iterable[WalletSync], *, is_whole: bool) -> list[Member]:
    """`is_whole`: the job is about one wallet, its operation is its own."""
    if is_whole:
        return [(job, task) for task in wallets]
    return [(msgspec.structs.replace(job, id=member_id(job.id, task.user_id, task.wallet)), task) for task in wallets]


def queued(found: Iterable[Member], version: str) -> list[Event]:
    return [event.queued(job, task, version) for job, task in found]


def withdrawal(
    job: Job, task: WalletSync, *, reason: str, version: str, at_ms: int, worker_id: str, attempts: int = 3
) -> Withdrawal:
    """`worker_id` is who says so; `attempts` holds where the producer said nothing."""
    about = event.Subject(
        operation=operation_id(job.queue, job.id, job.timestamp),
        user_id=task.user_id,
        wallet=task.wallet,
        version=version,
        at_ms=at_ms,
    )
    ask = Admission(
        operation=about.operation,
        user_id=task.user_id,
        wallet=task.wallet,
        sync_type=task.sync_type,
        priority=task.priority,
        queue=job.queue,
        job_id=job.id,
        attempt=job.attempts_made + 1,
        max_attempts=job.options.attempts if job.options.attempts is not None else attempts,
        worker_id=worker_id,
        worker_version=version,
        lease_s=0.0,
        metadata={**task.extra, "chainIds": list(task.chain_ids), "forceRefresh": task.force_refresh},
        events=(event.queued(job, task, version), event.cancelled(about, reason=reason, worker_id=worker_id)),
    )
    return Withdrawal(ask=ask, reason=reason)
