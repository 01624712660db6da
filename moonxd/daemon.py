"""The composition root: one Trio process, every part a supervised child. With parts.py and wiring/ it alone knows
every room: wiring/ opens the outside, parts.py joins, this one says when each part runs.

Start: redis-server (embedded) -> Redis, ledger -> control socket -> leases, janitor, stalled check -> consumer.
Stop: stop claiming -> let running jobs finish until the deadline -> cancel and hand back the rest -> publish what is
committed -> close in reverse.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

import msgspec
import trio

from . import wiring
from .adapters.bullmq.queue import BullQueue
from .adapters.redis.client import Redis, RedisSettings, open_redis
from .adapters.redis.embedded import AppendFsync, embedded_redis
from .adapters.redis.server import check_server
from .agents.alarm import Notice, torn_queue
from .agents.breakers import BreakerKeeper, new_breakers
from .agents.janitor import Janitor
from .agents.stalled import run_stalled_checker
from .config import Config, Loaded, diff_reloadable, secrets_in
from .control.server import ControlPlane, serve_control
from .control.socket import tcp_listeners, unix_listener
from .domain.errors import ConfigError, Transient
from .domain.job import Job, Outcome
from .jobs import JOBS
from .log import Logging
from .parts import Parts, Site, assemble, policy
from .statistics import open_bureau
from .supervisor import Child, Supervisor, open_supervisor, unless
from .telemetry import Telemetry, outcome_word
from .version import VERSION
from .wiring import Database
from .worker.consumer import Consumer

log = logging.getLogger("moonxd.daemon")

#: Seconds that Redis and the ledger may take to be reached at start; whoever supervises us tries again after that.
REACH_S = 60.0
#: Seconds that the control plane's clients get to read their last answer.
CONTROL_GRACE_S = 1.0
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


class Daemon:
    """The state of one `serve`."""

    def __init__(self, config: Config, reload: Callable[[], Loaded], logging_now: Logging) -> None:
        self.config = config
        self._logging = logging_now
        self.telemetry = Telemetry({name: kind.name for name, kind in JOBS.items()})
        #: For whoever looks after the daemon; sent once there is a ledger. Of a flood the newest are kept.
        self._notices: deque[Notice] = deque(maxlen=1000)
        self._breakers = new_breakers(self._breaker_shut)
        self.stop = trio.Event()
        self._reload = reload
        self._hurry = trio.Event()
        self._state = "starting"
        self._started_at = time.time()
        self._worker = wiring.worker_name(config)
        self._redis_settings: RedisSettings | None = None
        self._parts: Parts | None = None

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
                where = {"socket": str(self.config.daemon.socket), "slots": self.config.worker.slots}
                log.info("moonxd %s works as %s", VERSION, self._worker, extra=where)
                on_ready()
            await self.stop.wait()
            await self._drain(parts)
            # What the last jobs told leaves with them; a second signal leaves it to the next daemon.
            await unless(self._hurry, parts.publishing.flush)
            # The private redis-server is not among them: it outlives the connections to it.
            for child in reversed(children):
                await supervisor.stop_child(child.name)
        log.info("stopped")

    async def _drain(self, parts: Parts) -> None:
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

    async def _open(self, supervisor: Supervisor, resources: AsyncExitStack) -> Parts | None:
        """None when we were told to stop meanwhile."""
        config = self.config
        wiring.make_state_dir(config.state_dir)
        settings = await self._redis(supervisor)
        if settings is None:
            return None
        redis = await resources.enter_async_context(open_redis(settings))
        await unless(self.stop, partial(_reach_redis, redis))
        ledger = await self._ledger(resources)
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
        keeper = BreakerKeeper(
            self._breakers,
            ledger.breakers(),
            recovered=self.telemetry.state_recovered,
            lost=lambda sentence: self._notices.append(Notice(kind="breaker_state_lost", message=sentence)),
        )
        await keeper.recover()
        bureau = None
        if config.stats.enabled:
            bureau = await resources.enter_async_context(open_bureau(config, redis))
        sources = wiring.new_sources(config, redis, self.telemetry, self._breakers)
        return assemble(
            Site(
                config=config,
                worker=self._worker,
                started_at=self._started_at,
                telemetry=self.telemetry,
                breakers=self._breakers,
                redis=redis,
                bureau=bureau,
                ledger=ledger,
                queue=queue,
                sources=sources,
                keeper=keeper,
                supervisor=supervisor,
                notices=self._notices,
                state=lambda: self._state,
                job_started=self._job_started,
                job_settled=self._job_settled,
            )
        )

    async def _redis(self, supervisor: Supervisor) -> RedisSettings | None:
        if self.config.redis.is_external:
            return wiring.redis_settings(self.config)
        await supervisor.start(Child(name="redis-server", body=self._run_redis_server, start_s=math.inf))
        return self._redis_settings

    async def _run_redis_server(self, ready: Callable[[], None]) -> None:
        redis = self.config.redis
        binary = str(redis.server) if redis.server else None
        appendfsync: AppendFsync = "always" if redis.appendfsync == "always" else "everysec"
        async with embedded_redis(self.config.state_dir, appendfsync=appendfsync, binary=binary) as server:
            self._redis_settings = msgspec.structs.replace(server.settings, connections=wiring.connections(self.config))
            if server.was_torn:
                self._notices.append(torn_queue(self.config.state_dir))
            ready()
            code = await server.wait_dead()
        raise Transient(f"redis-server ended with code {code}: its log is {self.config.state_dir / 'redis.log'}")

    async def _ledger(self, resources: AsyncExitStack) -> Database | None:
        """Raises Transient when the database stays away for REACH_S."""
        deadline, pause = trio.current_time() + REACH_S, 0.5
        while not self.stop.is_set():
            try:
                return await resources.enter_async_context(wiring.open_ledger(self.config))
            except Transient as error:
                if trio.current_time() + pause > deadline:
                    raise
                log.warning("the ledger is not there yet: %s", error)
            await trio.sleep(pause)
            pause = min(pause * 2, 5.0)
        return None

    # ---- children ------------------------------------------------------------------------------------------------

    def _children(self, parts: Parts) -> tuple[Child, ...]:
        """In the order of their start; the consumer last, so that it claims nothing before everything works."""
        worker = self.config.worker
        orphaned_s = ORPHAN_FACTOR * (worker.lock_s + worker.stalled_interval_s)
        janitor = Janitor(
            parts.ledger,
            interval_s=worker.janitor_interval_s,
            grace_s=orphaned_s,
            version=VERSION,
            clock=wiring.WallClock(),
        )
        consumer = Child(name="consumer", body=partial(self._run_consumer, parts.consumer))
        return (
            Child(name="control", body=partial(self._run_control, parts.plane)),
            *((parts.island,) if parts.island else ()),
            *parts.publishing.children(),
            *parts.listening.children(),
            Child(name="breakers", body=parts.keeper.run, critical=False),
            Child(name="chains", body=parts.sources.run),
            Child(name="leases", body=parts.leases.run),
            Child(name="sampler", body=parts.sampler.run, critical=False),
            Child(name="janitor", body=janitor.run, critical=False),
            Child(name="pruner", body=parts.pruner.run, critical=False),
            Child(name="announcer", body=parts.announcer.run, critical=False),
            Child(name="alarm", body=parts.alarm.run, critical=False),
            Child(name="stalled-check", body=partial(self._run_stalled_check, parts.queue)),
            *parts.periodic.children(),
            *(parts.statistics.children() if parts.statistics else ()),
            *parts.membership.children(),
            *parts.core_lists.children(),
            *(parts.cluster.children() if parts.cluster else (consumer,)),
        )

    async def _run_control(self, plane: ControlPlane, ready: Callable[[], None]) -> None:
        config = self.config
        with unix_listener(config.socket, mode=config.daemon.socket_mode) as listener:
            listeners = [listener]
            if config.http.listen is not None:
                has_token = config.http.token is not None
                listeners += await tcp_listeners(str(config.http.listen), has_token=has_token)
            stop, patience = trio.Event(), trio.CancelScope(shield=True)

            async def serve(task_status: trio.TaskStatus[None]) -> None:
                with patience:
                    await serve_control(plane, listeners, stop, grace=CONTROL_GRACE_S, task_status=task_status)

            async with trio.open_nursery() as nursery:
                try:
                    await nursery.start(serve)
                    ready()
                    await trio.sleep_forever()
                finally:
                    # Cancelled by the supervisor: the clients still get their last answer, within the grace.
                    patience.deadline = trio.current_time() + CONTROL_GRACE_S + 1
                    stop.set()

    async def _run_stalled_check(self, queue: BullQueue, ready: Callable[[], None]) -> None:
        ready()
        await run_stalled_checker(queue, interval_s=self.config.worker.stalled_interval_s)

    async def _run_consumer(self, consumer: Consumer, ready: Callable[[], None]) -> None:
        await consumer.run(ready)

    # ---- what the parts tell ---------------------------------------------------------------------------------

    def _breaker_shut(self, name: str, reason: str) -> None:
        self.telemetry.breaker_opened(name)
        told = {"breaker": name, "reason": reason}
        self._notices.append(Notice(kind="breaker_open", message=f"breaker {name} is open: {reason}", metadata=told))

    def _job_started(self, job: Job) -> None:
        due_at = (job.timestamp + job.options.delay) / 1000 if job.attempts_started <= 1 else None
        self.telemetry.job_started(job.id, job.name, job.attempts_made + 1, due_at)

    def _job_settled(self, job: Job, outcome: Outcome | None, _seconds: float) -> None:
        """`outcome` None: the job was lost to another worker."""
        word, reason = outcome_word(outcome)
        self.telemetry.job_settled(job.id, word, reason)
        if outcome is not None and self._parts is not None:
            self._parts.plane.settled(job, outcome)
            self._parts.alarm.settled(outcome)

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
            self._parts.attempts.policy = policy(loaded.config, self._worker)
            self._parts.pruner.keep = wiring.retention(loaded.config)
            self._parts.sources.replace(loaded.config)
        log.info("reloaded: %s", ", ".join(applied))


async def _reach_redis(redis: Redis) -> None:
    await redis.wait_connected(REACH_S)
    for warning in (await check_server(redis)).warnings:
        log.warning("Redis: %s", warning)
