"""The operators' side of one queue: look, requeue, promote, remove, pause."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

from moonxd.domain.job import Counts, JobState, JobView

from ..redis.errors import RedisReplyError
from ..redis.script import Script
from . import scripts
from .adding import Adding
from .room import refused

_COUNTED = ("wait", "prioritized", "active", "delayed", "waiting-children", "completed", "failed", "paused")
_NEWEST_FIRST = (JobState.COMPLETED, JobState.FAILED)
#: Jobs per write when many are changed.
_PAGE = 250
#: A score in the delayed set is the due time in ms times this, plus a number that keeps the order of additions.
_DELAYED_SCALE = 0x1000


class Admin(Adding):
    """Implements ports.QueueAdmin."""

    async def counts(self) -> Counts:
        """See ports.QueueAdmin."""
        k = self._keys
        numbers = await self._run(scripts.plain("getCounts"), (k.base,), _COUNTED)
        is_paused = bool(await self._ask("HEXISTS", k.meta, "paused"))
        names = (name.replace("wait", "waiting") if name == "wait" else name.replace("-", "_") for name in _COUNTED)
        return Counts(**dict(zip(names, numbers, strict=True)), is_paused=is_paused)

    async def get(self, job_id: str) -> JobView | None:
        """See ports.QueueAdmin."""
        k = self._keys
        keys = (k.completed, k.failed, k.delayed, k.active, k.wait, k.paused, k.waiting_children, k.prioritized)
        state = JobState((await self._run(scripts.plain("getStateV2"), keys, (job_id, k.job(job_id)))).decode())
        flat, due = await self._ask_many([("HGETALL", k.job(job_id)), ("ZSCORE", k.delayed, job_id)])
        if not flat:
            return None
        return self._decoder.view(job_id, flat, state, _due_at(due))

    async def list(self, state: JobState, *, start: int = 0, limit: int = 50) -> tuple[JobView, ...]:
        """See ports.QueueAdmin."""
        ids = await self._page(state, start, limit)
        if not ids:
            return ()
        keys = [self._keys.job(job_id) for job_id in ids]
        hashes = await self._ask_many([("HGETALL", key) for key in keys])
        dues: builtins.list[Any] = [None] * len(ids)
        if state is JobState.DELAYED:
            dues = await self._ask_many([("ZSCORE", self._keys.delayed, job_id) for job_id in ids])
        rows = zip(ids, hashes, dues, strict=True)
        return tuple(self._decoder.view(job_id, flat, state, _due_at(due)) for job_id, flat, due in rows if flat)

    async def _page(self, state: JobState, start: int, limit: int) -> builtins.list[str]:
        k, last = self._keys, start + limit - 1
        if limit <= 0 or state is JobState.UNKNOWN:
            return []
        if state in (JobState.WAITING, JobState.ACTIVE):
            # These lists grow at the head and are served at the tail; a legacy `paused` list is in line before `wait`.
            names = (k.paused, k.wait) if state is JobState.WAITING else (k.active,)
            found: builtins.list[bytes] = []
            for name in names:
                length, part = await self._ask_many([("LLEN", name), ("LRANGE", name, -last - 1, -start - 1)])
                found += [job_id for job_id in reversed(part) if not job_id.startswith(b"0:")]
                start, last = max(0, start - length), last - length
                if last < start:
                    break
        elif state in _NEWEST_FIRST:
            found = await self._ask("ZREVRANGE", k.state(state), start, last)
        else:
            found = await self._ask("ZRANGE", k.state(state), start, last)
        return [job_id.decode() for job_id in found]

    # ---- changing

    async def requeue(self, job_ids: Sequence[str]) -> tuple[str, ...]:
        """See ports.QueueAdmin. How often a job stalled is forgotten too."""
        moved: builtins.list[str] = []
        for page in _pages(job_ids):
            rest = builtins.list(page)
            for state, result in (("failed", "failedReason"), ("completed", "returnvalue")):
                done = set(await self._reprocess(rest, state, result))
                moved += [job_id for job_id in rest if job_id in done]
                rest = [job_id for job_id in rest if job_id not in done]
        return tuple(moved)

    async def _reprocess(self, job_ids: Sequence[str], state: str, result: str) -> builtins.list[str]:
        k = self._keys
        shared = (k.wait, k.meta, k.active, k.marker, k.prioritized, k.counter)
        script = scripts.detoured("reprocessJob")
        calls = [
            ((k.job(job_id), k.events, k.state(state), *shared), (job_id, "LPUSH", result, state, "1", "1"))
            for job_id in job_ids
        ]
        done = [job_id for job_id, reply in zip(job_ids, await self._each(script, calls), strict=True) if reply == 1]
        if done:
            await self._ask_many([("HDEL", k.job(job_id), "stc") for job_id in done])
        return done

    async def promote(self, job_id: str) -> bool:
        """See ports.QueueAdmin."""
        k = self._keys
        keys = (k.delayed, k.wait, k.paused, k.meta, k.prioritized, k.active, k.counter, k.events, k.marker)
        return bool(await self._run(scripts.detoured("promote"), keys, (k.base, job_id)) == 0)

    async def remove(self, job_ids: Sequence[str]) -> tuple[str, ...]:
        """See ports.QueueAdmin."""
        removed: builtins.list[str] = []
        k = self._keys
        for page in _pages(job_ids):
            exist = await self._ask_many([("EXISTS", k.job(job_id)) for job_id in page])
            known = [job_id for job_id, there in zip(page, exist, strict=True) if there]
            calls = [((k.job(job_id), k.repeat), (job_id, "1", k.base)) for job_id in known]
            replies = await self._each(scripts.detoured("removeJob"), calls)
            removed += [job_id for job_id, reply in zip(known, replies, strict=True) if reply == 1]
        return tuple(removed)

    async def pause(self, paused: bool) -> None:
        """See ports.QueueAdmin."""
        k = self._keys
        ends = (k.wait, k.paused) if paused else (k.paused, k.wait)
        keys = (*ends, k.meta, k.prioritized, k.events, k.delayed, k.marker)
        announce = "1"
        while await self._run(scripts.pause(), keys, ("paused" if paused else "resumed", announce)):
            announce = "0"

    async def _each(self, script: Script, calls: Sequence[tuple[Sequence[Any], Sequence[Any]]]) -> builtins.list[Any]:
        """Replies of one script for several (keys, args); the first error reply is raised."""
        if not calls:
            return []
        replies = await self._run_many(script, calls)
        for reply in replies:
            if isinstance(reply, RedisReplyError):
                refused(reply, f"{script.name} on queue {self._name}")
        return replies


def _pages(job_ids: Sequence[str]) -> list[Sequence[str]]:
    return [job_ids[at : at + _PAGE] for at in range(0, len(job_ids), _PAGE)]


def _due_at(score: bytes | None) -> int | None:
    return None if score is None else int(float(score)) // _DELAYED_SCALE
