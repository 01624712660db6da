"""One job: add, look at, wait for, cancel, promote; and pages of them."""

from __future__ import annotations

import math
from datetime import UTC

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from ..api.messages import Accepted, Cancelled, EnqueueRequest, JobDetail, JobPage, Promoted
from ..cancelling import Canceller
from ..domain.errors import Transient
from ..domain.guard import counts_for_user
from ..domain.job import JobState, NewJob
from ..jobs import JOBS, JobType
from .deps import Deps
from .enqueue import new_job
from .errors import Refused, answer, conflict, invalid, not_found
from .request import integer, read_body, seconds
from .settled import Settlements
from .story import Story
from .views import job_detail, letter_detail

FINISHED = (JobState.COMPLETED, JobState.FAILED)
#: Most urgent for an operator first.
_ALL_STATES = (
    JobState.ACTIVE,
    JobState.FAILED,
    JobState.PRIORITIZED,
    JobState.WAITING,
    JobState.DELAYED,
    JobState.WAITING_CHILDREN,
    JobState.COMPLETED,
)
#: The ledger's copies of dead letters, beside the queue's own states.
DEAD = "dead"
MAX_WAIT_S = 60.0
#: How often a job that may run in another process is looked at while somebody waits for it.
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.1, 1.0


def canceller_of(deps: Deps, story: Story) -> Canceller:
    """Cancels as DELETE /jobs does; `story` hears of what was called off."""
    return Canceller(
        deps.queue_admin,
        worker=deps.worker,
        cancel_running=deps.cancel_running,
        ask=deps.ask_worker,
        called_off=story.called_off,
    )


