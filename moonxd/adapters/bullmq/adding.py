"""Adding jobs: which script, and its arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from moonxd.domain.errors import Permanent
from moonxd.domain.job import NewJob

from ..redis.script import Script
from . import scripts
from .codec import pack
from .keys import Keys
from .options import PRIORITY_LIMIT, encode_options, encode_parent
from .room import Room

_json = msgspec.json.Encoder().encode
_CODES = {
    -5: "its parent does not exist",
    -7: "a job with this id belongs to another parent already",
}


def check(job: NewJob) -> None:
    """BullMQ's own rules for a new job. Raises Permanent with what is wrong."""
    if job.id is not None:
        if not job.id:
            raise Permanent("a job id must not be empty")
        if job.id.lstrip("-").isdecimal():
            raise Permanent(f"job id {job.id!r} is a number: those are given by the queue itself, add a letter")
        if ":" in job.id and job.id.count(":") != 2:
            raise Permanent(f"job id {job.id!r} contains ':' (BullMQ allows it only in exactly three parts)")
    if not 0 <= job.options.priority <= PRIORITY_LIMIT:
        raise Permanent(f"priority {job.options.priority} is out of range: 0 to {PRIORITY_LIMIT}")
    if job.options.delay < 0:
        raise Permanent(f"delay {job.options.delay} ms is negative")
    if job.deduplication_id is not None and job.parent is not None:
        raise Permanent("a job of a flow cannot have a deduplication id")


def script_for(job: NewJob, stored: dict[str, Any], keys: Keys) -> tuple[Script, tuple[str, ...]]:
    """The official script that adds `job`, and its keys."""
    k = keys
    if job.has_children:
        return scripts.plain("addParentJob"), (k.meta, k.id, k.delayed, k.waiting_children, k.completed, k.events)
    if stored.get("delay"):
        return scripts.detoured("addDelayedJob"), (k.marker, k.meta, k.id, k.delayed, k.completed, k.events)
    if stored.get("priority"):
        more = (k.completed, k.active, k.events, k.counter)
        return scripts.detoured("addPrioritizedJob"), (k.marker, k.meta, k.id, k.prioritized, k.delayed, *more)
    rest = (k.completed, k.delayed, k.active, k.events, k.marker)
    return scripts.detoured("addStandardJob"), (k.wait, k.paused, k.meta, k.id, *rest)


class Adding(Room):
    """The producers' side."""

    async def add(self, jobs: Sequence[NewJob]) -> tuple[str, ...]:
        """See ports.QueueAdmin. Raises Permanent, before anything is added, for a job that BullMQ would refuse.

        RedisUnavailable with `maybe_executed` means that some may have been added: jobs with ids may be added again.
        """
        for job in jobs:
            check(job)
        calls = [self._call(job) for job in jobs]
        used = {script.sha: script for script, _, _ in calls}
        commands: list[Sequence[Any]] = [("SCRIPT", "LOAD", script.text) for script in used.values()]
        if len(calls) == 1:
            [(script, keys, args)] = calls
            replies = [await self._run(script, keys, args)]
        else:
            commands += [("EVALSHA", script.sha, len(keys), *keys, *args) for script, keys, args in calls]
            replies = (await self._ask_many(commands))[len(used) :]
        return tuple(self._added(job, reply) for job, reply in zip(jobs, replies, strict=True))

    def _call(self, job: NewJob) -> tuple[Script, tuple[str, ...], tuple[bytes, ...]]:
        stored = encode_options(job, self._defaults)
        script, keys = script_for(job, stored, self._keys)
        parent_key = f"{job.parent.queue_key}:{job.parent.id}" if job.parent else None
        deduplication = f"{self._keys.base}de:{job.deduplication_id}" if job.deduplication_id else None
        packed = pack(
            [
                self._keys.base,
                job.id or "",
                job.name,
                job.timestamp if job.timestamp is not None else self._now(),
                parent_key,
                f"{parent_key}:dependencies" if parent_key else None,
                encode_parent(job.parent) if job.parent else None,
                None,
                deduplication,
            ]
        )
        return script, keys, (packed, _json(job.data), pack(stored))

    def _added(self, job: NewJob, reply: Any) -> str:
        if isinstance(reply, bytes):
            return reply.decode()
        if isinstance(reply, int) and reply >= 0:
            return str(reply)
        raise Permanent(f"job {job.id or job.name!r} was not added: {_CODES.get(reply, f'BullMQ says {reply}')}")
