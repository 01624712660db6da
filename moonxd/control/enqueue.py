"""What POST /jobs may ask for: one function per job type and the table of them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ..api.messages import EnqueueRequest
from ..domain.errors import Permanent
from ..domain.job import PRIORITIES, JobOptions, NewJob
from ..domain.payload import parse_wallet_sync
from .errors import Refused, invalid


def wallet_sync(ask: EnqueueRequest, now_ms: int) -> NewJob:
    """The payload is what existing producers write, checked by the very parser that the worker will use."""
    payload = {
        "userId": ask.user_id,
        "walletAddress": ask.wallet_address,
        "priority": ask.priority,
        "syncType": ask.sync_type,
        "forceRefresh": ask.force_refresh,
        "chainIds": list(ask.chain_ids),
        "triggeredAt": now_ms,
        "metadata": ask.metadata,
    }
    sync = parse_wallet_sync(msgspec.json.encode(payload))
    payload |= {"walletAddress": sync.wallet, "chainIds": list(sync.chain_ids)}
    options = JobOptions(priority=PRIORITIES[ask.priority], delay=ask.delay)
    return NewJob(name=ask.type, data=payload, options=options, id=ask.job_id, timestamp=now_ms)


JOB_TYPES: dict[str, Callable[[EnqueueRequest, int], NewJob]] = {
    "portfolio-sync": wallet_sync,
    # What the producers that exist already call the same thing.
    "sync-job": wallet_sync,
}


def new_job(ask: EnqueueRequest, now_ms: int) -> NewJob:
    """Raises Refused with what is wrong and what is allowed."""
    build = JOB_TYPES.get(ask.type)
    if build is None:
        known = ", ".join(JOB_TYPES)
        raise Refused(400, "unknown-job-type", f"there is no job type {ask.type[:80]!r}", f"use one of: {known}")
    if ask.job_id is not None:
        check_job_id(ask.job_id)
    try:
        return build(ask, now_ms)
    except Permanent as error:
        raise invalid(str(error)) from error


def check_job_id(job_id: str) -> None:
    """BullMQ's own rules: numbers are the queue's, and ':' separates the parts of its keys."""
    if job_id.lstrip("-").isdecimal():
        raise invalid(f"jobId {job_id!r} is a number: those are given by the queue itself", "put a word before it")
    if job_id.startswith("0:"):
        raise invalid(f"jobId {job_id!r} starts with '0:', which marks the queue's own entries", "start it otherwise")
    if ":" in job_id and len(job_id.split(":")) != 3:
        raise invalid(f"jobId {job_id!r} contains ':', which the queue's keys use", "use '-' instead")
