"""A job's hash in Redis and our Job, and the packed arguments of the official scripts.

The hash holds name, data (JSON), opts (JSON), timestamp, delay, priority, processedOn, finishedOn, returnvalue (JSON),
failedReason, stacktrace (JSON array), progress (JSON), parentKey, parent, and in short atm (attempts made), ats
(started), stc (stalled), pb (processed by), defa (deferred failure), deid, rjk.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from moonxd.domain.job import Job, JobOptions, JobState, JobView, Keep

from .options import Malformed, decode_options

log = logging.getLogger("moonxd.queue")

pack = msgspec.msgpack.Encoder().encode
_json = msgspec.json.Encoder().encode
_CACHED_OPTIONS = 512


def _number(fields: dict[bytes, bytes], name: bytes) -> int:
    value = fields.get(name)
    if not value:
        return 0
    if value.isdigit():
        return int(value)
    try:
        return int(float(value))
    except (ValueError, OverflowError):
        raise Malformed(f"its {name.decode()} is not a number: {value[:40]!r}") from None


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _loose_json(value: bytes | None) -> Any:
    """A JSON value; text that is not JSON stays text (older producers stored plain strings)."""
    if value is None:
        return None
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return value.decode("utf-8", "replace")


def _traces(value: bytes | None) -> tuple[str, ...]:
    found = _loose_json(value)
    return tuple(str(entry) for entry in found) if isinstance(found, list) else ()


class Decoder:
    """Reads hashes of one queue. Options are remembered: thousands of jobs share the same few texts."""

    def __init__(self, queue: str, defaults: JobOptions) -> None:
        self._queue = queue
        self._defaults = defaults
        self._options: dict[bytes, JobOptions] = {}
        self._schedulers: set[bytes] = set()

    def options(self, text: bytes) -> JobOptions:
        """Raises Malformed."""
        known = self._options.get(text)
        if known is None:
            known = decode_options(text, self._defaults)
            if len(self._options) >= _CACHED_OPTIONS:
                self._options.clear()
            self._options[text] = known
        return known

    def job(self, job_id: str, flat: list[bytes], token: str) -> Job:
        """A claimed job. A hash that cannot be read becomes a doomed job, never an error."""
        pairs = iter(flat)
        fields = dict(zip(pairs, pairs, strict=True))
        try:
            return self._job(job_id, fields, token)
        except (Malformed, UnicodeDecodeError) as error:
            return self._doomed(job_id, fields, token, str(error))

    def _job(self, job_id: str, fields: dict[bytes, bytes], token: str) -> Job:
        name, data, opts = fields.get(b"name"), fields.get(b"data"), fields.get(b"opts")
        if name is None or data is None:
            what = "name" if name is None else "data"
            gone = "" if opts or name or data else " (it was deleted while the job waited)"
            raise Malformed(f"its hash has no {what}{gone}")
        if b"rjk" in fields:
            self._warn_of_scheduler(fields[b"rjk"])
        deferred = fields.get(b"defa")
        stack = fields.get(b"stacktrace")
        parent = fields.get(b"parentKey")
        return Job(
            queue=self._queue,
            id=job_id,
            name=name.decode(),
            data=data,
            options=self.options(opts) if opts else self._defaults,
            timestamp=_number(fields, b"timestamp"),
            attempts_made=_number(fields, b"atm"),
            attempts_started=_number(fields, b"ats"),
            stalled=_number(fields, b"stc"),
            parent_key=parent.decode() if parent else None,
            stack=_traces(stack) if stack else (),
            doomed=deferred.decode("utf-8", "replace") if deferred else None,
            token=token,
        )

    def _warn_of_scheduler(self, key: bytes) -> None:
        if key not in self._schedulers:
            self._schedulers.add(key)
            log.warning(
                "job scheduler %s of queue %s does not go on: its jobs run here, but only Node workers add the next",
                key.decode("utf-8", "replace"),
                self._queue,
            )

    def _doomed(self, job_id: str, fields: dict[bytes, bytes], token: str, why: str) -> Job:
        return Job(
            queue=self._queue,
            id=job_id,
            name=_text(fields.get(b"name")) or "",
            data=fields.get(b"data") or b"null",
            options=JobOptions(
                attempts=1,
                remove_on_complete=self._defaults.remove_on_complete,
                remove_on_fail=self._defaults.remove_on_fail,
            ),
            timestamp=0,
            doomed=f"the job cannot be read: {why}",
            token=token,
        )

    def view(self, job_id: str, flat: list[bytes], state: JobState, due_at: int | None) -> JobView:
        """A job for operators; unreadable parts show as far as they can be read."""
        pairs = iter(flat)
        fields = dict(zip(pairs, pairs, strict=True))
        return JobView(
            job=self.job(job_id, flat, ""),
            state=state,
            progress=_loose_json(fields.get(b"progress")),
            processed_on=_number_or_none(fields, b"processedOn"),
            finished_on=_number_or_none(fields, b"finishedOn"),
            failed_reason=_text(fields.get(b"failedReason")),
            stack=_traces(fields.get(b"stacktrace")),
            return_value=_loose_json(fields.get(b"returnvalue")),
            processed_by=_text(fields.get(b"pb")),
            due_at=due_at,
        )


def _number_or_none(fields: dict[bytes, bytes], name: bytes) -> int | None:
    try:
        return _number(fields, name) or None
    except Malformed:
        return None


def keep_jobs(keep: Keep | None) -> dict[str, int]:
    """`keepJobs` of moveToFinished; a count of -1 keeps all."""
    if keep is None:
        return {"count": -1}
    pairs = {"count": keep.count, "age": keep.age_s, "limit": keep.limit}
    return {name: value for name, value in pairs.items() if value is not None} or {"count": -1}


def failure_fields(reason: str, traces: tuple[str, ...]) -> bytes:
    """Fields of the hash that a failed attempt updates, packed as a flat list."""
    return pack(["failedReason", reason, "stacktrace", _json(traces).decode()])


def limited_traces(job: Job, added: tuple[str, ...]) -> tuple[str, ...]:
    """The job's traces after another failure, cut to its stackTraceLimit."""
    traces, limit = (*job.stack, *added), job.options.stack_limit
    if limit is None:
        return traces
    return traces[-limit:] if limit > 0 else ()


