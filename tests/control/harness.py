"""A control plane on a real unix socket over in-memory parts, for tests of the server, the client and the CLI."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio

from moonxd.adapters.memory.ledger import MemoryLedger
from moonxd.api.calls import Call
from moonxd.api.client import Client
from moonxd.api.messages import DependencyState
from moonxd.api.schema import Child, Daemon, QueueDepth, Rates, Snapshot
from moonxd.control.feed import Feed
from moonxd.control.server import ControlPlane, Deps, serve_control
from moonxd.control.socket import unix_listener
from moonxd.domain.job import JobState
from tests.control.fake_queue import FakeQueue

T = TypeVar("T")
NOW = 1_750_000_000.0


class FixedClock:
    def now(self) -> float:
        return NOW


class Bench:
    """The parts behind the plane, and what the plane did to them."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.queue = FakeQueue()
        self.ledger = MemoryLedger(FixedClock())
        self.running: set[str] = set()
        self.worker_paused = False
        self.dependencies: dict[str, DependencyState] = {"redis": DependencyState(ok=True)}
        self.samples = 0
        self.slots_busy = 0
        self.children: tuple[Child, ...] = ()
        self.plane: ControlPlane
        self.stop = trio.Event()

    async def sample(self) -> Snapshot:
        self.samples += 1
        daemon = Daemon(
            version="0.1.0",
            pid=4242,
            worker="test-worker",
            host="testhost",
            state="running",
            started_at=NOW - 60,
            slots=10,
            slots_busy=self.slots_busy,
            is_paused=self.worker_paused,
            rss_bytes=50_000_000,
            cpu=0.03,
            loop_lag=0.001,
            redis="embedded",
            database="embedded",
        )
        states = [view.state for view in self.queue.jobs.values()]
        depth = QueueDepth(
            name="sync-jobs",
            waiting=states.count(JobState.WAITING),
            prioritized=states.count(JobState.PRIORITIZED),
            active=states.count(JobState.ACTIVE),
            delayed=states.count(JobState.DELAYED),
            waiting_children=0,
            completed=states.count(JobState.COMPLETED),
            failed=states.count(JobState.FAILED),
            paused=0,
            is_paused=self.queue.paused,
            fresh=not self.queue.away,
        )
        rates = Rates(completed=0, failed=0, retried=0, per_second=0.0, p50=None, p95=None)
        return Snapshot(
            seq=0,
            at=NOW,
            daemon=daemon,
            queue=depth,
            rates=rates,
            running=(),
            chains=(),
            breakers=None,
            failures=(),
            children=self.children,
        )

    def cancel_running(self, job_id: str) -> bool:
        return job_id in self.running

    def pause_worker(self, paused: bool) -> None:
        self.worker_paused = paused

    async def check_dependencies(self) -> dict[str, DependencyState]:
        return self.dependencies

    def deps(self) -> Deps:
        return Deps(
            queue_name="sync-jobs",
            worker="test-worker",
            queue_admin=self.queue,
            ledger=self.ledger,
            letters=self.ledger,
            outbox=self.ledger,
            sample=self.sample,
            cancel_running=self.cancel_running,
            pause_worker=self.pause_worker,
            dependencies=self.check_dependencies,
            metrics=lambda: b"sync_jobs_active 0\n",
            now=FixedClock().now,
        )

    async def call(self, call: Call[T]) -> T:
        return await in_thread(lambda client: client.call(call), self.socket)


async def in_thread(use: Callable[[Client], T], socket: Path) -> T:
    """The blocking client beside the server's loop."""

    def run() -> T:
        with Client(socket) as client:
            return use(client)

    return await trio.to_thread.run_sync(run)


@asynccontextmanager
async def serving(
    socket: Path,
    *,
    grace: float = 1.0,
    feed: dict[str, Any] | None = None,
    **replaced: Any,
) -> AsyncGenerator[Bench]:
    """A served plane; at the end it is stopped, which has to work within the grace."""
    bench = Bench(socket)
    deps = dataclasses.replace(bench.deps(), **replaced)
    bench.plane = ControlPlane(deps, feed=Feed(deps.sample, **(feed or {"period": 0.02})))
    with unix_listener(socket) as listener, trio.CancelScope() as patience:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_control, bench.plane, [listener], bench.stop, grace=grace))
            yield bench
            bench.stop.set()
            patience.deadline = trio.current_time() + grace + 3
    assert not patience.cancelled_caught, "the server did not end within its grace"