class Jobs:
    """The handlers of /jobs."""

    def __init__(self, deps: Deps, story: Story, settlements: Settlements, stopping: trio.Event) -> None:
        self._deps = deps
        self._story = story
        self._settlements = settlements
        self._stopping = stopping
        self._canceller = canceller_of(deps, story)

    async def add(self, request: Request) -> Response:
        ask = await read_body(request, EnqueueRequest)
        job = new_job(ask, int(self._deps.now() * 1000), self._deps.terms())
        if job.id is not None:
            there = await self._deps.queue_admin.get(job.id)
            if there is not None:
                return answer(Accepted(job_id=job.id, state=there.state.value, existing=True), 202)
        await self._check_limit(ask)
        try:
            (job_id,) = await self._deps.queue_admin.add([job])
        except Transient as error:
            unsure = "whether it was added is not known: look before you repeat it, or give a jobId to repeat it safely"
            raise Refused(503, "unavailable", str(error), unsure, retry_after=error.retry_after or 1) from error
        await self._story.added(job, job_id)
        return answer(Accepted(job_id=job_id, state=_first_state(job).value), 202)

    async def _check_limit(self, ask: EnqueueRequest) -> None:
        """Only looks: what counts is the admission, so that jobs from elsewhere and retries are counted alike."""
        if self._deps.frees_at is None or not counts_for_user({"metadata": ask.metadata}):
            return
        if ask.user_id is None or not isinstance(JOBS[ask.type], JobType):
            return  # a job about many wallets does not count against its users
        free = await self._deps.frees_at(ask.user_id)
        wait = 0.0 if free is None else free.timestamp() - self._deps.now()
        if free is not None and wait > ask.delay / 1000:
            raise Refused(
                429,
                "rate-limited",
                f"user {ask.user_id[:255]!r} has used up the syncs of this window; the next one is free at "
                f"{free.astimezone(UTC).isoformat(timespec='seconds')}",
                f"try again in {math.ceil(wait)} s, or give a delay of at least that",
                retry_after=wait,
            )

    async def show(self, request: Request) -> Response:
        detail = await self._find(request.path_params["job_id"])
        if self._deps.upkeep is not None:
            detail = msgspec.structs.replace(detail, logs=await self._deps.upkeep.logs(detail.job_id))
        return answer(detail)

    async def page(self, request: Request) -> Response:
        limit = integer(request, "limit", 50, low=1, high=1000)
        start = integer(request, "start", 0, low=0, high=10_000_000)
        given = request.query_params.get("state")
        if given == DEAD:
            jobs = await self._dead(start, limit)
        elif given is None:
            jobs = await self._every_state(start, limit)
        else:
            jobs = await self._of_state(_state(given), start, limit)
        return answer(JobPage(state=given or "all", start=start, jobs=jobs))

    async def wait(self, request: Request) -> Response:
        """The job as soon as it has ended, or as it is after `timeout` seconds."""
        job_id = request.path_params["job_id"]
        deadline = trio.current_time() + seconds(request, "timeout", 30.0, high=MAX_WAIT_S)
        look, detail = _FIRST_LOOK_S, None
        try:
            while True:
                ended = self._settlements.watch(job_id)
                detail = await self._find_again(job_id, detail)
                if detail.state in FINISHED or trio.current_time() >= deadline or self._stopping.is_set():
                    return answer(detail)
                with trio.move_on_at(min(deadline, trio.current_time() + look)):
                    await _either(ended, self._stopping)
                look = min(look * 2, _LONGEST_LOOK_S)
        finally:
            self._settlements.forget(job_id)

    async def cancel(self, request: Request) -> Response:
        """Removes a job that waits, cancels one that runs, on whatever worker; 409 says why neither is possible."""
        job_id = request.path_params["job_id"]
        done = await self._canceller.cancel(job_id)
        if done.is_cancelled and done.before is not None:
            return answer(Cancelled(job_id=job_id, cancelled=True, state=done.before.value))
        if done.why:
            raise conflict(done.why, done.hint)
        detail = await self._find(job_id)
        hint = "use requeue to run it again" if detail.state == JobState.FAILED else None
        raise conflict(f"job {detail.job_id} has already ended ({detail.state})", hint)

    async def promote(self, request: Request) -> Response:
        job_id = request.path_params["job_id"]
        promoted = await self._deps.queue_admin.promote(job_id)
        state = (await self._find(job_id)).state
        if promoted:
            return answer(Promoted(job_id=job_id, state=state))
        raise conflict(f"job {job_id} is {state}, not delayed", "only a delayed job can be promoted")

    async def _find(self, job_id: str) -> JobDetail:
        """From the queue; else what ended here a moment ago; else the ledger's copy of the dead letter."""
        view = await self._deps.queue_admin.get(job_id)
        if view is not None:
            return job_detail(view)
        recent = self._settlements.recent(job_id)
        if recent is not None:
            return recent
        letter = await self._deps.letters.letter(self._deps.queue_name, job_id) if self._deps.letters else None
        if letter is not None:
            return letter_detail(letter)
        raise not_found(
            f"there is no job {job_id[:255]!r} in queue {self._deps.queue_name!r}",
            "finished jobs are removed after a while; operations lists what was synced",
        )

    async def _find_again(self, job_id: str, seen: JobDetail | None) -> JobDetail:
        try:
            return await self._find(job_id)
        except Refused as error:
            if error.status != 404 or seen is None:
                raise
            message = f"job {job_id} is gone: it ended on another worker and was not kept, or was removed"
            raise Refused(410, "gone", message, "operations says what became of the wallet") from error

    async def _of_state(self, state: JobState, start: int, limit: int) -> tuple[JobDetail, ...]:
        views = await self._deps.queue_admin.list(state, start=start, limit=limit)
        return tuple(job_detail(view) for view in views)

    async def _every_state(self, start: int, limit: int) -> tuple[JobDetail, ...]:
        found: list[JobDetail] = []
        for state in _ALL_STATES:
            if len(found) < start + limit:
                found += await self._of_state(state, 0, start + limit - len(found))
        return tuple(found[start : start + limit])

    async def _dead(self, start: int, limit: int) -> tuple[JobDetail, ...]:
        if self._deps.letters is None:
            raise Refused(404, "not-found", "this daemon keeps no copies of dead letters")
        letters = await self._deps.letters.letters(self._deps.queue_name, limit=start + limit)
        return tuple(letter_detail(letter) for letter in letters[start:])


async def _either(one: trio.Event, other: trio.Event) -> None:
    """Until one of two events is set."""
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait, one)
        nursery.start_soon(wait, other)


def _first_state(job: NewJob) -> JobState:
    if job.options.delay:
        return JobState.DELAYED
    return JobState.PRIORITIZED if job.options.priority else JobState.WAITING


def _state(given: str) -> JobState:
    known = [state.value for state in _ALL_STATES]
    if given.replace("_", "-") not in known:
        raise invalid(f"there is no job state {given[:40]!r}", f"use one of: {', '.join([*known, DEAD])}")
    return JobState(given.replace("_", "-"))
