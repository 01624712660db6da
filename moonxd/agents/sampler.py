"""Takes the picture that operators see: this process, its queue, its jobs, its parts.

The queue is asked only when somebody wants a picture: an unwatched idle daemon stays silent. The event loop's lag and
the process's CPU are measured all the time, since their worst moments are over when somebody looks.
"""

from __future__ import annotations

import os
import resource
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
import trio

from ..api.schema import Breaker, Child, Daemon, Outbox, QueueDepth, Snapshot
from ..domain.breakers import View
from ..domain.errors import MoonxdError
from ..ports import QueueAdmin
from ..telemetry import Telemetry

#: Seconds between two measurements of the loop's lag.
LAG_EVERY_S = 0.5
#: How many measurements the worst lag is taken from: ten seconds.
LAGS = 20
#: Seconds after which a silent Redis leaves the last known queue depth standing, and a silent database is away.
COUNTS_S = 1.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Slots:
    """How the consumer stands."""

    total: int
    busy: int
    is_paused: bool


class Pulse:
    """Asks something for a sign of life, when somebody wants to know, with one question at a time.

    A question is never broken off: that would cost the pool a connection a second while a database hangs.
    """

    def __init__(self, question: Callable[[], Awaitable[object]]) -> None:
        self._question = question
        self._is_running = False
        self._asked = trio.Event()
        self._answered = trio.Event()
        self.is_silent = False

    async def run(self) -> None:
        self._is_running = True
        try:
            while True:
                await self._asked.wait()
                self._asked = trio.Event()
                try:
                    await self._question()
                except MoonxdError:
                    self.is_silent = True
                else:
                    self.is_silent = False
                self._answered.set()
                self._answered = trio.Event()
        finally:
            self._is_running = False

    async def ask(self) -> None:
        """Bring `is_silent` up to date, within COUNTS_S."""
        if not self._is_running:
            return
        self._asked.set()
        answered = self._answered
        with trio.move_on_after(COUNTS_S):
            await answered.wait()
        self.is_silent = self.is_silent or not answered.is_set()


class Sampler:
    """`identity` holds what never changes; the other arguments are asked at each sample."""

    def __init__(
        self,
        *,
        identity: Daemon,
        queue: QueueAdmin,
        queue_name: str,
        telemetry: Telemetry,
        children: Callable[[], tuple[Child, ...]],
        slots: Callable[[], Slots],
        state: Callable[[], str],
        breakers: Callable[[], tuple[View, ...]] | None = None,
        outbox: Callable[[], Outbox | None] = lambda: None,
        database: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._identity = identity
        self._queue = queue
        self._telemetry = telemetry
        self._children = children
        self._slots = slots
        self._state = state
        self._breakers = breakers
        self._outbox = outbox
        self._pulse = Pulse(database) if database is not None else None
        self._depth = QueueDepth(
            name=queue_name, waiting=0, prioritized=0, active=0, delayed=0, waiting_children=0,
            completed=0, failed=0, paused=0, is_paused=False, fresh=False,
        )  # fmt: skip
        self._lags: deque[float] = deque(maxlen=LAGS)
        self._cpu_mark = (time.monotonic(), time.process_time())

    async def run(self, ready: Callable[[], None]) -> None:
        """Measure how late the loop wakes us, for ever."""
        async with trio.open_nursery() as nursery:
            if self._pulse is not None:
                nursery.start_soon(self._pulse.run)
            ready()
            await self._measure_lag()

    async def _measure_lag(self) -> None:
        while True:
            due = trio.current_time() + LAG_EVERY_S
            await trio.sleep_until(due)
            self._lags.append(trio.current_time() - due)

    async def sample(self) -> Snapshot:
        """A picture with seq 0. A silent Redis or database never delays it by more than COUNTS_S."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._measure_queue)
            if self._pulse is not None:
                nursery.start_soon(self._pulse.ask)
        telemetry = self._telemetry
        return Snapshot(
            seq=0,
            at=time.time(),
            daemon=self._measure_process(),
            queue=self._depth,
            rates=telemetry.rates(),
            running=telemetry.running(),
            chains=telemetry.chains(),
            breakers=None if self._breakers is None else tuple(map(_breaker, self._breakers())),
            failures=telemetry.failures(),
            children=self._children(),
            outbox=self._outbox(),
        )

    async def _measure_queue(self) -> None:
        with trio.move_on_after(COUNTS_S) as scope:
            try:
                counts = await self._queue.counts()
            except MoonxdError:
                # Shown as `fresh: false`; the Redis child of the board carries the reason.
                self._depth = msgspec.structs.replace(self._depth, fresh=False)
            else:
                self._depth = QueueDepth(name=self._depth.name, fresh=True, **msgspec.structs.asdict(counts))
        if scope.cancelled_caught:
            self._depth = msgspec.structs.replace(self._depth, fresh=False)

    def _away(self) -> tuple[str, ...]:
        is_silent = self._pulse is not None and self._pulse.is_silent
        return (() if self._depth.fresh else ("redis",)) + (("database",) if is_silent else ())

    def _measure_process(self) -> Daemon:
        slots = self._slots()
        return msgspec.structs.replace(
            self._identity,
            state=self._state(),
            slots=slots.total,
            slots_busy=slots.busy,
            is_paused=slots.is_paused,
            away=self._away(),
            rss_bytes=resident_bytes(),
            cpu=self._cpu_share(),
            loop_lag=round(max(self._lags, default=0.0), 4),
        )

    def _cpu_share(self) -> float:
        wall, cpu = time.monotonic(), time.process_time()
        then_wall, then_cpu = self._cpu_mark
        self._cpu_mark = (wall, cpu)
        return round((cpu - then_cpu) / max(wall - then_wall, 1e-3), 3)


def _breaker(view: View) -> Breaker:
    return Breaker(
        name=view.name, state=view.mode, failures=view.failures, opened_at=view.opened_at, reason=view.reason
    )


def resident_bytes() -> int:
    """Resident memory of this process."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * _PAGE_BYTES
    except OSError:
        # Not Linux: the peak is the best there is, in kilobytes everywhere but on macOS.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
