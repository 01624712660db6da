"""What POST /jobs may ask for: one function per job type and the table of them.

Every payload is checked by the very parser that the worker will use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ..api.messages import EnqueueRequest
from ..domain.batch import parse_chain_batch, parse_token_batch, parse_wallet_batch
from ..domain.errors import Permanent
from ..domain.job import PRIORITIES, JobOptions, NewJob
from ..domain.payload import parse_wallet_sync
from ..jobs import JOBS, Terms
from .errors import Refused, invalid

_ONE_WALLET = ("user_id", "wallet_address")
#: Fields that mean something to every type.
_COMMON = ("type", "priority", "delay", "metadata", "job_id")
_SYNC = ("chain_ids", "force_refresh", "sync_type")


def wallet_sync(ask: EnqueueRequest, now_ms: int) -> dict[str, Any]:
    """What existing producers write."""
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
    return payload | {"walletAddress": sync.wallet, "chainIds": list(sync.chain_ids)}


def bulk_sync(ask: EnqueueRequest, now_ms: int) -> dict[str, Any]:
    payload = _many(ask, now_ms)
    batch = parse_wallet_batch(msgspec.json.encode(payload))
    if batch.unusable:
        raise Permanent(f"wallets[{batch.unusable[0].place}]: {batch.unusable[0].reason}")
    return payload | {"chainIds": list(batch.wallets[0].chain_ids)}


def chain_sync(ask: EnqueueRequest, now_ms: int) -> dict[str, Any]:
    payload = _many(ask, now_ms)
    batch = parse_chain_batch(msgspec.json.encode(payload))
    if batch.unusable:
        raise Permanent(f"wallets[{batch.unusable[0].place}]: {batch.unusable[0].reason}")
    (chain,) = batch.wallets[0].chain_ids
    return payload | {"chainIds": [chain], "chainId": chain}


def token_metadata(ask: EnqueueRequest, now_ms: int) -> dict[str, Any]:
    payload = {"tokens": list(ask.tokens), "chainIds": list(ask.chain_ids), "metadata": ask.metadata}
    batch = parse_token_batch(msgspec.json.encode(payload))
    return {
        "chainId": batch.tokens[0].chain_id,
        "tokens": [token.address for token in batch.tokens],
        "triggeredAt": now_ms,
        "metadata": ask.metadata,
    }


def _many(ask: EnqueueRequest, now_ms: int) -> dict[str, Any]:
    listed = [{"userId": one.user_id or ask.user_id, "walletAddress": one.wallet_address} for one in ask.wallets]
    if ask.wallet_address is not None:
        listed.insert(0, {"userId": ask.user_id, "walletAddress": ask.wallet_address})
    return {
        "wallets": listed,
        "priority": ask.priority,
        "syncType": ask.sync_type,
        "forceRefresh": ask.force_refresh,
        "chainIds": list(ask.chain_ids),
        "triggeredAt": now_ms,
        "metadata": ask.metadata,
    }


#: A wallet that somebody waits for goes before work in bulk.
_DEFAULT_PRIORITY, _BULK_PRIORITY = "medium", "low"
_IN_BULK = frozenset({"bulk-sync", "chain-sync", "token-metadata"})

Build = Callable[[EnqueueRequest, int], dict[str, Any]]
#: By job name: what makes the payload, and the fields it looks at besides those that all types share.
JOB_TYPES: dict[str, tuple[Build, tuple[str, ...]]] = {
    "portfolio-sync": (wallet_sync, (*_ONE_WALLET, *_SYNC)),
    # What the producers that exist already call the same thing.
    "sync-job": (wallet_sync, (*_ONE_WALLET, *_SYNC)),
    "bulk-sync": (bulk_sync, (*_ONE_WALLET, "wallets", *_SYNC)),
    "chain-sync": (chain_sync, (*_ONE_WALLET, "wallets", *_SYNC)),
    "token-metadata": (token_metadata, ("tokens", "chain_ids")),
}


def new_job(ask: EnqueueRequest, now_ms: int, terms: Mapping[str, Terms] | None = None) -> NewJob:
    """Raises Refused with what is wrong and what is allowed."""
    known = JOB_TYPES.get(ask.type)
    if known is None:
        names = ", ".join(JOB_TYPES)
        raise Refused(400, "unknown-job-type", f"there is no job type {ask.type[:80]!r}", f"use one of: {names}")
    build, fields = known
    if ask.job_id is not None:
        check_job_id(ask.job_id)
    _check_fields(ask, fields)
    priority = ask.priority or (_BULK_PRIORITY if ask.type in _IN_BULK else _DEFAULT_PRIORITY)
    ask = msgspec.structs.replace(ask, priority=priority)
    try:
        payload = build(ask, now_ms)
    except Permanent as error:
        raise invalid(str(error)) from error
    own = (terms or {}).get(JOBS[ask.type].name, Terms())
    options = JobOptions(priority=PRIORITIES[priority], delay=ask.delay, attempts=own.attempts, backoff=own.backoff)
    return NewJob(name=ask.type, data=payload, options=options, id=ask.job_id, timestamp=now_ms)


def _check_fields(ask: EnqueueRequest, fields: tuple[str, ...]) -> None:
    """A field that the type does not know would be ignored in silence."""
    for name, value in msgspec.structs.asdict(ask).items():
        if name not in (*_COMMON, *fields) and value not in ((), None, False, "portfolio"):
            shown = "".join(part.title() if place else part for place, part in enumerate(name.split("_")))
            raise invalid(f"{shown} means nothing for a {ask.type} job", "leave it out")


def check_job_id(job_id: str) -> None:
    """BullMQ's own rules: numbers are the queue's, and ':' separates the parts of its keys."""
    if job_id.lstrip("-").isdecimal():
        raise invalid(f"jobId {job_id!r} is a number: those are given by the queue itself", "put a word before it")
    if job_id.startswith("0:"):
        raise invalid(f"jobId {job_id!r} starts with '0:', which marks the queue's own entries", "start it otherwise")
    if ":" in job_id and len(job_id.split(":")) != 3:
        raise invalid(f"jobId {job_id!r} contains ':', which the queue's keys use", "use '-' instead")
