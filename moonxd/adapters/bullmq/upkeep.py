"""What operators ask of a queue less often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from moonxd.domain.job import JobState

from . import scripts
from .admin import Admin

_json = msgspec.json.Encoder().encode


class Upkeep(Admin):
    """Implements ports.QueueUpkeep."""

    async def priorities(self) -> Mapping[int, int]:
        """See ports.QueueUpkeep."""
        k = self._keys
        flat = await self._run(scripts.own("priorities"), (k.prioritized,), ())
        found = dict(zip(flat[::2], flat[1::2], strict=True))
        waiting, paused = await self._ask_many([("LLEN", k.wait), ("LLEN", k.paused)])
        return ({0: waiting + paused} if waiting + paused else {}) | found

    async def oldest_waiting(self) -> int | None:
        """See ports.QueueUpkeep. Of the heads of the lines (no priority, best priority) the one added first."""
        k = self._keys
        ends = [("LINDEX", k.paused, -1), ("LINDEX", k.wait, -1), ("ZRANGE", k.prioritized, 0, 0)]
        paused, waiting, prioritized = await self._ask_many(ends)
        heads = [head for head in (paused, waiting, *prioritized) if head is not None]
        if not heads:
            return None
        stamps = await self._ask_many([("HGET", k.base.encode() + head, "timestamp") for head in heads])
        return min((int(stamp) for stamp in stamps if stamp and stamp.isdigit()), default=None)

    async def logs(self, job_id: str, *, start: int = 0, limit: int = 100) -> tuple[str, ...]:
        """See ports.QueueUpkeep."""
        lines = await self._ask("LRANGE", self._keys.job(job_id) + ":logs", start, start + limit - 1)
        return tuple(line.decode("utf-8", "replace") for line in lines) if limit > 0 else ()

    async def clean(self, state: JobState, *, grace_ms: int = 0, limit: int = 1000) -> tuple[str, ...]:
        """See ports.QueueUpkeep. Jobs that somebody holds a lock on stay."""
        k = self._keys
        names = ("wait", "paused") if state is JobState.WAITING else (str(state),)
        removed: list[bytes] = []
        for name in names:
            left = limit - len(removed)
            if left <= 0:
                break
            args = (k.base, self._now() - grace_ms, left, name)
            removed += await self._run(scripts.detoured("cleanJobsInSet"), (k.state(name), k.events, k.repeat), args)
        return tuple(job_id.decode() for job_id in removed)

    async def update_data(self, job_id: str, data: Any) -> bool:
        """See ports.QueueUpkeep."""
        return bool(await self._run(scripts.plain("updateData"), (self._keys.job(job_id),), (_json(data),)) == 0)

    async def reprioritize(self, job_id: str, priority: int) -> bool:
        """See ports.QueueUpkeep."""
        k = self._keys
        keys = (k.wait, k.paused, k.meta, k.prioritized, k.active, k.counter, k.marker)
        reply = await self._run(scripts.detoured("changePriority"), keys, (priority, k.base, job_id, 0))
        return bool(reply == 0)

    async def limit(self, *, concurrency: int | None, rate: tuple[int, int] | None) -> None:
        """See ports.QueueUpkeep."""
        k = self._keys
        commands: list[tuple[Any, ...]] = []
        commands.append(
            ("HSET", k.meta, "concurrency", concurrency) if concurrency else ("HDEL", k.meta, "concurrency")
        )
        if rate is not None:
            commands.append(("HSET", k.meta, "max", rate[0], "duration", rate[1]))
        else:
            commands.append(("HDEL", k.meta, "max", "duration"))
        # Whoever sleeps because of the old bounds looks again.
        await self._ask_many([*commands, ("ZADD", k.marker, 0, "0")])

    async def drain(self, *, delayed: bool = False) -> None:
        """See ports.QueueUpkeep."""
        k = self._keys
        keys = (k.wait, k.paused, k.delayed, k.prioritized, k.repeat)
        await self._run(scripts.detoured("drain"), keys, (k.base, "1" if delayed else "0"))
