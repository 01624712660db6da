"""Cancelling a job wherever it is: one that waits is removed, one that runs is stopped, on whatever worker it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import trio

from .domain.fleet import Answer
from .domain.job import Job, JobState, JobView
from .ports import QueueAdmin

_TRIES = 3
_PAUSE_S = 0.05

#: Order another worker of the fleet: (worker, verb, what about); None: it gave no answer in time.
Ask = Callable[[str, str, str], Awaitable[Answer | None]]


class Cancellation(msgspec.Struct, frozen=True, kw_only=True):
    """`before` is the state that the job was found in, None: no such job. `why` not, and a `hint` what to do."""

    before: JobState | None
    is_cancelled: bool = False
    why: str = ""
    hint: str | None = None


class Canceller:
    """`worker` is this process's name, `cancel_running` cancels a job that runs in it (False: it does not).

    `called_off` hears of jobs that were removed before anybody ran them.
    """

    def __init__(
        self,
        queue: QueueAdmin,
        *,
        worker: str,
        cancel_running: Callable[[str], bool],
        ask: Ask | None,
        called_off: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self._queue = queue
        self._worker = worker
        self._cancel_running = cancel_running
        self._ask = ask
        self._called_off = called_off

    async def cancel(self, job_id: str) -> Cancellation:
        """Raises Transient when the queue is away."""
        before: JobState | None = None
        for _ in range(_TRIES):
            view = await self._queue.get(job_id)
            if view is None or view.state in (JobState.COMPLETED, JobState.FAILED):
                return Cancellation(before=view.state if view else None)
            before = view.state
            done = await self._cancelled(view)
            if done.is_cancelled or done.why:
                return done
            # It has just ended, or is between two states: the next look tells.
            await trio.sleep(_PAUSE_S)
        why = f"it is too late to cancel job {job_id}: what it found is being written"
        return Cancellation(before=before, why=why, hint="look at it again")

    async def _cancelled(self, view: JobView) -> Cancellation:
        if view.state is not JobState.ACTIVE:
            is_removed = bool(await self._queue.remove([view.job.id]))
            if is_removed:
                self._called_off(view.job)
            return Cancellation(before=view.state, is_cancelled=is_removed)
        if self._cancel_running(view.job.id):
            return Cancellation(before=view.state, is_cancelled=True)
        return await self._cancelled_elsewhere(view)

    async def _cancelled_elsewhere(self, view: JobView) -> Cancellation:
        worker, found = view.processed_by, Cancellation(before=view.state)
        if worker == self._worker:
            return found
        if worker is None or self._ask is None:
            where = f"worker {worker!r}" if worker else "another worker"
            return msgspec.structs.replace(
                found, why=f"job {view.job.id} is running on {where}", hint="cancel it on the daemon that runs it"
            )
        reply = await self._ask(worker, "cancel", view.job.id)
        if reply is None:
            return msgspec.structs.replace(
                found,
                why=f"job {view.job.id} is running on worker {worker!r}, which does not answer",
                hint="if that worker is gone the job comes back by itself once its lock has run out: cancel it then",
            )
        return msgspec.structs.replace(found, is_cancelled=reply.done)
