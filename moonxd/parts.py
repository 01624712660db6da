"""What is open while the daemon works, and how the parts are joined. When each runs is daemon.py's to say."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial

from . import wiring, workers
from .adapters.bullmq.queue import BullQueue
from .adapters.redis.client import Redis
from .agents.alarm import FailureAlarm, Notice
from .agents.announcer import Announcer
from .agents.breakers import BreakerKeeper
from .agents.janitor import Pruner
from .agents.orders import Verb
from .agents.sampler import Sampler
from .api.schema import Snapshot
from .cluster import Cluster, whole, worker_verbs
from .config import Config
from .control.deps import Deps
from .control.jobs import canceller_of
from .control.probe import probe
from .control.server import ControlPlane
from .control.story import Story
from .core_service import CoreLists
from .domain.breakers import Breakers
from .domain.job import Job, Outcome
from .domain.mirror import mirrored
from .listening import Listening
from .membership import Hands, Membership
from .metrics import Metrics
from .publishing import Publishing
from .scheduling import PeriodicSyncs
from .sources import Sources
from .statistics import Bureau, Statistics
from .supervisor import FOR_EVER, Child, Supervisor
from .telemetry import Telemetry
from .version import VERSION
from .wiring import Database, SharedIsland
from .worker.attempt import Attempts, Policy
from .worker.consumer import Consumer
from .worker.handler import Handler
from .worker.leases import LeaseKeeper

#: The picture and the page of metrics that operators get.
Views = tuple[Callable[[], Awaitable[Snapshot]], Callable[[], Awaitable[bytes]]]


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
    #: None: statistics are switched off.
    bureau: Bureau | None
    ledger: Database
    queue: BullQueue
    sources: Sources
    keeper: BreakerKeeper
    #: What went wrong before there was a ledger to tell it to.
    notices: deque[Notice]
    state: Callable[[], str]
    supervisor: Supervisor
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
    publishing: Publishing
    listening: Listening
    #: What asyncio is needed for runs on it; None when nothing needs it.
    island: Child | None
    pruner: Pruner
    alarm: FailureAlarm
    announcer: Announcer
    membership: Membership
    #: None: they are switched off.
    statistics: Statistics | None
    core_lists: CoreLists
    #: None when this process does the work itself.
    cluster: Cluster | None


def assemble(site: Site) -> Parts:
    config = site.config
    leases = LeaseKeeper(site.ledger, lease_s=config.worker.lock_s)
    periodic = PeriodicSyncs(config.scheduler, site.ledger.schedule, site.queue, site.telemetry)
    announcer = Announcer(site.ledger)
    attempts, consumer = _workers(site, leases, periodic, announcer)
    heads = _heads(config)
    hands = Hands(0 if heads else config.worker.slots, consumer, attempts)
    island = wiring.shared_island(config)
    publishing, listening = _kafka(site, periodic, island)
    sampler = _sampler(site, hands, publishing)
    metrics = Metrics(site.telemetry, sampler.sample, site.queue.oldest_waiting)
    membership = _membership(site, hands, worker_verbs(sampler, metrics), is_worker=not heads)
    cluster = _cluster(site, membership, heads) if heads else None
    deps = _deps(site, hands, attempts, periodic, membership, whole(sampler, metrics, cluster))
    deps = replace(deps, news=announcer, seen=periodic.activity.note, resend=publishing.resend)
    statistics = _statistics(site, island, publishing) if site.bureau is not None else None
    if statistics is not None:
        deps = replace(deps, statistics=statistics.desk)
    if cluster is not None:
        deps = replace(deps, pause_worker=cluster.pause, restart_workers=cluster.restart)
    return Parts(
        ledger=site.ledger,
        queue=site.queue,
        leases=leases,
        keeper=site.keeper,
        sources=site.sources,
        consumer=consumer,
        attempts=attempts,
        sampler=sampler,
        plane=ControlPlane(deps, live=wiring.live_feed(config, site.ledger, site.telemetry)),
        periodic=periodic,
        publishing=publishing,
        listening=listening,
        island=None if island is None else Child(name="island", body=island.run, critical=False, restarts=FOR_EVER),
        pruner=wiring.pruner(config, site.ledger),
        alarm=wiring.failure_alarm(config, site.ledger, site.notices),
        announcer=announcer,
        membership=membership,
        statistics=statistics,
        core_lists=_core_lists(site, deps, periodic),
        cluster=cluster,
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
        told_move=Decimal(str(config.events.portfolio_move)),
        guards=wiring.guards(config),
        terms=workers.job_terms(config),
    )


def _heads(config: Config) -> int:
    """How many worker processes run under this one; 0 when it does the work itself."""
    count = config.cluster.count(workers.cores())
    return count if count > 1 else 0


def _cluster(site: Site, membership: Membership, count: int) -> Cluster:
    names = tuple(f"{site.worker}-{number}" for number in range(1, count + 1))
    return Cluster(
        names,
        start=lambda number: workers.start_worker(site.config, names[number - 1], number),
        fleet=membership.fleet,
        ask=membership.ask,
        supervisor=site.supervisor,
        drain_s=site.config.daemon.drain_s,
    )


def _statistics(site: Site, island: SharedIsland | None, publishing: Publishing) -> Statistics:
    assert site.bureau is not None
    return Statistics(
        site.config,
        site.bureau,
        wiring.with_archive(site.config, island),
        worker=site.worker,
        redis=site.redis,
        ledger=site.ledger,
        breakers=site.breakers,
        telemetry=site.telemetry,
        children_now=site.supervisor.children,
        outbox_now=publishing.view,
    )


def _membership(site: Site, hands: Hands, verbs: Mapping[str, Verb], *, is_worker: bool) -> Membership:
    return Membership(
        workers.open_fleet(site.redis, site.config),
        identity=wiring.identity(site.config, site.worker, site.redis.settings.where, site.started_at),
        queue=site.queue.name,
        telemetry=site.telemetry,
        hands=hands,
        state=site.state,
        interval_s=site.config.worker.heartbeat_interval_s,
        is_worker=is_worker,
        verbs=verbs,
    )


def _workers(
    site: Site, leases: LeaseKeeper, periodic: PeriodicSyncs, announcer: Announcer
) -> tuple[Attempts, Consumer]:
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
        withdraw=announcer.withdraw,
    )
    consumer = Consumer(
        site.queue,
        Handler(
            attempts,
            slots=site.config.worker.slots,
            page=site.config.worker.batch_size,
            progress=site.queue.progress,
        ),
        slots=site.config.worker.slots,
        lock_s=site.config.worker.lock_s,
        doomed=attempts.doomed,
        on_started=site.job_started,
        on_settled=site.job_settled,
    )
    return attempts, consumer


def _kafka(site: Site, periodic: PeriodicSyncs, island: SharedIsland | None) -> tuple[Publishing, Listening]:
    """What speaks to Kafka."""
    section = site.config.kafka
    with_sinks, with_feed = None, None
    if section.is_external and island is not None:
        # aiokafka is loaded only where it is used.
        from .wiring.events import feeds, sinks

        with_sinks = sinks(site.config, island)
        if site.config.events.consume_activity:
            with_feed = feeds(site.config, island)
    publishing = Publishing(
        section,
        site.ledger.publication(),
        with_sinks,
        site.telemetry,
        site.notices,
        mirror=lambda stored: mirrored(stored, section.websocket_topic or ""),
    )
    active_s = site.config.scheduler.active_s
    listening = Listening(with_feed, periodic.activity.record, active_s=active_s, telemetry=site.telemetry)
    return publishing, listening


def _sampler(site: Site, hands: Hands, publishing: Publishing) -> Sampler:
    return Sampler(
        identity=wiring.identity(site.config, site.worker, site.redis.settings.where, site.started_at),
        queue=site.queue,
        queue_name=site.queue.name,
        telemetry=site.telemetry,
        children=site.supervisor.children,
        slots=hands.slots,
        state=site.state,
        breakers=site.breakers.views,
        outbox=publishing.view,
        database=site.ledger.ping,
    )


def _deps(
    site: Site, hands: Hands, attempts: Attempts, periodic: PeriodicSyncs, membership: Membership, views: Views
) -> Deps:
    sample, scrape = views
    queue, ledger = site.queue, site.ledger
    return Deps(
        queue_name=queue.name,
        worker=site.worker,
        service=site.config.daemon.service_name,
        queue_admin=queue,
        ledger=ledger,
        letters=ledger,
        outbox=ledger,
        sample=sample,
        cancel_running=hands.cancel,
        pause_worker=hands.pause,
        dependencies=partial(probe, {"redis": partial(site.redis.call, "PING"), "database": ledger.ping}),
        metrics=scrape,
        upkeep=queue,
        workers=membership.workers,
        ask_worker=membership.ask,
        terms=lambda: attempts.policy.terms,
        breakers=site.breakers,
        scheduling=periodic.desk,
        history=ledger,
        frees_at=wiring.window_check(ledger, lambda: attempts.policy.guards),
        gate=wiring.gate(site.config),
    )


def _core_lists(site: Site, deps: Deps, periodic: PeriodicSyncs) -> CoreLists:
    """They add and cancel as the API does."""
    story = Story(deps)
    assert deps.frees_at is not None
    return CoreLists(
        site.config,
        site.redis,
        worker=site.worker,
        queue=site.queue,
        ledger=site.ledger,
        schedule=periodic.desk.schedule,
        plan=periodic.desk.plan,
        canceller=canceller_of(deps, story),
        frees_at=deps.frees_at,
        terms=deps.terms,
        telemetry=site.telemetry,
        added=story.added,
    )
