"""The worker's side of one queue: claim, settle, renew, recover.

Every call that may hand out a job is shielded once it is on its way: its reply would be lost with a cancelled caller,
and the job with it until it is found stalled. The client's command timeout bounds that wait.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import trio

from moonxd.domain.errors import LeaseLost, Transient
from moonxd.domain.job import (
    Claim,
    Completed,
    Failed,
    Job,
    JobOptions,
    Keep,
    Outcome,
    Postpone,
    Retry,
    StalledSweep,
)

from ..redis.client import Redis
from ..redis.errors import RedisReplyError, RedisUnavailable
from . import scripts
from .codec import PackedOptions, failure_fields, limited_traces, pack
from .finishing import Ending, Finisher
from .room import Room, lease_lost, refused

#: A rate limit is looked at again after at most this long: delayed jobs are promoted meanwhile.
_LONGEST_LIMIT_MS = 30_000
#: How soon to look again while the queue's own concurrency is used up; whoever ends a job of ours wakes us earlier.
_MAXED_MS = 1_000
#: What moveToFinished says of a parent whose children are not all well.
_CHILDREN = {-4: "it has children that are not finished", -9: "at least one of its children failed"}
_WAKE_UP_S = 1.0
_json = msgspec.json.Encoder().encode


class WorkerSide(Room):
    """Implements ports.Queue; see BullQueue for the arguments."""

    def __init__(
        self,
        redis: Redis,
        name: str,
        *,
        prefix: str,
        worker_name: str,
        lock_ms: int,
        stalled_interval_ms: int,
        max_stalled_count: int,
        limiter: tuple[int, int] | None,
        defaults: JobOptions,
        clock: Callable[[], int],
    ) -> None:
        super().__init__(redis, name, prefix=prefix, defaults=defaults, clock=clock)
        self._lock_ms = lock_ms
        self._stalled_interval_ms = stalled_interval_ms
        self._max_stalled_count = max_stalled_count
        self._packed = PackedOptions(worker_name=worker_name, lock_ms=lock_ms, limiter=limiter)
        self._token_base = secrets.token_hex(8)
        self._token_count = itertools.count(1)
        self._finisher = Finisher(self._finish_batch)
        #: Tokens of claims that broke midway: a job that nobody of us knows may be locked with one.
        self._orphans: set[str] = set()
        #: Tokens of jobs whose settling broke midway; under the same token it may have claimed the next job.
        self._doubtful: set[str] = set()
        self._lay_out_keys()

    def _lay_out_keys(self) -> None:
        k = self._keys
        shared = (
            k.wait,
            k.active,
            k.prioritized,
            k.events,
            k.stalled,
            k.limiter,
            k.delayed,
            k.paused,
            k.meta,
            k.counter,
        )
        self._claim_keys = (*shared, k.marker)
        metrics = (k.base + "metrics:completed", k.base + "metrics:failed")
        self._finish_keys = (*shared, k.completed, k.failed, *metrics, k.marker)

    # ---- claiming

    async def claim(self) -> Claim:
        """See ports.Queue."""
        while self._orphans:
            found = await self._adopt_orphan(self._orphans.pop())
            if found is not None:
                return Claim(found)
        token = f"{self._token_base}:{next(self._token_count)}"
        with trio.CancelScope(shield=True):
            try:
                args = (self._keys.base, self._now(), self._packed.claim(token))
                reply = await self._run(scripts.claim(), self._claim_keys, args)
            except RedisUnavailable as error:
                if error.maybe_executed:
                    self._orphans.add(token)
                raise
        return self._claimed(reply, token)

    def _claimed(self, reply: Any, token: str) -> Claim:
        """What [job hash or 0, id, rate limit in ms, next delayed job] says."""
        flat, job_id, limited_ms, next_delayed = reply
        if flat:
            return Claim(self._decoder.job(job_id.decode(), flat, token))
        if limited_ms > 0:
            return Claim(wake_at=self._now() + min(limited_ms, _LONGEST_LIMIT_MS), limited=True)
        if next_delayed == b"maxed":
            return Claim(wake_at=self._now() + _MAXED_MS)
        return Claim(wake_at=int(next_delayed) if next_delayed else None)

    async def _adopt(self, token: str) -> Job | None:
        """The active job that is locked with `token`, claimed by a call whose reply never came."""
        active: list[bytes] = await self._ask("LRANGE", self._keys.active, 0, -1)
        if not active:
            return None
        locks = await self._ask("MGET", *(self._keys.base.encode() + job_id + b":lock" for job_id in active))
        for job_id, lock in zip(active, locks, strict=True):
            if lock == token.encode():
                flat = await self._ask("HGETALL", self._keys.base.encode() + job_id)
                return self._decoder.job(job_id.decode(), flat, token)
        return None

    async def _adopt_orphan(self, token: str) -> Job | None:
        """Shielded: a job found by a caller that is cancelled would be forgotten again."""
        found = None
        with trio.CancelScope(shield=True):
            try:
                found = await self._adopt(token)
            except RedisUnavailable:
                self._orphans.add(token)
                raise
        return found

    async def wait(self, timeout: float) -> bool:
        """See ports.Queue. A marker of the future (a delayed job's) shortens the wait to its time."""
        deadline = trio.current_time() + timeout
        due: float | None = None
        while True:
            until = deadline if due is None else min(deadline, due)
            left = until - trio.current_time()
            if left <= 0:
                return due is not None and due <= deadline
            score = await self._pop_marker(left)
            if score is not None:
                ahead_ms = score - self._now()
                if ahead_ms <= 0:
                    return True
                due = trio.current_time() + ahead_ms / 1000

    async def _pop_marker(self, seconds: float) -> float | None:
        """The popped marker's score (epoch ms, or 0); None when `seconds` passed."""
        patience = max(seconds, 0.001)  # 0 would wait for ever
        try:
            reply = await self._redis.block("BZPOPMIN", self._keys.marker, f"{patience:.3f}", timeout=patience)
        except RedisReplyError as error:
            refused(error, f"BZPOPMIN on queue {self._name}")
        except trio.Cancelled:
            await self._leave_marker()
            raise
        return None if reply is None else float(reply[2])

    async def _leave_marker(self) -> None:
        """The cancelled wait may just have taken the marker: put one back, or other workers sleep beside a job."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _WAKE_UP_S):
            try:
                await self._redis.call("ZADD", self._keys.marker, 0, "0")
            except (RedisUnavailable, RedisReplyError):
                pass  # others look again by themselves, only later

    # ---- settling

    async def settle(self, job: Job, outcome: Outcome, *, fetch: bool) -> Claim | None:
        """See ports.Queue."""
        try:
            claim = await self._settle(job, outcome, fetch)
        except RedisUnavailable as error:
            if error.maybe_executed:
                self._doubtful.add(job.token)
            raise
        except LeaseLost:
            if job.token not in self._doubtful:
                raise
            return await self._resolve(job, outcome, fetch)
        self._doubtful.discard(job.token)
        return claim

    async def _settle(self, job: Job, outcome: Outcome, fetch: bool) -> Claim | None:
        if isinstance(outcome, Completed):
            return await self._complete(job, outcome, fetch)
        if isinstance(outcome, Failed):
            return await self._fail(job, outcome.reason, outcome.stack, fetch)
        if isinstance(outcome, Retry):
            return await self._retry(job, outcome, fetch)
        if isinstance(outcome, Postpone):
            ahead_ms = max(0, outcome.until_ms - self._now())
            return await self._delay(job, ahead_ms, b"", fetch, skip_attempt=True)
        await self._release(job)
        return None

    async def _retry(self, job: Job, outcome: Retry, fetch: bool) -> Claim | None:
        fields = failure_fields(outcome.reason, limited_traces(job, outcome.stack))
        if outcome.delay_ms > 0:
            return await self._delay(job, outcome.delay_ms, fields, fetch, skip_attempt=False)
        await self._retry_at_once(job, fields)
        return None

    async def _resolve(self, job: Job, outcome: Outcome, fetch: bool) -> Claim | None:
        """An earlier try broke midway and now the lock is gone: did that try do the work, and claim the next job?"""
        with trio.CancelScope(shield=True):
            found = await self._adopt(job.token)
        if found is not None:
            self._doubtful.discard(job.token)
            if fetch:
                return Claim(found)
            await self._release(found)
            return None
        target = self._keys.completed if isinstance(outcome, Completed) else self._keys.failed
        key = self._keys.job(job.id)
        finished, exists = await self._ask_many([("ZSCORE", target, job.id), ("EXISTS", key)])
        self._doubtful.discard(job.token)
        if isinstance(outcome, (Completed, Failed)) and (finished is not None or not exists):
            return None
        raise LeaseLost(
            f"job {job.id} is not ours any more: the connection broke while it was settled, then it was gone"
        )

    async def _complete(self, job: Job, outcome: Completed, fetch: bool) -> Claim | None:
        options = job.options
        reply = await self._finish(job, outcome.value, "completed", fetch, options.remove_on_complete, b"")
        if type(reply) is int and reply in _CHILDREN:
            return await self._fail(job, f"the job cannot complete: {_CHILDREN[reply]}", (), fetch)
        return self._ended(job, reply)

    async def _fail(self, job: Job, reason: str, stack: tuple[str, ...], fetch: bool) -> Claim | None:
        fields = failure_fields(reason, limited_traces(job, stack))
        reply = await self._finish(job, reason, "failed", fetch, job.options.remove_on_fail, fields)
        return self._ended(job, reply)

    async def _finish(
        self, job: Job, value: bytes | str, target: str, fetch: bool, keep: Keep | None, fields: bytes
    ) -> Any:
        options = self._packed.finish(job.token, keep, job.options.attempts)
        args = (job.id, value, target, "1" if fetch else "", options, fields)
        return await self._finisher.submit(Ending(self._keys.job(job.id), args))

    async def _finish_batch(self, batch: Sequence[Ending]) -> list[Any]:
        keys = (*self._finish_keys, *(ending.key for ending in batch))
        args = (self._now(), self._keys.base, *(argument for ending in batch for argument in ending.args))
        replies: list[Any] = await self._run(scripts.finish(), keys, args, at_once=True)
        return replies

    def _ended(self, job: Job, reply: Any) -> Claim | None:
        if type(reply) is list:
            return self._claimed(reply, job.token)
        if type(reply) is int:
            if reply < 0:
                raise lease_lost(job.id, reply)
            return None
        raise Transient(f"Redis could not end job {job.id}: {reply.decode('utf-8', 'replace')}")

    async def _delay(self, job: Job, ms: int, fields: bytes, fetch: bool, *, skip_attempt: bool) -> Claim | None:
        k = self._keys
        keys = (k.marker, k.active, k.prioritized, k.delayed, k.job(job.id), k.events, k.meta, k.stalled, k.wait)
        args = (
            *(k.base, self._now(), job.id, job.token, ms, "1" if skip_attempt else "0", fields),
            *("1" if fetch else "0", self._packed.claim(job.token)),
        )
        with trio.CancelScope(shield=True):
            reply = await self._run(scripts.detoured("moveToDelayed"), (*keys, k.limiter, k.counter), args)
        return self._ended(job, reply)

    async def _retry_at_once(self, job: Job, fields: bytes) -> None:
        k = self._keys
        keys = (k.active, k.wait, k.paused, k.job(job.id), k.meta, k.events, k.delayed, k.prioritized, k.counter)
        push = "RPUSH" if job.options.lifo else "LPUSH"
        args = (k.base, self._now(), push, job.id, job.token, fields)
        self._ended(job, await self._run(scripts.detoured("retryJob"), (*keys, k.marker, k.stalled), args))

    async def _release(self, job: Job) -> None:
        k = self._keys
        keys = (k.active, k.wait, k.stalled, k.paused, k.meta, k.limiter, k.prioritized, k.marker, k.events)
        reply = await self._run(scripts.release(), keys, (job.id, job.token, k.job(job.id)))
        self._ended(job, reply)

    # ---- holding

    async def extend(self, jobs: Sequence[Job]) -> tuple[str, ...]:
        """See ports.Queue."""
        tokens, ids = pack([job.token for job in jobs]), pack([job.id for job in jobs])
        args = (self._keys.base, tokens, ids, self._lock_ms)
        lost = await self._run(scripts.plain("extendLocks"), (self._keys.stalled,), args)
        return tuple(job_id.decode() for job_id in lost)

    async def recover_stalled(self) -> StalledSweep:
        """See ports.Queue. All workers of a queue share one check per interval: an early one finds nothing."""
        k = self._keys
        keys = (k.stalled, k.wait, k.active, k.stalled_check, k.meta, k.paused, k.marker, k.events, k.repeat)
        # A little under the interval, so that our own next check is not taken for somebody's early one.
        guard_ms = max(1, self._stalled_interval_ms * 19 // 20)
        args = (self._max_stalled_count, k.base, self._now(), guard_ms)
        ids = [job_id.decode() for job_id in await self._run(scripts.stalled(), keys, args)]
        if not ids:
            return StalledSweep()
        doomed = await self._ask_many([("HEXISTS", k.job(job_id), "defa") for job_id in ids])
        pairs = list(zip(ids, doomed, strict=True))
        return StalledSweep(
            recovered=tuple(job_id for job_id, is_doomed in pairs if not is_doomed),
            failed=tuple(job_id for job_id, is_doomed in pairs if is_doomed),
        )

    # ---- telling

    async def progress(self, job: Job, value: Any) -> None:
        """See ports.Queue. Raises LeaseLost when the job does not exist any more."""
        keys = (self._keys.job(job.id), self._keys.events, self._keys.meta)
        reply = await self._run(scripts.plain("updateProgress"), keys, (job.id, _json(value)))
        if reply < 0:
            raise lease_lost(job.id, reply)

    async def log(self, job: Job, line: str) -> None:
        """See ports.Queue. Raises LeaseLost when the job does not exist any more."""
        key = self._keys.job(job.id)
        keep = "" if job.options.keep_logs is None else job.options.keep_logs
        reply = await self._run(scripts.plain("addLog"), (key, key + ":logs"), (job.id, line, keep))
        if reply < 0:
            raise lease_lost(job.id, reply)
