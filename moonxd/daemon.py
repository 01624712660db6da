"""The composition root: one Trio process, every part a supervised child. With wiring.py it alone knows every room.

Start: redis-server (embedded) -> Redis, ledger -> control socket -> leases, janitor, stalled check -> consumer.
Stop: stop claiming -> let running jobs finish until the deadline -> cancel and hand back the rest -> close in reverse.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import trio

from . import wiring
from .adapters.bullmq.queue import BullQueue
from .adapters.redis.client import Redis, open_redis
from .agents.breakers import BreakerKeeper, new_breakers
from .agents.janitor import Janitor
from .agents.sampler import Sampler
from .agents.stalled import run_stalled_checker
from .api.schema import Daemon as Identity
from .cluster import Cluster, whole, worker_verbs
from .config import Config, Loaded, diff_reloadable, secrets_in
from .control.deps import Deps
from .control.listening import run_control
from .control.probe import probe
from .control.server import ControlPlane
from .domain.errors import ConfigError
from .domain.job import Job, Outcome
from .foundations import Foundations, reach_redis
from .jobs import JOBS
from .log import Logging
from .membership import Hands, Membership
from .metrics import Metrics
from .sources import Sources
from .supervisor import Child, Supervisor, open_supervisor, unless
from .telemetry import Telemetry, outcome_word
from .version import VERSION
from .wiring import Database
from .worker.attempt import Attempts, Policy
from .worker.consumer import Consumer
from .worker.handler import Handler
from .worker.leases import LeaseKeeper

log = logging.getLogger("moonxd.daemon")

#: Seconds for cancelled jobs to be handed back.
HAND_BACK_S = 5.0
#: A row is orphaned only after its job would have been delivered again: this many lock durations and stalled checks.
ORPHAN_FACTOR = 3


async def serve(
    loaded: Loaded,
    reload: Callable[[], Loaded],
    logging_now: Logging,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Run the daemon until SIGTERM or SIGINT; a second signal skips the drain.

    Raises ConfigError, Transient when Redis or the ledger cannot be reached, ChildFailed when a critical part gave up.
    """
    daemon = Daemon(loaded.config, reload, logging_now)
    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.obey_signals)
        async with open_supervisor(daemon.stop, on_restart=daemon.telemetry.child_restarted) as supervisor:
            await daemon.run(supervisor, on_ready)
        nursery.cancel_scope.cancel()
    if supervisor.failure is not None:
        raise supervisor.failure


@dataclass(frozen=True, slots=True)
class _Parts:
    """What is open while the daemon works."""

    ledger: Database
    queue: BullQueue
    leases: LeaseKeeper
    keeper: BreakerKeeper
    sources: Sources
    consumer: Consumer
    attempts: Attempts
    sampler: Sampler
    plane: ControlPlane
    membership: Membership
    cluster: Cluster | None


