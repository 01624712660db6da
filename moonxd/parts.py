"""What is open while the daemon works, and how the parts are joined. When each runs is daemon.py's to say."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from . import wiring
from .adapters.bullmq.queue import BullQueue
from .adapters.redis.client import Redis
from .agents.alarm import FailureAlarm, Notice
from .agents.breakers import BreakerKeeper
from .agents.janitor import Pruner
from .agents.sampler import Sampler, Slots
from .api.schema import Child as ChildView
from .config import Config
from .control.deps import Deps
from .control.probe import probe
from .control.server import ControlPlane
from .domain.breakers import Breakers
from .domain.job import Job, Outcome
from .metrics import Metrics
from .scheduling import PeriodicSyncs
from .sources import Sources
from .telemetry import Telemetry
from .version import VERSION
from .wiring import Database
from .worker.attempt import Attempts, Policy
from .worker.consumer import Consumer
from .worker.leases import LeaseKeeper


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the parts find when they are put together. Callables are asked again and again."""

    config: Config
    #: This worker's name.
    worker: str
    started_at: float
    telemetry: Telemetry
    breakers: Breakers
    redis: Redis
    ledger: Database
    queue: BullQueue
    sources: Sources
    keeper: BreakerKeeper
    #: What went wrong before there was a ledger to tell it to.
    notices: deque[Notice]
    state: Callable[[], str]
    children: Callable[[], tuple[ChildView, ...]]
    job_started: Callable[[Job], None]
    job_settled: Callable[[Job, Outcome | None, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything that runs or is asked while the daemon works."""

    ledger: Database
    queue: BullQueue
    leases: LeaseKeeper
    keeper: BreakerKeeper
    sources: Sources
    consumer: Consumer
    attempts: Attempts
    sampler: Sampler
    plane: ControlPlane
    periodic: PeriodicSyncs
    pruner: Pruner
    alarm: FailureAlarm


def assemble(site: Site) -> Parts:
    config = site.config
    leases = LeaseKeeper(site.ledger, lease_s=config.worker.lock_s)
    periodic = PeriodicSyncs(config.scheduler, site.ledger.schedule, site.queue, site.telemetry)
    attempts, consumer = _workers(site, leases, periodic)
    sampler = _sampler(site, consumer)
    return Parts(
        ledger=site.ledger,
        queue=site.queue,
        leases=leases,
        keeper=site.keeper,
        sources=site.sources,
        consumer=consumer,
        attempts=attempts,
        sampler=sampler,
        plane=ControlPlane(_deps(site, sampler, consumer, attempts, periodic)),
        periodic=periodic,
        pruner=wiring.pruner(config, site.ledger),
        alarm=wiring.failure_alarm(config, site.ledger, site.notices),
    )


def policy(config: Config, worker: str) -> Policy:
    """How attempts are made; replaced on a reload."""
    return Policy(
        worker_id=worker,
        version=VERSION,
        attempts=config.queue.attempts,
        backoff=config.queue.backoff,
        timeout_s=config.worker.timeout_s,
        snapshot_every_s=config.worker.snapshot_every_s,
        guards=wiring.guards(config),
    )


def _workers(site: Site, leases: LeaseKeeper, periodic: PeriodicSyncs) -> tuple[Attempts, Consumer]:
    consumer: Consumer
    attempts = Attempts(
        ledger=site.ledger,
        leases=leases,
        env=site.sources,
        clock=wiring.WallClock(),
        policy=policy(site.config, site.worker),
        rand=random.random,
        step=site.telemetry.job_step,
        cancelled=lambda job_id: consumer.is_cancelled(job_id),
        seen=periodic.activity.note,
        turned_away=site.telemetry.turned_away,
    )
    consumer = Consumer(
        site.queue,
        attempts,
        slots=site.config.worker.slots,
        lock_s=site.config.worker.lock_s,
        doomed=attempts.doomed,
        on_started=site.job_started,
        on_settled=site.job_settled,
    )
    return attempts, consumer


def _sampler(site: Site, consumer: Consumer) -> Sampler:
    total = site.config.worker.slots
    return Sampler(
        identity=wiring.identity(site.config, site.worker, site.redis.settings.where, site.started_at),
        queue=site.queue,
        queue_name=site.queue.name,
        telemetry=site.telemetry,
        children=site.children,
        slots=lambda: Slots(total=total, busy=consumer.busy, is_paused=consumer.is_paused),
        state=site.state,
        breakers=site.breakers.views,
    )


def _deps(site: Site, sampler: Sampler, consumer: Consumer, attempts: Attempts, periodic: PeriodicSyncs) -> Deps:
    queue, ledger = site.queue, site.ledger
    return Deps(
        queue_name=queue.name,
        worker=site.worker,
        queue_admin=queue,
        ledger=ledger,
        letters=ledger,
        outbox=ledger,
        sample=sampler.sample,
        cancel_running=consumer.cancel,
        pause_worker=lambda paused: consumer.pause() if paused else consumer.resume(),
        dependencies=partial(probe, {"redis": partial(site.redis.call, "PING"), "database": ledger.ping}),
        metrics=Metrics(site.telemetry, sampler.sample, queue.oldest_waiting).text,
        upkeep=queue,
        breakers=site.breakers,
        scheduling=periodic.desk,
        history=ledger,
        frees_at=wiring.window_check(ledger, lambda: attempts.policy.guards),
    )
