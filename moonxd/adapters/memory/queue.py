"""A queue in this process: what the real one does, without Redis, on trio's clock. For tests and simulations.

    queue = MemoryQueue("sync-jobs", lock_ms=30000); second = queue.other_worker()

The conformance suite holds it to the behaviour of the real one. It has no flows (parents and children).
"""

from __future__ import annotations

import builtins
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import trio

from moonxd.domain.errors import Permanent
from moonxd.domain.job import (
    Claim,
    Completed,
    Counts,
    Failed,
    Job,
    JobOptions,
    JobState,
    JobView,
    NewJob,
    Outcome,
    Postpone,
    Retry,
    StalledSweep,
)

from .lines import Entry, Lines

_tokens = itertools.count(1)
_DEFAULTS = JobOptions(attempts=1)
_FILLED = ("attempts", "backoff", "remove_on_complete", "remove_on_fail", "stack_limit", "keep_logs")


class MemoryQueue:
    """Implements ports.Queue, ports.QueueAdmin and ports.QueueUpkeep; see adapters/bullmq for the arguments."""

    def __init__(
        self,
        name: str,
        *,
        worker_name: str = "memory",
        lock_ms: int = 30_000,
        stalled_interval_ms: int = 30_000,
        max_stalled_count: int = 1,
        defaults: JobOptions = _DEFAULTS,
        lines: Lines | None = None,
    ) -> None:
        self._name = name
        self._worker_name = worker_name
        self._lock_ms = lock_ms
        self._stalled_interval_ms = stalled_interval_ms
        self._max_stalled_count = max_stalled_count
        self._defaults = defaults
        self._lines = lines or Lines()
        self._numbers = itertools.count(1)

    def other_worker(self) -> MemoryQueue:
        """The same queue as another process would see it."""
        return MemoryQueue(
            self._name,
            worker_name=self._worker_name + "'",
            lock_ms=self._lock_ms,
            stalled_interval_ms=self._stalled_interval_ms,
            max_stalled_count=self._max_stalled_count,
            defaults=self._defaults,
            lines=self._lines,
        )

    def now(self) -> float:
        """Unix seconds on trio's clock, for the consumer."""
        return self._lines.now()

    @property
    def name(self) -> str:
        return self._name

    # ---- the worker's side

    async def claim(self) -> Claim:
        await trio.lowlevel.cancel_shielded_checkpoint()
        return self._claim()

    def _claim(self) -> Claim:
        lines = self._lines
        lines.promote_due()
        now = lines.now_ms()
        if (until := self._rate_limited(now)) is not None:
            return Claim(wake_at=until, limited=True)
        if lines.paused:
            return Claim()
        if lines.concurrency is not None and len(lines.active) >= lines.concurrency:
            return Claim(wake_at=now + 1000)
        entry = lines.next_entry()
        if entry is None:
            return Claim(wake_at=lines.delayed[0][0] if lines.delayed else None)
        return Claim(self._activate(entry, now))

    def _activate(self, entry: Entry, now: int) -> Job:
        lines = self._lines
        if lines.rate is not None:
            count, until = lines.rate_window
            lines.rate_window = (count + 1, until) if now < until else (1, now + lines.rate[1])
        token = f"memory:{next(_tokens)}"
        entry.state, entry.token, entry.locked_until = JobState.ACTIVE, token, now + self._lock_ms
        entry.processed_on, entry.processed_by = now, self._worker_name
        entry.attempts_started += 1
        lines.active.appendleft(entry)
        lines.mark()
        return entry.job(self._name, token)

    def _rate_limited(self, now: int) -> int | None:
        lines = self._lines
        count, until = lines.rate_window
        return until if lines.rate is not None and count >= lines.rate[0] and now < until else None

    async def wait(self, timeout: float) -> bool:
        await trio.lowlevel.checkpoint()
        return await self._lines.marked(timeout)

    async def settle(self, job: Job, outcome: Outcome, *, fetch: bool) -> Claim | None:
        await trio.lowlevel.cancel_shielded_checkpoint()
        lines = self._lines
        entry = lines.held(job)
        lines.let_go(entry)
        if isinstance(outcome, Completed):
            entry.return_value = outcome.value
            lines.finish(entry, JobState.COMPLETED, entry.options.remove_on_complete)
        elif isinstance(outcome, Failed):
            self._note_failure(entry, outcome)
            entry.doomed = None
            lines.finish(entry, JobState.FAILED, entry.options.remove_on_fail)
        elif isinstance(outcome, Retry):
            self._note_failure(entry, outcome)
            entry.attempts_made += 1
            if outcome.delay_ms <= 0:
                lines.line_up(entry)
                return None
            lines.put_off(entry, lines.now_ms() + outcome.delay_ms)
        elif isinstance(outcome, Postpone):
            lines.put_off(entry, max(outcome.until_ms, lines.now_ms()))
        else:
            lines.line_up(entry, first=True)
            return None
        if fetch:
            return self._claim()
        if lines.wait or lines.prioritized:
            lines.mark()
        return None

    def _note_failure(self, entry: Entry, outcome: Retry | Failed) -> None:
        entry.failed_reason = outcome.reason
        entry.stack = (*entry.stack, *outcome.stack)
        limit = entry.options.stack_limit
        if limit is not None:
            entry.stack = entry.stack[-limit:] if limit > 0 else ()

    async def extend(self, jobs: Sequence[Job]) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        lines, lost = self._lines, []
        now = lines.now_ms()
        for job in jobs:
            entry = lines.jobs.get(job.id)
            if entry is None or entry.token != job.token or entry.locked_until <= now:
                lost.append(job.id)
            else:
                entry.locked_until = now + self._lock_ms
                lines.suspects.discard(job.id)
        return tuple(lost)

    async def recover_stalled(self) -> StalledSweep:
        await trio.lowlevel.checkpoint()
        lines = self._lines
        now = lines.now_ms()
        if now < lines.checked_until:
            return StalledSweep()
        lines.checked_until = now + self._stalled_interval_ms * 19 // 20
        suspects, lines.suspects = lines.suspects, set()
        recovered: builtins.list[str] = []
        failed: builtins.list[str] = []
        for entry in [e for e in lines.active if e.id in suspects and e.locked_until <= now]:
            lines.let_go(entry)
            entry.stalled += 1
            if entry.stalled > self._max_stalled_count:
                entry.doomed = "job stalled more than allowable limit"
            (failed if entry.doomed else recovered).append(entry.id)
            entry.state = JobState.WAITING
            lines.wait.append(entry)
            lines.mark()
        lines.suspects = {entry.id for entry in lines.active}
        return StalledSweep(tuple(recovered), tuple(failed))

    async def progress(self, job: Job, value: Any) -> None:
        await trio.lowlevel.checkpoint()
        self._existing(job).progress = msgspec.json.decode(msgspec.json.encode(value))

    async def log(self, job: Job, line: str) -> None:
        await trio.lowlevel.checkpoint()
        entry = self._existing(job)
        entry.logs = [*entry.logs, line][-(entry.options.keep_logs or 1 << 30) :]

    def _existing(self, job: Job) -> Entry:
        return self._lines.jobs.get(job.id) or self._lines.held(job)

    # ---- the operators' side

    async def add(self, jobs: Sequence[NewJob]) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        for job in jobs:
            if job.parent is not None or job.has_children:
                raise Permanent("the queue in memory has no flows: use the one on Redis")
        return tuple(self._add(job) for job in jobs)

    def _add(self, job: NewJob) -> str:
        lines = self._lines
        now = lines.now_ms()
        number = f"{next(self._numbers)}"
        if job.id is not None and job.id in lines.jobs:
            return job.id
        job_id = job.id or number
        if job.deduplication_id is not None:
            known = lines.deduplication.get(job.deduplication_id)
            if known is not None and (known[1] is None or now < known[1]):
                return known[0]
            until = now + job.deduplication_ttl if job.deduplication_ttl else None
            lines.deduplication[job.deduplication_id] = (job_id, until)
        filled = {name: getattr(self._defaults, name) for name in _FILLED if getattr(job.options, name) is None}
        entry = Entry(
            id=job_id,
            name=job.name,
            data=msgspec.json.encode(job.data),
            options=msgspec.structs.replace(job.options, **filled),
            timestamp=job.timestamp if job.timestamp is not None else now,
            priority=job.options.priority,
            deduplication=job.deduplication_id,
        )
        lines.jobs[job_id] = entry
        if job.options.delay > 0:
            lines.put_off(entry, entry.timestamp + job.options.delay)
        else:
            lines.line_up(entry)
        return job_id

    async def counts(self) -> Counts:
        await trio.lowlevel.checkpoint()
        lines = self._lines
        return Counts(
            waiting=len(lines.wait),
            prioritized=len(lines.prioritized),
            active=len(lines.active),
            delayed=len(lines.delayed),
            completed=len(lines.completed),
            failed=len(lines.failed),
            is_paused=lines.paused,
        )

    async def get(self, job_id: str) -> JobView | None:
        await trio.lowlevel.checkpoint()
        entry = self._lines.jobs.get(job_id)
        return None if entry is None else entry.view(self._name)

    async def list(self, state: JobState, *, start: int = 0, limit: int = 50) -> tuple[JobView, ...]:
        await trio.lowlevel.checkpoint()
        lines = self._lines
        rows: dict[JobState, Sequence[Entry]] = {
            JobState.WAITING: [*reversed(lines.wait)],
            JobState.ACTIVE: [*reversed(lines.active)],
            JobState.PRIORITIZED: [lines.jobs[row[2]] for row in lines.prioritized],
            JobState.DELAYED: [lines.jobs[row[2]] for row in lines.delayed],
            JobState.COMPLETED: [*reversed(lines.completed.values())],
            JobState.FAILED: [*reversed(lines.failed.values())],
        }
        return tuple(entry.view(self._name) for entry in rows.get(state, ())[start : start + limit])

    async def requeue(self, job_ids: Sequence[str]) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        lines, moved = self._lines, []
        for job_id in dict.fromkeys(job_ids):
            entry = lines.failed.pop(job_id, None) or lines.completed.pop(job_id, None)
            if entry is not None:
                entry.attempts_made = entry.attempts_started = entry.stalled = 0
                entry.finished_on = entry.processed_on = entry.failed_reason = entry.return_value = None
                lines.line_up(entry)
                moved.append(job_id)
        return tuple(moved)

    async def promote(self, job_id: str) -> bool:
        await trio.lowlevel.checkpoint()
        entry = self._lines.jobs.get(job_id)
        if entry is None or entry.state is not JobState.DELAYED:
            return False
        self._lines.take_out(entry)
        self._lines.line_up(entry)
        return True

    async def remove(self, job_ids: Sequence[str]) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        now, removed = self._lines.now_ms(), []
        for job_id in job_ids:
            entry = self._lines.jobs.get(job_id)
            if entry is not None and (entry.token is None or entry.locked_until <= now):
                self._forget(entry)
                removed.append(job_id)
        return tuple(removed)

    def _forget(self, entry: Entry) -> None:
        self._lines.take_out(entry)
        del self._lines.jobs[entry.id]
        if self._lines.deduplication.get(entry.deduplication or "", ("",))[0] == entry.id:
            del self._lines.deduplication[entry.deduplication or ""]

    async def pause(self, paused: bool) -> None:
        await trio.lowlevel.checkpoint()
        self._lines.paused = paused
        self._lines.mark()

    async def priorities(self) -> Mapping[int, int]:
        await trio.lowlevel.checkpoint()
        found: dict[int, int] = {0: len(self._lines.wait)} if self._lines.wait else {}
        for priority, _, _ in self._lines.prioritized:
            found[priority] = found.get(priority, 0) + 1
        return found

    async def oldest_waiting(self) -> int | None:
        await trio.lowlevel.checkpoint()
        heads = [entry.timestamp for entry in [*self._lines.wait][-1:]]
        heads += [self._lines.jobs[row[2]].timestamp for row in self._lines.prioritized[:1]]
        return min(heads, default=None)

    async def logs(self, job_id: str, *, start: int = 0, limit: int = 100) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        entry = self._lines.jobs.get(job_id)
        return () if entry is None else tuple(entry.logs[start : start + limit])

    async def clean(self, state: JobState, *, grace_ms: int = 0, limit: int = 1000) -> tuple[str, ...]:
        before = self._lines.now_ms() - grace_ms
        views = await self.list(state, limit=1 << 30)
        old = [v.job.id for v in views if (v.finished_on or v.processed_on or v.job.timestamp) <= before]
        if state in (JobState.COMPLETED, JobState.FAILED):
            old.reverse()
        return await self.remove(old[:limit])

    async def update_data(self, job_id: str, data: Any) -> bool:
        await trio.lowlevel.checkpoint()
        entry = self._lines.jobs.get(job_id)
        if entry is not None:
            entry.data = msgspec.json.encode(data)
        return entry is not None

    async def reprioritize(self, job_id: str, priority: int) -> bool:
        await trio.lowlevel.checkpoint()
        entry = self._lines.jobs.get(job_id)
        if entry is None:
            return False
        entry.priority = priority
        if entry.state in (JobState.WAITING, JobState.PRIORITIZED):
            self._lines.take_out(entry)
            self._lines.line_up(entry)
        return True

    async def limit(self, *, concurrency: int | None, rate: tuple[int, int] | None) -> None:
        await trio.lowlevel.checkpoint()
        self._lines.concurrency, self._lines.rate = concurrency, rate
        self._lines.mark()

    async def drain(self, *, delayed: bool = False) -> None:
        await trio.lowlevel.checkpoint()
        lines = self._lines
        states = {JobState.WAITING, JobState.PRIORITIZED} | ({JobState.DELAYED} if delayed else set())
        for entry in [e for e in lines.jobs.values() if e.state in states]:
            self._forget(entry)
