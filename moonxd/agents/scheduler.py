"""Queues the periodic sync of every wallet whose slot has come.

Any number of daemons may run it: a page of due wallets is held by the one that took it, and the id of a job is its
slot's, so that nothing is queued twice; whoever dies between taking and marking is followed by somebody who adds the
same job. It works in pages and looks at the queue's depth before each, so that a million wallets that fell due during
a downtime neither fill Redis nor hold up the event loop.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
import trio

from ..domain.errors import MoonxdError
from ..domain.plan import Plan
from ..domain.schedule import Due, Figures, Taken, Verdict, job_for
from ..log import log_once_per
from ..ports import QueueAdmin, Schedule

log = logging.getLogger("moonxd.scheduler")

#: Seconds between two looks for due wallets.
TICK_S = 1.0
#: Wallets taken at a time: what one step of the event loop decides about.
PAGE = 200
#: Seconds that a page is ours; whoever finds it after that adds the same jobs again, which adds nothing.
HOLD_S = 60.0
#: Seconds between two measurements of freshness, or this many times what one took.
FIGURES_S, FIGURES_TIMES = 30.0, 20
#: Seconds that measuring may take and still be done whenever somebody asks.
QUICK_S = 0.5
#: Seconds after which a failure is tried again.
AWAY_S = 5.0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the scheduler of this process did since it started, and how it stands."""

    is_running: bool = False
    #: For all daemons, as of the last round.
    is_paused: bool = False
    #: The queue is full enough: nothing is added before it gets shorter.
    is_held_back: bool = False
    rounds: int = 0
    #: Ticks without a round of their own: the one before took longer, or something was away.
    missed_ticks: int = 0
    queued: int = 0
    #: Slots not used, by reason: disabled, inactive, pending, fresh.
    skipped: dict[str, int] = {}
    #: Slots that passed without a sync: the daemon or the queue was away, or an earlier sync was still waiting.
    missed: int = 0
    #: Seconds from slot to queue of the latest wallet, and the worst of the latest round that queued any.
    drift_s: float = 0.0
    worst_drift_s: float = 0.0
    last_queued_at: float | None = None
    last_error: str | None = None
    figures: Figures | None = None


