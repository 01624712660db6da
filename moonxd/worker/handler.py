"""The consumer's handler: which kind of job it is, on which terms, and whether its type has a slot left."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import trio

from ..domain import event
from ..domain.errors import LeaseLost, Transient, single
from ..domain.job import Completed, Job, Outcome
from ..jobs import JOBS, ErrandType, JobType, ManyType, Terms
from .attempt import Attempts
from .desk import Away
from .many import Many, Progress
from .shares import Shares

log = logging.getLogger("moonxd.attempt")


class Handler:
    """`page` wallets of a job about many are begun together; `slots` are this worker's."""

    def __init__(self, attempts: Attempts, *, slots: int, page: int, progress: Progress) -> None:
        self._attempts = attempts
        self._slots = slots
        self._page = page
        self._progress = progress
        self.shares = Shares(slots, lambda: attempts.policy.terms)

    async def __call__(self, job: Job) -> Outcome:
        """Raises LeaseLost when the job is no longer ours to settle; every other error becomes an outcome."""
        kind = JOBS.get(job.name)
        if kind is None:
            return await self._attempts(job)
        delay = self.shares.delay(kind.name, job.id)
        if delay is not None:
            return self._attempts.postponed(delay)
        terms = self._attempts.policy.terms.get(kind.name, Terms())
        job = on_terms(job, terms)
        with self.shares.held(kind.name):
            if isinstance(kind, JobType):
                return await self._attempts(job)
            work = self._many(job, kind) if isinstance(kind, ManyType) else self._errand(job, kind)
            return await self._settled(job, work, terms.timeout_s or self._attempts.policy.timeout_s)

    async def _settled(self, job: Job, work: Callable[[], Awaitable[Outcome]], timeout: float) -> Outcome:
        try:
            with trio.move_on_after(timeout):
                return await work()
            error: Exception = Transient(f"the job took longer than {timeout:g} s and was stopped")
        except (LeaseLost, Away) as told:
            return self._attempts.away(job, told)
        except Exception as broke:
            error = single(broke)
            if isinstance(error, (LeaseLost, Away)):
                return self._attempts.away(job, error)
        return await self._attempts.failed(job, error)

    def _many(self, job: Job, kind: ManyType) -> Callable[[], Awaitable[Outcome]]:
        # A job about many wallets does not take more than half of what single ones have.
        at_once = max(1, min(self._page, self._slots // 2))
        return Many(self._attempts, job, kind, page=self._page, at_once=at_once, progress=self._progress).run

    def _errand(self, job: Job, kind: ErrandType) -> Callable[[], Awaitable[Outcome]]:
        async def run() -> Outcome:
            began = trio.current_time()
            env = self._attempts.env()
            found: dict[str, Any] = await kind.run(job.data, env, lambda step: self._attempts.step(job.id, step))
            took = round((trio.current_time() - began) * 1000)
            log.info("%s done", kind.name, extra={"job_id": job.id, "duration_ms": took})
            return Completed(event.JSON.encode({"jobId": job.id, "processingTime": took, **found}))

        return run


def on_terms(job: Job, terms: Terms) -> Job:
    """`job` with its type's attempts and backoff where its producer said nothing."""
    options, said = job.options, job.options.raw
    if terms.attempts is not None and "attempts" not in said:
        options = msgspec.structs.replace(options, attempts=terms.attempts)
    if terms.backoff is not None and "backoff" not in said:
        options = msgspec.structs.replace(options, backoff=terms.backoff)
    return job if options is job.options else msgspec.structs.replace(job, options=options)
