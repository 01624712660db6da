"""The queue: jobs, their states and orders to the fleet that works on them. The rules are those of the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..domain.fleet import Answer, Heartbeat, Order
from ..domain.job import Claim, Counts, Job, JobState, JobView, NewJob, Outcome, StalledSweep


class Queue(Protocol):
    """The worker's side of one queue."""

    @property
    def name(self) -> str: ...

    async def claim(self) -> Claim:
        """Take the next job under a fresh lock, or learn when to look again. One round trip."""
        ...

    async def settle(self, job: Job, outcome: Outcome, *, fetch: bool) -> Claim | None:
        """End our hold on `job`. With `fetch` the same round trip may claim the next job (None: it did not look).

        Raises LeaseLost when the lock is no longer ours; the queue is unchanged then. Safe to repeat when the
        connection broke midway: the second call finds the work done and says so by LeaseLost.
        """
        ...

    async def wait(self, timeout: float) -> bool:
        """True when the queue's marker says there may be work, False after `timeout` seconds. Never polls."""
        ...

    async def extend(self, jobs: Sequence[Job]) -> tuple[str, ...]:
        """Renew the locks of `jobs`; returns the ids whose lock was lost."""
        ...

    async def recover_stalled(self) -> StalledSweep:
        """Put back jobs whose worker stopped renewing, fail those that stalled too often."""
        ...

    async def progress(self, job: Job, value: Any) -> None:
        """Publish progress (any JSON value) to whoever listens to the queue's events."""
        ...

    async def log(self, job: Job, line: str) -> None:
        """Append a line to the job's own log."""
        ...


class QueueAdmin(Protocol):
    """The producers' and operators' side of one queue."""

    async def add(self, jobs: Sequence[NewJob]) -> tuple[str, ...]:
        """Add jobs in order; the ids they have now. An id that exists already is returned, not added twice."""
        ...

    async def counts(self) -> Counts: ...

    async def get(self, job_id: str) -> JobView | None: ...

    async def list(self, state: JobState, *, start: int = 0, limit: int = 50) -> tuple[JobView, ...]:
        """A page of one state; waiting-like states oldest first, finished ones newest first."""
        ...

    async def requeue(self, job_ids: Sequence[str]) -> tuple[str, ...]:
        """Failed or completed jobs back to waiting, attempts reset, in batches; the ids that were moved."""
        ...

    async def promote(self, job_id: str) -> bool:
        """A delayed job becomes due now. False when it is not delayed."""
        ...

    async def remove(self, job_ids: Sequence[str]) -> tuple[str, ...]:
        """Remove jobs that nobody holds (children included); the ids that were removed."""
        ...

    async def pause(self, paused: bool) -> None:
        """Pause or resume the queue for every worker of every version; resuming strands no job."""
        ...


class QueueUpkeep(Protocol):
    """What operators ask of a queue less often."""

    async def priorities(self) -> Mapping[int, int]:
        """How many jobs wait per priority (0: none given); priorities without jobs are absent."""
        ...

    async def oldest_waiting(self) -> int | None:
        """Epoch ms at which the job that is next in line was added; None when nothing waits."""
        ...

    async def logs(self, job_id: str, *, start: int = 0, limit: int = 100) -> tuple[str, ...]:
        """Lines of a job's own log, oldest first."""
        ...

    async def clean(self, state: JobState, *, grace_ms: int = 0, limit: int = 1000) -> tuple[str, ...]:
        """Remove up to `limit` jobs that have been in `state` for longer than `grace_ms`; their ids."""
        ...

    async def update_data(self, job_id: str, data: Any) -> bool:
        """Replace a job's payload. False when there is no such job."""
        ...

    async def reprioritize(self, job_id: str, priority: int) -> bool:
        """Give a job another priority (0: none, served first). False when there is no such job."""
        ...

    async def limit(self, *, concurrency: int | None, rate: tuple[int, int] | None) -> None:
        """Bound the queue for all its workers: jobs at once, and (jobs, per ms). None lifts a bound."""
        ...

    async def drain(self, *, delayed: bool = False) -> None:
        """Remove every waiting job (and delayed ones); those being worked on are left alone."""
        ...


class Election(Protocol):
    """Who of the fleet does something that only one may do. The holder keeps it for as long as it asks in time."""

    async def hold(self, office: str, ttl_s: float) -> bool:
        """Take or keep `office` for `ttl_s` seconds; False: another one has it. Raises Transient when nobody knows."""
        ...

    async def leave(self, office: str) -> None:
        """Let go at once what we hold; nothing happens to what another one holds."""
        ...


class Fleet(Protocol):
    """The workers of one queue, on any number of hosts: who lives, and orders from one to another."""

    async def beat(self, heartbeat: Heartbeat, ttl_s: float) -> None:
        """Say how a worker does; it counts as gone `ttl_s` later."""
        ...

    async def leave(self, worker: str) -> None:
        """Forget a worker that goes."""
        ...

    async def heartbeats(self) -> tuple[Heartbeat, ...]:
        """The last word of every living worker, by name."""
        ...

    async def ask(self, worker: str, order: Order, timeout: float) -> Answer | None:
        """Send an order; None when no answer came within `timeout` seconds (it may have been carried out)."""
        ...

    async def next_order(self, worker: str) -> Order | None:
        """Wait for an order to `worker`; None now and then, without one."""
        ...

    async def answer(self, order: Order, answer: Answer) -> None: ...