class Scheduler:
    """`batch` jobs go to the queue per call while fewer than `max_waiting` wait there; `now` gives unix seconds."""

    def __init__(
        self,
        schedule: Schedule,
        queue: QueueAdmin,
        plan: Plan,
        *,
        now: Callable[[], float],
        batch: int = 10,
        max_waiting: int = 100_000,
        max_users: int | None = None,
        tick_s: float = TICK_S,
        on_report: Callable[[Report], None] = lambda report: None,
    ) -> None:
        self._schedule = schedule
        self._queue = queue
        self._plan = plan
        self._now = now
        self._batch = min(batch, PAGE)
        self._max_waiting = max_waiting
        self._max_users = max_users
        self._tick_s = tick_s
        self._on_report = on_report
        self._report = Report()
        self._skipped: Counter[str] = Counter()
        self._wake = trio.Event()
        self._is_triggered = False
        self._measuring = trio.Lock()
        self._took_s = 0.0
        #: The worst drift of this round.
        self._worst_s = 0.0

    @property
    def report(self) -> Report:
        return self._report

    def trigger(self) -> None:
        """Look for due wallets now, even while paused."""
        self._is_triggered = True
        self._wake.set()

    async def run(self, ready: Callable[[], None]) -> None:
        self._note(is_running=True)
        ready()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_measuring)
                await self._keep_looking()
        finally:
            self._note(is_running=False)

    async def _keep_looking(self) -> None:
        due = trio.current_time()
        while True:
            earliest = await self._look()
            due, missed = next_tick(due, earliest, self._tick_s)
            self._note(rounds=self._report.rounds + 1, missed_ticks=self._report.missed_ticks + missed)
            with trio.move_on_at(due):
                await self._wake.wait()
            self._wake = trio.Event()

    async def _look(self) -> float:
        """One round; when the next may begin."""
        try:
            await self.round()
        except MoonxdError as error:
            log_once_per(60.0, log, logging.WARNING, "due wallets were not queued: %s", error, key=str(error))
            self._note(last_error=str(error))
            return trio.current_time() + AWAY_S
        self._note(last_error=None)
        return trio.current_time()

    # ---- one round -----------------------------------------------------------------------------------------------

    async def round(self) -> int:
        """Queue all that is due, page by page, while the queue has room; how many."""
        even_paused, self._is_triggered = self._is_triggered, False
        self._worst_s = 0.0
        queued, seen = 0, 0
        limit = self._max_users if self._max_users is not None else 2**31
        while seen < limit and await self._has_room():
            taken = await self._schedule.take(min(PAGE, limit - seen), HOLD_S, even_paused=even_paused)
            self._note(is_paused=taken.is_paused)
            queued += await self._queue_page(taken)
            seen += len(taken.wallets)
            if len(taken.wallets) < PAGE:
                break
        if queued:
            log.info(
                "queued %d periodic syncs", queued, extra={"queued": queued, "drift_s": self._report.worst_drift_s}
            )
        return queued

    async def _has_room(self) -> bool:
        counts = await self._queue.counts()
        waiting = counts.waiting + counts.prioritized + counts.delayed + counts.paused
        is_held_back = waiting >= self._max_waiting
        if is_held_back and not self._report.is_held_back:
            log.warning(
                "%d jobs wait in the queue: no periodic syncs are added until it is shorter",
                waiting,
                extra={"waiting": waiting, "max_waiting": self._max_waiting},
            )
        self._note(is_held_back=is_held_back)
        return not is_held_back

    async def _queue_page(self, taken: Taken) -> int:
        verdicts = [(due, self._plan.decide(due, taken.at)) for due in taken.wallets]
        wanted = [(due, verdict) for due, verdict in verdicts if verdict.priority is not None]
        for start in range(0, len(wanted), self._batch):
            part = wanted[start : start + self._batch]
            await self._queue.add([job_for(due, verdict, taken.at) for due, verdict in part])
        await self._schedule.mark([verdict.mark for _, verdict in verdicts])
        self._count(taken.at, verdicts)
        return len(wanted)

    def _count(self, at: float, verdicts: Sequence[tuple[Due, Verdict]]) -> None:
        if not verdicts:
            return
        report, drifts = self._report, [at - due.due_at for due, verdict in verdicts if verdict.priority is not None]
        self._skipped.update(verdict.why for _, verdict in verdicts if verdict.priority is None)
        self._worst_s = max(self._worst_s, *drifts, 0.0)
        self._note(
            queued=report.queued + len(drifts),
            skipped=dict(self._skipped),
            missed=report.missed + sum(verdict.missed for _, verdict in verdicts),
        )
        if drifts:
            self._note(drift_s=drifts[-1], worst_drift_s=self._worst_s, last_queued_at=at)

    # ---- freshness -----------------------------------------------------------------------------------------------

    async def figures(self) -> Figures:
        """Measured now; where that takes the database long, the last measurement."""
        async with self._measuring:
            known = self._report.figures
            if known is not None and self._took_s > QUICK_S and self._now() - known.at < self._measure_every():
                return known
            return await self._measure()

    async def _keep_measuring(self) -> None:
        while True:
            try:
                async with self._measuring:
                    await self._measure()
            except MoonxdError as error:
                log.warning("freshness was not measured: %s", error)
            await trio.sleep(self._measure_every())

    async def _measure(self) -> Figures:
        began = trio.current_time()
        try:
            figures = await self._schedule.figures(self._plan.targets(self._now()))
        finally:
            self._took_s = trio.current_time() - began
        self._note(figures=figures)
        return figures

    def _measure_every(self) -> float:
        return max(FIGURES_S, FIGURES_TIMES * self._took_s)

    def _note(self, **changes: object) -> None:
        self._report = msgspec.structs.replace(self._report, **changes)
        self._on_report(self._report)


def next_tick(due: float, earliest: float, tick_s: float) -> tuple[float, int]:
    """The first tick after the one at `due` that is not before `earliest`, and how many are skipped for that."""
    following = due + tick_s
    skipped = max(0, math.ceil((earliest - following) / tick_s))
    return following + skipped * tick_s, skipped
