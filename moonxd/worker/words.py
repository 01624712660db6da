"""What is said of an attempt: in the log, in the job's return value, in the failed set."""

from __future__ import annotations

import traceback
from typing import Any

from ..domain.errors import Permanent, Transient
from ..domain.job import Failed, Job
from ..domain.ledger import DeadLetter
from ..domain.payload import WalletSync, user_in
from ..domain.token import ChainFailure

STACK_LINES = 30


def dead_letter(job: Job, outcome: Failed, task: WalletSync | None, now_ms: int) -> DeadLetter:
    """The ledger's copy of a job that failed for good."""
    return DeadLetter(
        queue=job.queue,
        job_id=job.id,
        name=job.name,
        timestamp=job.timestamp,
        data=job.data,
        options=job.options.raw,
        reason=outcome.reason,
        stack=outcome.stack,
        attempts_made=job.attempts_made + 1,
        failed_at=now_ms,
        user_id=task.user_id if task else user_in(job.data),
        wallet=task.wallet if task else None,
    )


def who(job: Job, task: WalletSync) -> dict[str, Any]:
    return {"job_id": job.id, "user": task.user_id, "wallet": task.wallet, "attempt": job.attempts_made + 1}


def failed_chain(failure: ChainFailure) -> dict[str, Any]:
    return {"chainId": failure.chain_id, "error": failure.reason}


def stack(error: Exception) -> tuple[str, ...]:
    """The traceback for the failed set: only for surprises, our own errors explain themselves."""
    if isinstance(error, (Transient, Permanent)):
        return ()
    lines = "".join(traceback.format_exception(error)).splitlines()
    return ("\n".join(lines[-STACK_LINES:]),)
