"""A control plane on a real unix socket, over a real queue and the in-memory ledger."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import trio

from moonxd.adapters.bullmq.queue import BullQueue
from moonxd.adapters.memory.ledger import MemoryLedger
from moonxd.adapters.redis.client import open_redis
from moonxd.adapters.redis.settings import parse_redis_url
from moonxd.api.calls import Call
from moonxd.api.client import Client
from moonxd.api.messages import DependencyState
from moonxd.api.schema import Child, Daemon, QueueDepth, Rates, Snapshot
from moonxd.control.feed import Feed
from moonxd.control.server import ControlPlane, Deps, serve_control
from moonxd.control.socket import unix_listener
from moonxd.domain.job import Completed, Failed, Job, JobOptions, NewJob, Outcome

T = TypeVar("T")
WALLET = "0x" + "ab" * 20
_numbers = count(1)
PICTURE = Snapshot(
    seq=0,
    at=0.0,
    daemon=Daemon(
        version="0.1.0",
        pid=4242,
        worker="test-worker",
        host="testhost",
        state="running",
        started_at=0,
        slots=10,
        slots_busy=0,
        is_paused=False,
        rss_bytes=50_000_000,
        cpu=0.0,
        loop_lag=0.0,
        redis="embedded",
        database="embedded",
    ),
    queue=QueueDepth(
        name="q",
        waiting=0,
        prioritized=0,
        active=0,
        delayed=0,
        waiting_children=0,
        completed=0,
        failed=0,
        paused=0,
        is_paused=False,
    ),
    rates=Rates(completed=0, failed=0, retried=0, per_second=0.0, p50=None, p95=None),
    running=(),
    chains=(),
    breakers=None,
    failures=(),
    children=(),
)


class WallClock:
    def now(self) -> float:
        return time.time()


class Bench:
    """The parts behind the plane, and what the plane did to them."""

    def __init__(self, queue: BullQueue) -> None:
        self.queue = queue
        self.ledger = MemoryLedger(WallClock())
        self.cancellable: set[str] = set()
        self.worker_paused = False
        self.dependencies: dict[str, DependencyState] = {"redis": DependencyState(ok=True)}
        self.samples = 0
        self.state = "running"
        self.slots_busy = 0
        self.children: tuple[Child, ...] = ()

    async def sample(self) -> Snapshot:
        self.samples += 1
        counts = msgspec.structs.asdict(await self.queue.counts())
        now = time.time()
        daemon = msgspec.structs.replace(
            PICTURE.daemon,
            state=self.state,
            started_at=now - 60,
            slots_busy=self.slots_busy,
            is_paused=self.worker_paused,
        )
        queue = QueueDepth(name=self.queue.name, **counts)
        return msgspec.structs.replace(PICTURE, at=now, daemon=daemon, queue=queue, children=self.children)

    def pause_worker(self, paused: bool) -> None:
        self.worker_paused = paused

    async def check_dependencies(self) -> dict[str, DependencyState]:
        return self.dependencies

    def deps(self) -> Deps:
        return Deps(
            queue_name=self.queue.name,
            worker="test-worker",
            queue_admin=self.queue,
            upkeep=self.queue,
            ledger=self.ledger,
            letters=self.ledger,
            outbox=self.ledger,
            sample=self.sample,
            cancel_running=lambda job_id: job_id in self.cancellable,
            pause_worker=self.pause_worker,
            dependencies=self.check_dependencies,
            metrics=lambda: b"sync_jobs_active 0\n",
        )

    # ---- a worker by hand

    async def add(self, name: str = "portfolio-sync", user: str = "u1", **fields: Any) -> str:
        (job_id,) = await self.queue.add([NewJob(name=name, data={"userId": user, "walletAddress": WALLET}, **fields)])
        return job_id

    async def claim(self) -> Job:
        claim = await self.queue.claim()
        assert claim.job is not None, "nothing to claim"
        return claim.job

    async def end_next(self, outcome: Outcome) -> Job:
        job = await self.claim()
        await self.queue.settle(job, outcome, fetch=False)
        return job

    async def add_failed(self, reason: str, **fields: Any) -> str:
        job_id = await self.add(options=JobOptions(attempts=1), **fields)
        await self.end_next(Failed(reason))
        return job_id

    async def add_completed(self, value: bytes = b'{"success":true}', **fields: Any) -> str:
        job_id = await self.add(**fields)
        await self.end_next(Completed(value))
        return job_id


class Served(Bench):
    """A bench whose plane answers on `socket`."""

    def __init__(self, queue: BullQueue, socket: Path) -> None:
        super().__init__(queue)
        self.socket = socket
        self.plane: ControlPlane
        self.stop = trio.Event()

    async def call(self, call: Call[T]) -> T:
        return await in_thread(lambda client: client.call(call), self.socket)


async def in_thread(use: Callable[[Client], T], socket: Path) -> T:
    """The blocking client, beside the server's loop."""

    def run() -> T:
        with Client(socket) as client:
            return use(client)

    return await trio.to_thread.run_sync(run)


@asynccontextmanager
async def queue_on(redis_url: str) -> AsyncGenerator[BullQueue]:
    async with open_redis(parse_redis_url(redis_url, command_timeout_s=1.0)) as redis:
        yield BullQueue(redis, f"control-{next(_numbers)}", worker_name="test-worker")


@asynccontextmanager
async def serving(
    redis_url: str,
    socket: Path,
    *,
    grace: float = 1.0,
    feed: dict[str, Any] | None = None,
    stalled: float = 30.0,
    **replaced: Any,
) -> AsyncGenerator[Served]:
    """A served plane; at the end it is stopped, which has to work within the grace whatever its clients do."""
    async with queue_on(redis_url) as queue:
        bench = Served(queue, socket)
        deps = dataclasses.replace(bench.deps(), **replaced)
        bench.plane = ControlPlane(deps, feed=Feed(deps.sample, **(feed or {"period": 0.02})), stalled=stalled)
        with unix_listener(socket) as listener, trio.CancelScope() as patience:
            async with trio.open_nursery() as nursery:
                await nursery.start(partial(serve_control, bench.plane, [listener], bench.stop, grace=grace))
                yield bench
                bench.stop.set()
                patience.deadline = trio.current_time() + grace + 3
        assert not patience.cancelled_caught, "the server did not end within its grace"
