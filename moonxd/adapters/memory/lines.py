"""The state of a queue in memory: its jobs, the lines they stand in, and the marker."""

from __future__ import annotations

import time
from bisect import insort
from collections import deque
from typing import Any

import msgspec
import trio

from moonxd.domain.errors import LeaseLost
from moonxd.domain.job import Job, JobOptions, JobState, JobView, Keep


class Entry(msgspec.Struct, eq=False):
    """One job and everything that changes about it. Times are epoch milliseconds."""

    id: str
    name: str
    data: bytes
    options: JobOptions
    timestamp: int
    priority: int
    state: JobState = JobState.WAITING
    attempts_made: int = 0
    attempts_started: int = 0
    stalled: int = 0
    doomed: str | None = None
    token: str | None = None
    locked_until: int = 0
    due_at: int = 0
    processed_on: int | None = None
    processed_by: str | None = None
    finished_on: int | None = None
    failed_reason: str | None = None
    return_value: bytes | None = None
    progress: Any = None
    stack: tuple[str, ...] = ()
    logs: list[str] = []
    deduplication: str | None = None

    def job(self, queue: str, token: str = "") -> Job:
        return Job(
            queue=queue,
            id=self.id,
            name=self.name,
            data=self.data,
            options=self.options,
            timestamp=self.timestamp,
            attempts_made=self.attempts_made,
            attempts_started=self.attempts_started,
            stalled=self.stalled,
            stack=self.stack,
            doomed=self.doomed,
            token=token,
        )

    def view(self, queue: str) -> JobView:
        return JobView(
            job=self.job(queue),
            state=self.state,
            progress=self.progress,
            processed_on=self.processed_on,
            finished_on=self.finished_on,
            failed_reason=self.failed_reason,
            stack=self.stack,
            return_value=None if self.return_value is None else msgspec.json.decode(self.return_value),
            processed_by=self.processed_by,
            due_at=self.due_at if self.state is JobState.DELAYED else None,
        )


class Lines:
    """`wait` is served at its right end, the sorted lines at their left one. Everything happens between checkpoints."""

    def __init__(self) -> None:
        self.jobs: dict[str, Entry] = {}
        self.wait: deque[Entry] = deque()
        self.prioritized: list[tuple[int, int, str]] = []
        self.delayed: list[tuple[int, int, str]] = []
        self.active: deque[Entry] = deque()
        self.completed: dict[str, Entry] = {}
        self.failed: dict[str, Entry] = {}
        self.suspects: set[str] = set()
        #: Deduplication id -> job id, and until when (epoch ms; None: until the job is done).
        self.deduplication: dict[str, tuple[str, int | None]] = {}
        self.paused = False
        self.concurrency: int | None = None
        self.rate: tuple[int, int] | None = None
        self.rate_window: tuple[int, int] = (0, 0)
        self.checked_until = 0
        self._sequence = 0
        self._epoch: float | None = None
        self._marked = False
        self._news = trio.Event()

    def now(self) -> float:
        """Unix seconds that pass as trio's clock does, so that tests may jump."""
        if self._epoch is None:
            self._epoch = time.time() - trio.current_time()
        return self._epoch + trio.current_time()

    def now_ms(self) -> int:
        return round(self.now() * 1000)

    def sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    # ---- the marker

    def mark(self) -> None:
        if not self.paused:
            self._marked = True
            self.tell()

    def tell(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    async def marked(self, timeout: float) -> bool:
        deadline = trio.current_time() + timeout
        while not self._marked:
            due = self.delayed[0][0] / 1000 - self.now() + trio.current_time() if self.delayed else float("inf")
            until = min(deadline, due)
            with trio.move_on_at(until):
                await self._news.wait()
                continue
            return due <= deadline
        self._marked = False
        return True

    # ---- moving

    def line_up(self, entry: Entry, *, first: bool = False) -> None:
        """Into `wait` or among the prioritized; `first` puts it before its equals."""
        if entry.priority:
            entry.state = JobState.PRIORITIZED
            insort(self.prioritized, (entry.priority, 0 if first else self.sequence(), entry.id))
        else:
            entry.state = JobState.WAITING
            (self.wait.append if first or entry.options.lifo else self.wait.appendleft)(entry)
        self.mark()

    def put_off(self, entry: Entry, until_ms: int) -> None:
        entry.state, entry.due_at = JobState.DELAYED, until_ms
        insort(self.delayed, (until_ms, self.sequence(), entry.id))
        self.tell()

    def promote_due(self) -> None:
        now = self.now_ms()
        while self.delayed and self.delayed[0][0] <= now:
            self.line_up(self.jobs[self.delayed.pop(0)[2]])

    def next_entry(self) -> Entry | None:
        if self.wait:
            return self.wait.pop()
        return self.jobs[self.prioritized.pop(0)[2]] if self.prioritized else None

    def held(self, job: Job) -> Entry:
        """The entry of a job that its worker believes to hold. Raises LeaseLost."""
        entry = self.jobs.get(job.id)
        if entry is None:
            raise LeaseLost(f"job {job.id} is not ours any more: it does not exist any more")
        if entry.token is None or entry.locked_until <= self.now_ms():
            raise LeaseLost(f"job {job.id} is not ours any more: its lock expired")
        if entry.token != job.token:
            raise LeaseLost(f"job {job.id} is not ours any more: another worker holds it")
        return entry

    def let_go(self, entry: Entry) -> None:
        entry.token = None
        self.active.remove(entry)
        self.suspects.discard(entry.id)

    def finish(self, entry: Entry, state: JobState, keep: Keep | None) -> None:
        entry.state, entry.finished_on = state, self.now_ms()
        entry.attempts_made += 1
        held = self.deduplication.get(entry.deduplication or "")
        if entry.deduplication and held is not None and held[0] == entry.id and held[1] is None:
            del self.deduplication[entry.deduplication]
        done = self.completed if state is JobState.COMPLETED else self.failed
        done[entry.id] = entry
        if keep is not None:
            self._trim(done, keep)

    def _trim(self, done: dict[str, Entry], keep: Keep) -> None:
        oldest = self.now_ms() - keep.age_s * 1000 if keep.age_s is not None else None
        for job_id in [e.id for e in done.values() if oldest is not None and (e.finished_on or 0) <= oldest]:
            del done[job_id], self.jobs[job_id]
        while keep.count is not None and len(done) > keep.count:
            job_id = next(iter(done))
            del done[job_id], self.jobs[job_id]

    def take_out(self, entry: Entry) -> None:
        """Out of whatever line it stands in."""
        if entry.state is JobState.WAITING:
            self.wait.remove(entry)
        elif entry.state is JobState.ACTIVE:
            self.active.remove(entry)
        else:
            self.prioritized = [row for row in self.prioritized if row[2] != entry.id]
            self.delayed = [row for row in self.delayed if row[2] != entry.id]
            self.completed.pop(entry.id, None)
            self.failed.pop(entry.id, None)