class PackedOptions:
    """Packed options of moveToActive, moveToDelayed and moveToFinished: everything but the token is packed once.

    MessagePack maps are concatenations, so the token is appended to a prepared prefix whose header counts it already.
    """

    def __init__(self, *, worker_name: str, lock_ms: int, limiter: tuple[int, int] | None) -> None:
        self._common: dict[str, Any] = {"name": worker_name, "lockDuration": lock_ms}
        if limiter is not None:
            self._common["limiter"] = {"max": limiter[0], "duration": limiter[1]}
        self._claim = self._prefix({})
        self._finish: dict[tuple[Keep | None, int | None], bytes] = {}

    def _prefix(self, extra: dict[str, Any]) -> bytes:
        fields = self._common | extra
        packed = pack(fields)
        return bytes([0x80 | len(fields) + 1]) + packed[1:] + pack("token")

    def claim(self, token: str) -> bytes:
        """For the scripts that only fetch."""
        return self._claim + pack(token)

    def finish(self, token: str, keep: Keep | None, attempts: int | None) -> bytes:
        """For moveToFinished."""
        prefix = self._finish.get((keep, attempts))
        if prefix is None:
            if len(self._finish) >= _CACHED_OPTIONS:
                self._finish.clear()
            extra = {"keepJobs": keep_jobs(keep), "attempts": attempts or 1, "maxMetricsSize": ""}
            prefix = self._finish[keep, attempts] = self._prefix(extra)
        return prefix + pack(token)
