"""The control plane's server. How the daemon wires it:

    plane = ControlPlane(Deps(...))            # control/deps.py; every field is explained there:
        queue_name: str, worker: str, queue_admin: QueueAdmin, ledger: Ledger,
        letters: DeadLetters | None, outbox: Outbox | None,
        sample: () -> Awaitable[Snapshot], cancel_running: (job id) -> bool, pause_worker: (bool) -> None,
        dependencies: () -> Awaitable[Mapping[str, DependencyState]], metrics: () -> bytes (or Awaitable[bytes]),
        workers: (() -> Awaitable[tuple[WorkerView, ...]]) | None = None,
        upkeep: QueueUpkeep | None = None,
        scheduling: Scheduling | None = None, now: () -> float = time.time, pid: int = os.getpid()

    with unix_listener(socket_path, mode=0o660) as listener:      # control/socket.py; SocketInUse is a ConfigError
        listeners = [listener, *await tcp_listeners("127.0.0.1:3001")]
        await nursery.start(partial(serve_control, plane, listeners, stop))

    plane.settled(job, outcome)                # by the worker, after the queue took the outcome: wakes `--wait`

`serve_control` ends within `grace` seconds of `stop`, whatever its clients do; live streams and long polls end at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..api.messages import API_VERSION, Index, Problem
from ..domain.job import Job, Outcome
from .breakers import breaker_routes
from .connections import App, serve_app
from .dead import DEADLINE_S as REQUEUE_S
from .deps import Deps
from .dlq import DeadLetterOffice
from .errors import Refused, answer, error_answer
from .events import event_routes
from .feed import Feed
from .health import HealthChecks
from .jobs import MAX_WAIT_S, Jobs
from .live.server import LiveFeed
from .request import DEADLINE_S, Handler, guarded
from .requeue import requeue
from .settled import Settlements
from .stats import stats_routes
from .story import Story
from .stream import STALLED_S, EventStream
from .users import user_routes
from .wallets import Wallets
from .workers import Fleet

__all__ = ["ControlPlane", "Deps", "serve_control"]

#: Viewers beyond it are refused: each holds a connection for hours.
MAX_VIEWERS = 64


class ControlPlane:
    """The API of one daemon: the routes and what they share. A viewer that takes nothing for `stalled` s is cut."""

    def __init__(
        self, deps: Deps, *, feed: Feed | None = None, live: LiveFeed | None = None, stalled: float = STALLED_S
    ) -> None:
        self._deps = deps
        #: Browsers on GET /v1/ws; the other paths are `app`'s.
        self.live = live
        self._stalled = stalled
        self._settlements = Settlements()
        self._feed = feed or Feed(deps.sample)
        self.app: App
        self.open()

    @property
    def viewers(self) -> int:
        """Live streams open now."""
        return self._feed.watchers

    @property
    def waiters(self) -> int:
        """Jobs that somebody waits for now."""
        return self._settlements.watched

    def settled(self, job: Job, outcome: Outcome) -> None:
        """`outcome` of `job` is in the queue: whoever waits for the job hears of it now."""
        self._settlements.note(job, outcome, int(self._deps.now() * 1000))
        if self.live is not None:
            self.live.nudge()

    async def run(self) -> None:
        """What runs beside the requests, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._feed.run)
            if self.live is not None:
                nursery.start_soon(self.live.run)

    def open(self) -> None:
        """Take back what `quiet` said: whoever failed and is started again serves as before."""
        self._stopping = trio.Event()
        self.app = Starlette(routes=self._routes(), exception_handlers={HTTPException: _no_such_route})
        self._feed.open()
        if self.live is not None:
            self.live.open()

    def quiet(self) -> None:
        """End live streams and long polls: the daemon stops."""
        self._stopping.set()
        self._feed.close()
        if self.live is not None:
            self.live.quiet()

    async def _stream(self, request: Request) -> Response:
        if self._feed.watchers >= MAX_VIEWERS:
            raise Refused(503, "busy", f"{MAX_VIEWERS} viewers watch already", "close one of them")
        return EventStream(self._feed.frames(), stalled=self._stalled)

    def _routes(self) -> list[Route]:
        """Every path is served under /v1; those that dashboards know from before also without it."""
        story = Story(self._deps)
        health, fleet, wallets = HealthChecks(self._deps), Fleet(self._deps), Wallets(self._deps, story)
        jobs = Jobs(self._deps, story, self._settlements, self._stopping)
        office = DeadLetterOffice(self._deps)
        both: list[tuple[str, str, Handler, float | None]] = [
            ("GET", "/health", health.health, DEADLINE_S),
            ("GET", "/health/live", health.live, DEADLINE_S),
            ("GET", "/health/ready", health.ready, DEADLINE_S),
            ("GET", "/metrics", health.metrics, DEADLINE_S),
            ("GET", "/queue-stats", health.queue_stats, DEADLINE_S),
            ("POST", "/jobs", jobs.add, DEADLINE_S),
            ("GET", "/jobs", jobs.page, DEADLINE_S),
            ("POST", "/jobs/requeue", partial(requeue, self._deps), REQUEUE_S),
            # An id may contain a slash, so the longer paths come first.
            ("POST", "/jobs/{job_id:path}/promote", jobs.promote, DEADLINE_S),
            ("GET", "/jobs/{job_id:path}/wait", jobs.wait, MAX_WAIT_S + DEADLINE_S),
            ("GET", "/jobs/{job_id:path}", jobs.show, DEADLINE_S),
            ("DELETE", "/jobs/{job_id:path}", jobs.cancel, DEADLINE_S),
            ("GET", "/workers", fleet.page, DEADLINE_S),
            ("POST", "/workers/pause", fleet.pause, DEADLINE_S),
            ("POST", "/workers/resume", fleet.resume, DEADLINE_S),
            ("POST", "/workers/restart", fleet.restart, DEADLINE_S),
        ]
        own: list[tuple[str, str, Handler, float | None]] = [
            *breaker_routes(self._deps),
            ("GET", "/portfolio/{wallet}/history", wallets.history, DEADLINE_S),
            ("GET", "/dlq", office.page, DEADLINE_S),
            ("POST", "/dlq/requeue", partial(requeue, self._deps), REQUEUE_S),
            ("POST", "/dlq/purge", office.purge, REQUEUE_S),
            ("GET", "/dlq/{job_id:path}", office.show, DEADLINE_S),
            ("GET", "/portfolio/{wallet}", wallets.portfolio, DEADLINE_S),
            ("GET", "/operations", wallets.operations, DEADLINE_S),
            ("GET", "/status", health.status, DEADLINE_S),
            ("GET", "/stream", self._stream, None),
            ("GET", "/version", health.version, DEADLINE_S),
            *event_routes(self._deps, self._stopping),
            *user_routes(self._deps),
            *stats_routes(self._deps),
        ]
        tables = (("/v1", both), ("/v1", own), ("", both))
        paths = [f"{method} {prefix}{path}" for prefix, table in tables for method, path, _, _ in table]
        if self.live is not None:
            paths.append("GET /v1/ws")
        index = Index(api=API_VERSION, paths=tuple(paths))

        async def show_index(request: Request) -> Response:
            return answer(index)

        return [
            Route("/v1", guarded(show_index, self._deps.gate), methods=["GET"]),
            *(
                Route(prefix + path, guarded(handler, self._deps.gate, deadline), methods=[method])
                for prefix, table in tables
                for method, path, handler, deadline in table
            ),
        ]


async def _no_such_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    message = f"{request.method} {request.url.path[:200]} is not part of this API"
    hint = "the method is wrong for this path" if status == 405 else "GET /v1 lists every path"
    return error_answer(status, Problem(code="not-found" if status == 404 else "refused", message=message, hint=hint))


async def serve_control(
    plane: ControlPlane,
    listeners: Sequence[trio.SocketListener],
    stop: trio.Event,
    *,
    grace: float = 2.0,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `plane` on `listeners` until `stop` is set; the listeners are closed then."""
    plane.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(plane.run)
        nursery.start_soon(_quiet_at, stop, plane)
        await serve_app(plane.app, listeners, stop, grace=grace, detour=plane.live, task_status=task_status)
        nursery.cancel_scope.cancel()


async def _quiet_at(stop: trio.Event, plane: ControlPlane) -> None:
    await stop.wait()
    plane.quiet()
