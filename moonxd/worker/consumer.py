"""Takes jobs from a queue and runs them: N long-lived slots, one dispatcher that claims for the idle ones.

A busy slot ends its job and gets the next in the same call. Only an idle slot needs the dispatcher, which claims as
long as there is work, then waits on the queue's marker: an idle worker does nothing else. Rules:

    a job that was claimed is settled, handed back, or its lock is lost: it is never forgotten
    the handler's errors are outcomes, Redis being away is patience: neither ends a slot
    stopping is: claim no more, wait, cancel what is left, hand it back
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from ..domain.errors import LeaseLost, MoonxdError, Transient, single
from ..domain.job import Backoff, Claim, Failed, Job, Outcome, Release
from ..domain.retry import after_failure
from ..ports import Queue
from .dispatch import Dispatcher
from .locks import keep_locks, watch_deadlines
from .slots import Running, Slot, Tally, Verdict

log = logging.getLogger("moonxd.consumer")

Handler = Callable[[Job], Awaitable[Outcome]]
#: Seconds that handing jobs back may take when we are cancelled.
HAND_BACK_S = 2.0
#: Seconds that cancelled handlers may take to clean up before a drain goes on without them.
UNWIND_S = 10.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0
_AT_ONCE = Backoff("fixed", 0)


def _nothing(*_: Any) -> None:
    return None


class Consumer:
    """`handler(job)` gives the outcome; LeaseLost from it means that the job is not ours to settle.

    `slots` jobs run at a time; `lock_s` is the life of the queue's locks; `job_timeout_s` bounds a handler (None: no
    bound here). Jobs that are doomed never reach the handler: `doomed(job)` decides their outcome, by default
    Failed with the reason. `on_started(job)` and `on_settled(job, outcome, seconds)` are told what happens, the
    seconds being those of the handler; an outcome of None says that the job was lost to somebody else. They must not
    block. `now` gives unix seconds, `rand` [0, 1) for jitter.
    """

    def __init__(
        self,
        queue: Queue,
        handler: Handler,
        *,
        slots: int,
        lock_s: float = 30.0,
        job_timeout_s: float | None = None,
        doomed: Handler | None = None,
        on_started: Callable[[Job], None] = _nothing,
        on_settled: Callable[[Job, Outcome | None, float], None] = _nothing,
        rand: Callable[[], float] = random.random,
        now: Callable[[], float] = time.time,
    ) -> None:
        if slots < 1:
            raise ValueError(f"a consumer needs at least one slot, not {slots}")
        self._queue = queue
        self._handler = handler
        self._doomed = doomed
        self._lock_s = lock_s
        self._job_timeout_s = job_timeout_s
        self._on_started = on_started
        self._on_settled = on_settled
        self._rand = rand
        self._slots = [Slot() for _ in range(slots)]
        self._dispatcher = Dispatcher(queue, now)
        self._alive = False
        self.tally = Tally()

    # ---- life

    async def run(self, ready: Callable[[], None] = _nothing) -> None:
        """Work until cancelled; jobs that still run then are cancelled and handed back, within about HAND_BACK_S."""
        self._dispatcher.reset()
        for slot in self._slots:
            slot.drop()
        self._alive = True
        try:
            async with trio.open_nursery() as nursery:
                for slot in self._slots:
                    nursery.start_soon(self._live, slot)
                nursery.start_soon(keep_locks, self._queue, self._slots, self._lock_s)
                if self._job_timeout_s is not None:
                    nursery.start_soon(watch_deadlines, self._slots, self._job_timeout_s)
                nursery.start_soon(self._dispatcher.run)
                ready()
        finally:
            self._alive = False
            await self._hand_back_unplaced()

    async def drain(self, timeout_s: float) -> None:
        """Claim no more, wait up to `timeout_s` for running jobs, then cancel them and hand them back.

        Returns when no job is held, or UNWIND_S after the cancellation. The consumer stays so (run() goes on, idle)
        until it is cancelled.
        """
        self._dispatcher.close()
        if not self._alive:
            return
        with trio.move_on_after(timeout_s):
            await self._dispatcher.until_idle(len(self._slots))
        for slot in self._slots:
            slot.stop(Verdict.DRAINED)
        with trio.move_on_after(UNWIND_S):
            await self._dispatcher.until_idle(len(self._slots))

    def pause(self) -> None:
        """This worker claims no more; running jobs go on."""
        self._dispatcher.pause()

    def resume(self) -> None:
        self._dispatcher.resume()

    @property
    def is_paused(self) -> bool:
        return self._dispatcher.paused

    def cancel(self, job_id: str) -> bool:
        """Stop a running job for good: it fails as cancelled by an operator. False when it does not run here."""
        return any(slot.stop(Verdict.CANCELLED) for slot in self._slots if slot.job and slot.job.id == job_id)

    def is_cancelled(self, job_id: str) -> bool:
        """Whether the job is being stopped because of cancel(), as opposed to a drain or a lost lock."""
        return any(s.verdict is Verdict.CANCELLED for s in self._slots if s.job and s.job.id == job_id)

    @property
    def running(self) -> tuple[Running, ...]:
        """The jobs in the slots."""
        return tuple(view for slot in self._slots if (view := slot.view()) is not None)

    @property
    def busy(self) -> int:
        """Slots that hold a job."""
        return sum(slot.job is not None for slot in self._slots)

    # ---- one slot

    async def _live(self, slot: Slot) -> None:
        try:
            while True:
                slot.verdict = None
                try:
                    with trio.CancelScope() as slot.scope:
                        await self._serve(slot)
                except Exception as error:
                    slot.running = False
                    slot.outcome = self._failure(slot, error)
                slot.running = False
                if slot.job is not None:
                    await self._end(slot, slot.job)
        finally:
            if slot.job is not None:
                outcome = slot.outcome or self._by_verdict(slot, slot.job) or Release()
                await self._hand_back(slot.job, outcome, slot.started)
                slot.drop()

    async def _serve(self, slot: Slot) -> None:
        """Job after job, until the scope was cancelled: then slot.job, and its outcome if there is one, are left."""
        while True:
            if slot.job is None:
                await self._dispatcher.park(slot)
            job = slot.job
            assert job is not None
            slot.outcome = await self._attempt(slot, job)
            if slot.scope.cancel_called:
                return
            await self._settle(slot, job, slot.outcome)

    async def _attempt(self, slot: Slot, job: Job) -> Outcome | None:
        """The job's outcome; None when it is not ours to settle."""
        self.tally.claimed += 1
        slot.started = trio.current_time()
        self._say(self._on_started, job)
        slot.running = True
        try:
            if job.doomed is None:
                return await self._handler(job)
            return Failed(job.doomed) if self._doomed is None else await self._doomed(job)
        except LeaseLost:
            return None
        except Exception as error:
            return self._failure(slot, error)
        finally:
            slot.running = False

    def _failure(self, slot: Slot, error: Exception) -> Outcome | None:
        """A handler should not raise; when it does the job is treated as any failed attempt."""
        job, inner = slot.job, single(error)
        if job is None or isinstance(inner, LeaseLost):
            return None
        if slot.verdict is not None:
            return None  # what a stopped handler raised beside its cancellation is not why it ended
        if not isinstance(inner, MoonxdError):
            log.error("the handler of job %s broke", job.id, exc_info=inner, extra={"job_id": job.id})
        return self._retried(job, inner)

    def _retried(self, job: Job, error: Exception) -> Outcome:
        return after_failure(
            error,
            attempts_made=job.attempts_made,
            attempts=job.options.attempts or 1,
            backoff=job.options.backoff or _AT_ONCE,
            rand=self._rand(),
        )

    async def _end(self, slot: Slot, job: Job) -> None:
        """After the scope fired: the verdict decides, unless the handler had an answer all the same."""
        if slot.outcome is None:
            slot.outcome = self._by_verdict(slot, job)
        await self._settle(slot, job, slot.outcome)

    def _by_verdict(self, slot: Slot, job: Job) -> Outcome | None:
        if slot.verdict is Verdict.TIMEOUT:
            return self._retried(job, Transient(f"it ran longer than {self._job_timeout_s:g} s and was stopped"))
        if slot.verdict is Verdict.CANCELLED:
            return Failed("cancelled by an operator")
        return Release() if slot.verdict is Verdict.DRAINED else None

    # ---- settling

    async def _settle(self, slot: Slot, job: Job, outcome: Outcome | None) -> None:
        """Tell the queue, and take the next job if it hands one out."""
        asked = ended = trio.current_time()
        claim: Claim | None = None
        if outcome is not None:
            try:
                claim = await self._queue.settle(job, outcome, fetch=self._dispatcher.is_open)
            except LeaseLost as error:
                log.warning("%s", error, extra={"job_id": job.id})
                outcome = None
            except MoonxdError as error:
                asked, claim, outcome = await self._settle_patiently(slot, job, outcome, error)
        if claim is not None and claim.job is not None:
            slot.take(claim.job, asked)
        else:
            slot.drop()
        self._dispatcher.heard(claim)
        self.tally.count(outcome)
        self._say(self._on_settled, job, outcome, ended - slot.started)

    def _say(self, hook: Callable[..., None], job: Job, *more: Any) -> None:
        try:
            hook(job, *more)
        except Exception:
            log.exception("a listener broke on job %s", job.id, extra={"job_id": job.id})

    async def _settle_patiently(
        self, slot: Slot, job: Job, outcome: Outcome, error: MoonxdError
    ) -> tuple[float, Claim | None, Outcome | None]:
        """Try again until it works or the lock must be taken for lost: then the stalled check brings the job back."""
        pause = _FIRST_PAUSE_S
        asked = trio.current_time()
        while trio.current_time() - slot.locked < self._lock_s:
            log.warning("job %s is done but not settled yet: %s", job.id, error, extra={"job_id": job.id})
            await trio.sleep(pause * (0.5 + self._rand() / 2))
            pause = min(pause * 2, _LONGEST_PAUSE_S)
            asked = trio.current_time()
            try:
                return asked, await self._queue.settle(job, outcome, fetch=self._dispatcher.is_open), outcome
            except LeaseLost as lost:
                log.warning("%s", lost, extra={"job_id": job.id})
                return asked, None, None
            except MoonxdError as again:
                error = again
        log.error("job %s could not be settled while its lock lived: %s", job.id, error, extra={"job_id": job.id})
        return asked, None, None

    # ---- the last words

    async def _hand_back(self, job: Job, outcome: Outcome, started: float) -> None:
        """We are being cancelled: what has ended is settled, what has not goes back to the head of the line."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + HAND_BACK_S):
            try:
                await self._queue.settle(job, outcome, fetch=False)
                self.tally.count(outcome)
                self._say(self._on_settled, job, outcome, trio.current_time() - started)
                return
            except MoonxdError as error:
                log.warning("job %s was not handed back: %s", job.id, error, extra={"job_id": job.id})
                return
        log.warning("job %s was not handed back in time: it will be found stalled", job.id, extra={"job_id": job.id})

    async def _hand_back_unplaced(self) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + HAND_BACK_S):
            for job in self._dispatcher.take_unplaced():
                await self._hand_back(job, Release(), trio.current_time())
