"""Job options between BullMQ's stored form (JSON with some short names) and ours.

Stored: `attempts` (0 when the producer said nothing), `backoff` a number or {type, delay, jitter}, `removeOnComplete`
and `removeOnFail` as true | count | {count, age, limit}, `kl` keepLogs, `de` deduplication, `fpof`/`cpof`/`idof`/`rdof`
what a child's failure does to its parent. Source: optsDecodeMap and Job in npm bullmq 5.81.5 and 6.7.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from moonxd.domain.job import Backoff, JobOptions, Keep, NewJob, Parent

#: What a child's failure does to its parent, in a parent reference's own short words.
ON_FAILURE = {"fail": "fpof", "continue": "cpof", "ignore": "idof", "remove": "rdof"}
#: Options that belong to one addition and not to the job: never taken over from stored options.
_PASSING = (
    "delay",
    "jobId",
    "timestamp",
    "de",
    "deduplication",
    "parent",
    "repeat",
    "repeatJobKey",
    *ON_FAILURE.values(),
)
#: BullMQ's own bound of a priority.
PRIORITY_LIMIT = 2**21 - 1


class Malformed(ValueError):
    """A stored job that cannot be read; the text says which part and what is wrong with it."""


def _whole(raw: Mapping[str, Any], name: str) -> int | None:
    value = raw.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Malformed(f"option {name} must be a number, not {value!r}"[:200])
    return int(value)


def _backoff(value: Any) -> Backoff | None:
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Backoff("fixed", max(0, int(value)))
    if isinstance(value, dict):
        kind, jitter = value.get("type", "fixed"), value.get("jitter") or 0
        delay = _whole(value, "delay")
        if isinstance(kind, str) and isinstance(jitter, (int, float)):
            factor = value.get("multiplier")
            multiplier = float(factor) if isinstance(factor, (int, float)) and factor >= 1 else 2.0
            return Backoff(kind, max(0, delay or 0), min(1.0, max(0.0, float(jitter))), multiplier)
    raise Malformed(f"option backoff must be a number or {{type, delay}}, not {value!r}"[:200])


def _keep(raw: Mapping[str, Any], name: str) -> Keep | None:
    value = raw.get(name)
    if value is None:
        return None
    if isinstance(value, bool):
        return Keep(count=0) if value else Keep()
    if isinstance(value, (int, float)):
        return Keep(count=int(value)) if value >= 0 else Keep()
    if isinstance(value, dict):
        count = _whole(value, "count")
        age, limit = _whole(value, "age"), _whole(value, "limit")
        return Keep(count if count is None or count >= 0 else None, age, limit)
    raise Malformed(f"option {name} must be true, false, a number or {{count, age}}, not {value!r}"[:200])


def decode_options(text: bytes, defaults: JobOptions) -> JobOptions:
    """Stored options with `defaults` where the producer said nothing. Raises Malformed."""
    try:
        raw = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"its options are not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise Malformed(f"its options must be a JSON object, not {type(raw).__name__}")
    return options_from(raw, defaults)


def options_from(raw: dict[str, Any], defaults: JobOptions) -> JobOptions:
    """Options from their stored form, already decoded. Raises Malformed."""
    stack_limit, keep_logs = _whole(raw, "stackTraceLimit"), _whole(raw, "kl")
    return JobOptions(
        # npm's Job stores 0 for "nothing said": both mean that the worker's own default applies.
        attempts=_whole(raw, "attempts") or defaults.attempts,
        backoff=_backoff(raw.get("backoff")) or defaults.backoff,
        priority=max(0, _whole(raw, "priority") or 0),
        delay=max(0, _whole(raw, "delay") or 0),
        lifo=bool(raw.get("lifo")),
        remove_on_complete=_keep(raw, "removeOnComplete") or defaults.remove_on_complete,
        remove_on_fail=_keep(raw, "removeOnFail") or defaults.remove_on_fail,
        stack_limit=stack_limit if stack_limit is not None else defaults.stack_limit,
        keep_logs=keep_logs if keep_logs is not None else defaults.keep_logs,
        raw=raw,
    )


def _stored_keep(keep: Keep) -> Any:
    if keep.age_s is None and keep.limit is None:
        return keep.count if keep.count is not None else False
    pairs = {"count": keep.count, "age": keep.age_s, "limit": keep.limit}
    return {name: value for name, value in pairs.items() if value is not None}


def encode_options(job: NewJob, defaults: JobOptions) -> dict[str, Any]:
    """The options of a new job in stored form; `defaults` are written out so that workers of any kind obey them."""
    given = job.options
    stored = {name: value for name, value in given.raw.items() if name not in _PASSING}
    own: dict[str, Any] = {
        "attempts": given.attempts,
        "backoff": _stored_backoff(given.backoff),
        "priority": given.priority or None,
        "delay": given.delay or None,
        "lifo": given.lifo or None,
        "removeOnComplete": _stored_keep(given.remove_on_complete) if given.remove_on_complete else None,
        "removeOnFail": _stored_keep(given.remove_on_fail) if given.remove_on_fail else None,
        "stackTraceLimit": given.stack_limit,
        "kl": given.keep_logs,
        "de": _deduplication(job),
        "jobId": job.id,
    }
    stored |= {name: value for name, value in own.items() if value is not None}
    if job.parent is not None:
        stored["parent"] = {"id": job.parent.id, "queue": job.parent.queue_key}
        if job.parent.on_failure is not None:
            stored[ON_FAILURE[job.parent.on_failure]] = True
    _fill(stored, defaults)
    return stored


def _fill(stored: dict[str, Any], defaults: JobOptions) -> None:
    if not stored.get("attempts"):
        stored["attempts"] = defaults.attempts or 1
    filling = {
        "backoff": _stored_backoff(defaults.backoff),
        "removeOnComplete": _stored_keep(defaults.remove_on_complete) if defaults.remove_on_complete else None,
        "removeOnFail": _stored_keep(defaults.remove_on_fail) if defaults.remove_on_fail else None,
        "stackTraceLimit": defaults.stack_limit,
        "kl": defaults.keep_logs,
    }
    for name, value in filling.items():
        if value is not None:
            stored.setdefault(name, value)


def _stored_backoff(backoff: Backoff | None) -> dict[str, Any] | None:
    if backoff is None:
        return None
    stored: dict[str, Any] = {"type": backoff.kind, "delay": backoff.delay}
    if backoff.jitter:
        stored["jitter"] = backoff.jitter
    if backoff.multiplier != 2.0:
        stored["multiplier"] = backoff.multiplier  # ours: npm's exponential always doubles and ignores it
    return stored


def _deduplication(job: NewJob) -> dict[str, Any] | None:
    if job.deduplication_id is None:
        return None
    stored: dict[str, Any] = {"id": job.deduplication_id}
    if job.deduplication_ttl:
        stored["ttl"] = job.deduplication_ttl
    return stored


def encode_parent(parent: Parent) -> dict[str, Any]:
    """A parent reference as the child's hash keeps it."""
    stored: dict[str, Any] = {"id": parent.id, "queueKey": parent.queue_key}
    if parent.on_failure is not None:
        stored[ON_FAILURE[parent.on_failure]] = True
    return stored
