"""A QueueAdmin small enough to read, for as long as the control plane is tested alone."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from moonxd.domain.errors import Transient
from moonxd.domain.job import Counts, Job, JobState, JobView, NewJob


class FakeQueue:
    def __init__(self) -> None:
        self.jobs: dict[str, JobView] = {}
        self.paused = False
        self.away = False

    def put(self, view: JobView) -> None:
        self.jobs[view.job.id] = view

    def become(self, job_id: str, state: JobState, **changes: object) -> None:
        self.jobs[job_id] = msgspec.structs.replace(self.jobs[job_id], state=state, **changes)

    async def add(self, jobs: Sequence[NewJob]) -> tuple[str, ...]:
        self._check()
        return tuple(self._add(job) for job in jobs)

    def _add(self, new: NewJob) -> str:
        job_id = new.id or str(len(self.jobs) + 1)
        if job_id not in self.jobs:
            state = (
                JobState.DELAYED
                if new.options.delay
                else JobState.PRIORITIZED
                if new.options.priority
                else JobState.WAITING
            )
            job = Job(
                queue="sync-jobs",
                id=job_id,
                name=new.name,
                data=msgspec.json.encode(new.data),
                options=new.options,
                timestamp=new.timestamp or 0,
            )
            self.put(JobView(job=job, state=state))
        return job_id

    async def counts(self) -> Counts:
        return Counts()

    async def get(self, job_id: str) -> JobView | None:
        self._check()
        return self.jobs.get(job_id)

    async def list(self, state: JobState, *, start: int = 0, limit: int = 50) -> tuple[JobView, ...]:
        self._check()
        return tuple([view for view in self.jobs.values() if view.state is state][start : start + limit])

    async def requeue(self, job_ids: Sequence[str]) -> tuple[str, ...]:
        moved = tuple(
            one for one in job_ids if one in self.jobs and self.jobs[one].state in (JobState.FAILED, JobState.COMPLETED)
        )
        for one in moved:
            self.become(one, JobState.WAITING, failed_reason=None)
        return moved

    async def promote(self, job_id: str) -> bool:
        view = self.jobs.get(job_id)
        if view is None or view.state is not JobState.DELAYED:
            return False
        self.become(job_id, JobState.WAITING)
        return True

    async def remove(self, job_ids: Sequence[str]) -> tuple[str, ...]:
        gone = tuple(one for one in job_ids if one in self.jobs and self.jobs[one].state is not JobState.ACTIVE)
        for one in gone:
            del self.jobs[one]
        return gone

    async def pause(self, paused: bool) -> None:
        self.paused = paused

    def _check(self) -> None:
        if self.away:
            raise Transient("Redis at localhost:6379 does not answer", retry_after=2.5)
