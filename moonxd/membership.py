"""This worker's place in the fleet: its heartbeat, the orders it takes and gives, and the list of all workers."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from .agents.heartbeat import Heart
from .agents.orders import Orders, Verb
from .agents.sampler import Slots, resident_bytes
from .api.messages import WorkerView
from .api.schema import Daemon as Identity
from .domain.fleet import Answer, Heartbeat, Order
from .ports import Fleet
from .supervisor import Child
from .telemetry import Telemetry
from .worker.attempt import Attempts
from .worker.consumer import Consumer

#: Seconds that another worker may take to answer an order.
ANSWER_S = 2.0


class Hands:
    """What others may do to this worker's slots."""

    def __init__(self, total: int, consumer: Consumer, attempts: Attempts) -> None:
        self._total = total
        self._consumer = consumer
        self._attempts = attempts

    def slots(self) -> Slots:
        return Slots(total=self._total, busy=self._consumer.busy, is_paused=self._consumer.is_paused)

    def cancel(self, job_id: str) -> bool:
        """False when the job does not run here, or its commit is on the way."""
        return not self._attempts.is_committing(job_id) and self._consumer.cancel(job_id)

    def pause(self, paused: bool) -> None:
        if paused:
            self._consumer.pause()
        else:
            self._consumer.resume()


class Membership:
    """`identity` holds what never changes; the callables are asked at each heartbeat, or do what an order says.

    `verbs` are orders beside those every worker knows (cancel, pause, resume). A process that runs no jobs sees the
    fleet without being part of it (`is_worker` False).
    """

    def __init__(
        self,
        fleet: Fleet,
        *,
        identity: Identity,
        queue: str,
        telemetry: Telemetry,
        hands: Hands,
        state: Callable[[], str],
        interval_s: float,
        is_worker: bool = True,
        verbs: Mapping[str, Verb] | None = None,
    ) -> None:
        self.fleet = fleet
        self._is_worker = is_worker
        self._identity = identity
        self._queue = queue
        self._telemetry = telemetry
        self._slots = hands.slots
        self._state = state
        self._cpu_mark = (time.monotonic(), time.process_time())
        self._cpu = 0.0
        self._heart = Heart(fleet, self.describe, interval_s=interval_s)
        own: dict[str, Verb] = {
            "cancel": _verb(hands.cancel),
            "pause": _verb(lambda _about: _always(hands.pause, True)),
            "resume": _verb(lambda _about: _always(hands.pause, False)),
        }
        self._orders = Orders(fleet, identity.worker, own | dict(verbs or {}))

    def children(self) -> tuple[Child, ...]:
        """What has to run. Not critical: a worker that the fleet does not see still works."""
        if not self._is_worker:
            return ()
        return (
            Child(name="heartbeat", body=self._heart.run, critical=False),
            Child(name="orders", body=self._orders.run, critical=False),
        )

    def describe(self) -> Heartbeat:
        identity, slots, rates = self._identity, self._slots(), self._telemetry.rates()
        return Heartbeat(
            worker=identity.worker,
            queue=self._queue,
            host=identity.host,
            pid=identity.pid,
            version=identity.version,
            state=self._state(),
            slots=slots.total,
            slots_busy=slots.busy,
            is_paused=slots.is_paused,
            started_at=identity.started_at,
            seen_at=time.time(),
            per_second=rates.per_second,
            completed=rates.completed,
            failed=rates.failed,
            rss_bytes=resident_bytes(),
            cpu=self._cpu_share(),
        )

    async def ask(self, worker: str, verb: str, about: str = "") -> Answer | None:
        """Order another worker; None when it did not answer in time. Raises Transient when Redis is away."""
        return await self.fleet.ask(worker, Order(id=secrets.token_hex(8), verb=verb, about=about), ANSWER_S)

    async def workers(self) -> tuple[WorkerView, ...]:
        """The whole fleet, this worker as it is now."""
        beats = {beat.worker: beat for beat in await self.fleet.heartbeats()}
        if self._is_worker:
            mine = self.describe()
            beats[mine.worker] = mine
        return tuple(worker_of(beats[name]) for name in sorted(beats))

    def _cpu_share(self) -> float:
        """Since the last time it was taken; looks that come too soon after it see the same."""
        wall, cpu = time.monotonic(), time.process_time()
        then_wall, then_cpu = self._cpu_mark
        if wall - then_wall >= 1.0:
            self._cpu_mark = (wall, cpu)
            self._cpu = round((cpu - then_cpu) / (wall - then_wall), 3)
        return self._cpu


def worker_of(beat: Heartbeat) -> WorkerView:
    return WorkerView(**msgspec.structs.asdict(beat))


def _verb(work: Callable[[str], bool]) -> Callable[[str], Awaitable[Answer]]:
    async def obey(about: str) -> Answer:
        return Answer(done=work(about))

    return obey


def _always(work: Callable[[bool], None], argument: bool) -> bool:
    work(argument)
    return True
