"""The one task that claims jobs for idle slots, and knows when there is nothing to claim."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

import trio

from ..domain.errors import MoonxdError
from ..domain.job import Claim, Job
from ..log import log_once_per
from ..ports import Queue
from .slots import Slot

log = logging.getLogger("moonxd.consumer")

#: Seconds of one wait on the marker. Longer ones would notice a silently dead connection later.
WAIT_S = 10.0
#: Seconds after which an idle worker looks once without having been woken: a marker can be lost with a worker's life.
LOOK_ANYWAY_S = 30.0
#: Claims sent at once: the first alone, so that one job costs one call, then twice as many each time.
_WIDEST = 64
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 5.0


class Dispatcher:
    """See the module. Slots `park`; whoever settles a job says what it `heard` of the queue."""

    def __init__(self, queue: Queue, now: Callable[[], float]) -> None:
        self._queue = queue
        self._now = now
        self.paused = False
        self._closed = False
        self.reset()

    def reset(self) -> None:
        """Forget the slots of an earlier run."""
        self._idle: list[Slot] = []
        self._unplaced: list[Job] = []
        self._claiming = False
        #: Trio time of the next look at the queue: now, a delayed job's time, or inf (the marker will tell).
        self._look_at = -float("inf")
        #: No look before `_look_at`, whatever the marker says.
        self._deaf = False
        self._looked = -float("inf")
        self._news = trio.Event()
        self._waiting: trio.CancelScope | None = None

    # ---- orders

    @property
    def is_open(self) -> bool:
        """Whether more jobs are wanted."""
        return not self.paused and not self._closed

    def pause(self) -> None:
        self.paused = True
        self._interrupt()

    def resume(self) -> None:
        self.paused = False
        self._look_soon()

    def close(self) -> None:
        """Claim no more, for good."""
        self._closed = True
        self._interrupt()

    # ---- slots

    async def park(self, slot: Slot) -> None:
        """Return when `slot` holds a job."""
        slot.wake = trio.Event()
        self._idle.append(slot)
        self._tell()
        try:
            await slot.wake.wait()
        finally:
            if slot in self._idle:
                self._idle.remove(slot)

    def heard(self, claim: Claim | None) -> None:
        """What a settling call learnt. Nothing at all (None) means that the queue has to be asked."""
        if claim is None:
            self._look_at, self._deaf = -float("inf"), False
            self._tell()
        elif claim.job is None:
            self._note(claim)

    def take_unplaced(self) -> list[Job]:
        """Jobs that were claimed when no slot was left to run them: the caller hands them back."""
        jobs, self._unplaced = self._unplaced, []
        return jobs

    async def until_idle(self, slots: int) -> None:
        """Return when `slots` slots are parked and no claim is on its way."""
        while self._claiming or len(self._idle) < slots:
            await self._news.wait()

    def _tell(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    def _interrupt(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        self._tell()

    def _look_soon(self) -> None:
        self._look_at, self._deaf = -float("inf"), False
        self._interrupt()

    # ---- the task

    async def run(self) -> None:
        """Until cancelled."""
        pause = _FIRST_PAUSE_S
        while True:
            while not self._idle or not self.is_open:
                await self._news.wait()
            try:
                if self._is_time() or await self._wait():
                    await self._claim_all()
                pause = _FIRST_PAUSE_S
            except MoonxdError as error:
                log_once_per(60.0, log, logging.WARNING, "no jobs can be claimed: %s", error, key=str(error))
                self._look_at, self._deaf = -float("inf"), False
                await trio.sleep(pause * (0.5 + random.random() / 2))
                pause = min(pause * 2, _LONGEST_PAUSE_S)

    def _is_time(self) -> bool:
        now = trio.current_time()
        return now >= self._look_at or now - self._looked >= LOOK_ANYWAY_S

    async def _wait(self) -> bool:
        """Wait for the marker or the clock; whether it is time to look."""
        seconds = min(WAIT_S, self._look_at - trio.current_time())
        with trio.CancelScope() as self._waiting:
            try:
                if self._deaf:
                    await trio.sleep(seconds)
                elif await self._queue.wait(seconds):
                    return self.is_open
            finally:
                self._waiting = None
        return self.is_open and self._is_time()

    async def _claim_all(self) -> None:
        """Claim until the queue has no more or the slots are full."""
        width, found = 1, 0
        self._look_at, self._deaf = float("inf"), False
        self._claiming = True
        try:
            while self._idle and self.is_open:
                if not await self._claim(min(width, len(self._idle))):
                    return
                found += width
                width = min(found, _WIDEST)
            self._look_at = -float("inf")  # there may be more: look when a slot is idle again
        finally:
            self._claiming = False
            self._tell()

    async def _claim(self, width: int) -> bool:
        """`width` claims at once; False when one of them came back empty."""
        asked = self._looked = trio.current_time()
        if width == 1:
            return self._place(await self._queue.claim(), asked)
        all_found = True

        async def one() -> None:
            nonlocal all_found
            if not self._place(await self._queue.claim(), asked):
                all_found = False

        try:
            async with trio.open_nursery() as nursery:
                for _ in range(width):
                    nursery.start_soon(one)
        except* MoonxdError as group:
            raise group.exceptions[0] from None  # the others say the same of the same Redis
        return all_found

    def _place(self, claim: Claim, asked: float) -> bool:
        if claim.job is None:
            self._note(claim)
            return False
        if not self._idle:
            self._unplaced.append(claim.job)
            return True
        slot = self._idle.pop()
        slot.take(claim.job, asked)
        slot.wake.set()
        return True

    def _note(self, claim: Claim) -> None:
        """An empty claim says when to look again."""
        if claim.wake_at is None:
            self._look_at = float("inf")
        else:
            self._look_at = trio.current_time() + max(0.0, claim.wake_at / 1000 - self._now())
        self._deaf = claim.limited
