"""What the control plane does to jobs, told to whoever reads the events: added, called off, a portfolio was viewed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from ..domain import event
from ..domain.errors import Permanent
from ..domain.job import Job, NewJob
from ..domain.ledger import CANCELLED
from ..domain.withdrawal import Member, members, queued, withdrawal
from ..jobs import JOBS, JobType, ManyType
from ..version import VERSION
from .deps import Deps

#: Viewers remembered, so that a dashboard that asks every second costs nothing.
_VIEWS = 10_000


class Story:
    """Neither waits nor fails: what is not told here the job's own admission tells."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._views: OrderedDict[tuple[str, str], int] = OrderedDict()

    async def added(self, given: NewJob, job_id: str) -> None:
        if self._deps.news is None:
            return
        self._deps.news.tell(queued(_members(await self._job(given, job_id)), VERSION))

    async def _job(self, given: NewJob, job_id: str) -> Job | None:
        """The job as it lies in the queue. One with an id of its own may be an older one: its time tells them apart."""
        if given.id is not None or given.timestamp is None:
            view = await self._deps.queue_admin.get(job_id)
            return None if view is None else view.job
        return Job(
            queue=self._deps.queue_name,
            id=job_id,
            name=given.name,
            data=msgspec.json.encode(given.data),
            options=given.options,
            timestamp=given.timestamp,
        )

    def called_off(self, job: Job) -> None:
        """`job` was taken out of the queue before anybody ran it."""
        if self._deps.news is None:
            return
        at_ms = int(self._deps.now() * 1000)
        self._deps.news.withdraw(
            [
                withdrawal(one, task, reason=CANCELLED, version=VERSION, at_ms=at_ms, worker_id=self._deps.worker)
                for one, task in _members(job)
            ]
        )

    def viewed(self, user_id: str, wallet: str) -> None:
        """The user looked at the wallet's portfolio: somebody is there."""
        at_ms = int(self._deps.now() * 1000)
        minute = at_ms // event.VIEW_MS
        if self._deps.news is None or self._views.get((user_id, wallet)) == minute:
            return
        self._views[user_id, wallet] = minute
        self._views.move_to_end((user_id, wallet))
        if len(self._views) > _VIEWS:
            self._views.popitem(last=False)
        self._deps.news.tell([event.viewed(user_id, wallet, version=VERSION, at_ms=at_ms)])
        if self._deps.seen is not None:
            self._deps.seen(user_id, wallet)


def _members(job: Job | None) -> Sequence[Member]:
    """The operations that a job stands for; none where it is about no wallet, or nobody can read it."""
    kind = JOBS.get(job.name) if job is not None else None
    try:
        if job is not None and isinstance(kind, JobType):
            return members(job, [kind.parse(job.data)], is_whole=True)
        if job is not None and isinstance(kind, ManyType):
            return members(job, kind.parse(job.data).wallets, is_whole=False)
    except Permanent:
        pass
    return ()