class Daemon:
    """The state of one `serve`."""

    def __init__(self, config: Config, reload: Callable[[], Loaded], logging_now: Logging) -> None:
        self.config = config
        self._logging = logging_now
        self.telemetry = Telemetry({name: kind.name for name, kind in JOBS.items()})
        self._breakers = new_breakers(self.telemetry.breaker_opened)
        self.stop = trio.Event()
        self._reload = reload
        self._hurry = trio.Event()
        self._state = "starting"
        self._started_at = time.time()
        self._worker = wiring.worker_name(config)
        self._parts: _Parts | None = None
        count = config.cluster.count(wiring.cores())
        #: Worker processes under this one; 0 when it is a worker itself.
        self._heads = count if count > 1 else 0

    # ---- start and stop ------------------------------------------------------------------------------------------

    async def run(self, supervisor: Supervisor, on_ready: Callable[[], None]) -> None:
        async with AsyncExitStack() as resources:
            parts = await self._open(supervisor, resources)
            if parts is None:
                return
            self._parts = parts
            children = self._children(parts)
            for child in children:
                await supervisor.start(child)
            if not self.stop.is_set():
                self._state = "running"
                log.info("moonxd %s works as %s", VERSION, self._worker, extra={"slots": self.config.worker.slots})
                on_ready()
            await self.stop.wait()
            await self._drain(parts)
            # The private redis-server is not among them: it outlives the connections to it.
            for child in reversed(children):
                await supervisor.stop_child(child.name)
        log.info("stopped")

    async def _drain(self, parts: _Parts) -> None:
        self._state = "draining"
        if parts.cluster is not None:
            await parts.cluster.drain(self._hurry)
            return
        consumer = parts.consumer
        deadline = self.config.daemon.drain_s
        log.info("stopping: running jobs have %g s to finish", deadline, extra={"running": consumer.busy})
        async with trio.open_nursery() as nursery:

            async def skip() -> None:
                await self._hurry.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(skip)
            await consumer.drain(deadline)
            nursery.cancel_scope.cancel()
        await consumer.drain(0)
        self._state = "stopping"

    # ---- opening -------------------------------------------------------------------------------------------------

    async def _open(self, supervisor: Supervisor, resources: AsyncExitStack) -> _Parts | None:
        """None when we were told to stop meanwhile."""
        config = self.config
        wiring.make_state_dir(config.state_dir)
        grounds = Foundations(config, self.stop)
        settings = await grounds.redis(supervisor)
        if settings is None:
            return None
        redis = await resources.enter_async_context(open_redis(settings))
        await unless(self.stop, partial(reach_redis, redis))
        ledger = await grounds.ledger(resources)
        if ledger is None or self.stop.is_set():
            return None
        queue = BullQueue(
            redis,
            config.queue.name,
            worker_name=self._worker,
            prefix=config.queue.prefix,
            lock_ms=int(config.worker.lock_s * 1000),
            stalled_interval_ms=int(config.worker.stalled_interval_s * 1000),
            max_stalled_count=config.worker.max_stalled,
            defaults=wiring.job_defaults(config),
        )
        keeper = BreakerKeeper(self._breakers, ledger.breakers(), recovered=self.telemetry.state_recovered)
        await keeper.recover()
        sources = wiring.new_sources(config, redis, self.telemetry, self._breakers)
        return self._assemble(redis, ledger, queue, sources, keeper, supervisor)

    def _open_cluster(self, membership: Membership, supervisor: Supervisor) -> Cluster | None:
        """None when this process does the work itself."""
        if not self._heads:
            return None
        names = tuple(f"{self._worker}-{number}" for number in range(1, self._heads + 1))
        return Cluster(
            names,
            start=lambda number: wiring.start_worker(self.config, names[number - 1], number),
            fleet=membership.fleet,
            ask=membership.ask,
            supervisor=supervisor,
            drain_s=self.config.daemon.drain_s,
        )

    def _assemble(
        self,
        redis: Redis,
        ledger: Database,
        queue: BullQueue,
        sources: Sources,
        keeper: BreakerKeeper,
        supervisor: Supervisor,
    ) -> _Parts:
        config = self.config
        leases = LeaseKeeper(ledger, lease_s=config.worker.lock_s)
        consumer: Consumer
        attempts = Attempts(
            ledger=ledger,
            leases=leases,
            env=sources,
            clock=wiring.WallClock(),
            policy=self._policy(config),
            rand=random.random,
            step=self.telemetry.job_step,
            cancelled=lambda job_id: consumer.is_cancelled(job_id),
        )
        consumer = Consumer(
            queue,
            Handler(attempts, slots=config.worker.slots, page=config.worker.batch_size, progress=queue.progress),
            slots=config.worker.slots,
            lock_s=config.worker.lock_s,
            doomed=attempts.doomed,
            on_started=self._job_started,
            on_settled=self._job_settled,
        )

        hands = Hands(0 if self._heads else config.worker.slots, consumer, attempts)
        sampler = self._sampler(redis, queue, hands, supervisor)
        metrics = Metrics(self.telemetry, sampler.sample, queue.oldest_waiting)
        membership = self._membership(redis, queue.name, hands, sampler, metrics)
        cluster = self._open_cluster(membership, supervisor)
        sample, scrape = whole(sampler, metrics, cluster)
        plane = ControlPlane(
            Deps(
                queue_name=queue.name,
                worker=self._worker,
                queue_admin=queue,
                ledger=ledger,
                letters=ledger,
                outbox=ledger,
                sample=sample,
                cancel_running=hands.cancel,
                pause_worker=hands.pause if cluster is None else cluster.pause,
                dependencies=partial(probe, {"redis": partial(redis.call, "PING"), "database": ledger.ping}),
                metrics=scrape,
                upkeep=queue,
                workers=membership.workers,
                ask_worker=membership.ask,
                restart_workers=None if cluster is None else cluster.restart,
                terms=lambda: attempts.policy.terms,
                breakers=self._breakers,
            )
        )
        return _Parts(ledger, queue, leases, keeper, sources, consumer, attempts, sampler, plane, membership, cluster)

    def _sampler(self, redis: Redis, queue: BullQueue, hands: Hands, supervisor: Supervisor) -> Sampler:
        return Sampler(
            identity=self._identity(redis),
            queue=queue,
            queue_name=queue.name,
            telemetry=self.telemetry,
            children=supervisor.children,
            slots=hands.slots,
            state=lambda: self._state,
            breakers=self._breakers.views,
        )

    def _membership(self, redis: Redis, queue: str, hands: Hands, sampler: Sampler, metrics: Metrics) -> Membership:
        return Membership(
            wiring.open_fleet(redis, self.config),
            identity=self._identity(redis),
            queue=queue,
            telemetry=self.telemetry,
            hands=hands,
            state=lambda: self._state,
            interval_s=self.config.worker.heartbeat_interval_s,
            is_worker=not self._heads,
            verbs=worker_verbs(sampler, metrics),
        )

    def _policy(self, config: Config) -> Policy:
        return Policy(
            worker_id=self._worker,
            version=VERSION,
            attempts=config.queue.attempts,
            backoff=config.queue.backoff,
            timeout_s=config.worker.timeout_s,
            snapshot_every_s=config.worker.snapshot_every_s,
            terms=wiring.job_terms(config),
        )

    def _identity(self, redis: Redis) -> Identity:
        return Identity(
            version=VERSION,
            pid=os.getpid(),
            worker=self._worker,
            host=socket.gethostname(),
            state="starting",
            started_at=self._started_at,
            slots=0,
            slots_busy=0,
            is_paused=False,
            rss_bytes=0,
            cpu=0.0,
            loop_lag=0.0,
            redis=redis.settings.where if self.config.redis.is_external else "embedded",
            database=wiring.ledger_name(self.config),
        )

    # ---- children ------------------------------------------------------------------------------------------------

    def _children(self, parts: _Parts) -> tuple[Child, ...]:
        """In the order of their start; the consumer last, so that it claims nothing before everything works."""
        worker = self.config.worker
        orphaned_s = ORPHAN_FACTOR * (worker.lock_s + worker.stalled_interval_s)
        janitor = Janitor(parts.ledger, interval_s=worker.janitor_interval_s, grace_s=orphaned_s)
        consumer = Child(name="consumer", body=partial(self._run_consumer, parts.consumer))
        return (
            Child(name="control", body=partial(self._run_control, parts.plane)),
            Child(name="breakers", body=parts.keeper.run, critical=False),
            Child(name="chains", body=parts.sources.run),
            Child(name="leases", body=parts.leases.run),
            Child(name="sampler", body=parts.sampler.run, critical=False),
            Child(name="janitor", body=janitor.run, critical=False),
            Child(name="stalled-check", body=partial(self._run_stalled_check, parts.queue)),
            *parts.membership.children(),
            *(parts.cluster.children() if parts.cluster else (consumer,)),
        )

    async def _run_control(self, plane: ControlPlane, ready: Callable[[], None]) -> None:
        await run_control(plane, self.config.socket, self.config.daemon.socket_mode, self.config.http.listen, ready)

    async def _run_stalled_check(self, queue: BullQueue, ready: Callable[[], None]) -> None:
        ready()
        await run_stalled_checker(queue, interval_s=self.config.worker.stalled_interval_s)

    async def _run_consumer(self, consumer: Consumer, ready: Callable[[], None]) -> None:
        await consumer.run(ready)

    # ---- what the consumer tells ---------------------------------------------------------------------------------

    def _job_started(self, job: Job) -> None:
        self.telemetry.job_started(job.id, job.name, job.attempts_made + 1)

    def _job_settled(self, job: Job, outcome: Outcome | None, _seconds: float) -> None:
        """`outcome` None: the job was lost to another worker."""
        word, reason = outcome_word(outcome)
        self.telemetry.job_settled(job.id, word, reason)
        if outcome is not None and self._parts is not None:
            self._parts.plane.settled(job, outcome)

    # ---- signals -------------------------------------------------------------------------------------------------

    async def obey_signals(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    await self._reload_config()
                elif self.stop.is_set():
                    log.warning("asked again to stop: running jobs are handed back now")
                    self._hurry.set()
                else:
                    log.info("asked to stop", extra={"signal": signal.Signals(number).name})
                    self.stop.set()

    async def _reload_config(self) -> None:
        if self._parts is not None and self._parts.cluster is not None:
            self._parts.cluster.reload()
        try:
            loaded = await trio.to_thread.run_sync(self._reload)
        except ConfigError as error:
            log.error("nothing was reloaded, the old configuration stays in effect: %s", error)
            return
        applied, needs_restart = diff_reloadable(self.config, loaded.config)
        for key in needs_restart:
            log.warning("%s changed, it takes effect at the next restart", key, extra={"key": key})
        if not applied:
            log.info("reloaded: nothing changed that can be changed while running")
            return
        self._logging.set_level(loaded.config.log.level)
        self._logging.add_secrets(secrets_in(loaded.config))
        if self._parts is not None:
            self._parts.attempts.policy = self._policy(loaded.config)
            self._parts.sources.replace(loaded.config)
        log.info("reloaded: %s", ", ".join(applied))
