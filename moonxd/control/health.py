"""Health, readiness, metrics, status, version: what monitors and dashboards read."""

from __future__ import annotations

from collections.abc import Mapping

import trio
from starlette.requests import Request
from starlette.responses import Response

from ..api.messages import API_VERSION, DependencyState, Health, QueueStats, Ready, SchedulerStats, Version
from ..api.schema import QueueDepth, Snapshot
from ..version import VERSION
from .deps import Deps
from .enqueue import JOB_TYPES
from .errors import answer

#: Prometheus' text format.
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_CHECK_S = 5.0
_STOPPING = ("draining", "stopping")


class HealthChecks:
    """The handlers that only look."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def health(self, request: Request) -> Response:
        """Always 200 while the daemon can answer: readiness is what fails."""
        snapshot = await self._deps.sample()
        problems = tuple(_complaints(snapshot))
        daemon, scheduling = snapshot.daemon, self._deps.scheduling
        return answer(
            Health(
                status="degraded" if problems else "healthy",
                service=self._deps.service,
                version=daemon.version,
                uptime=max(0.0, snapshot.at - daemon.started_at),
                timestamp=snapshot.at,
                state=daemon.state,
                scheduler_stats=scheduling.stats() if scheduling else SchedulerStats(),
                problems=problems,
            )
        )

    async def live(self, request: Request) -> Response:
        """That this answer arrives is the proof: the event loop turns."""
        return answer({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        states, problems = await self._dependencies()
        problems += [f"{name}: {state.detail or 'down'}" for name, state in states.items() if _fails(state)]
        status = 503 if problems else 200
        word = "not-ready" if problems else "ready"
        return answer(Ready(status=word, dependencies=dict(states), problems=tuple(problems)), status)

    async def metrics(self, request: Request) -> Response:
        text = self._deps.metrics()
        return Response(text if isinstance(text, bytes) else await text, media_type=METRICS_TYPE)

    async def status(self, request: Request) -> Response:
        return answer(await self._deps.sample())

    async def version(self, request: Request) -> Response:
        return answer(
            Version(
                version=VERSION,
                api=API_VERSION,
                pid=self._deps.pid,
                worker=self._deps.worker,
                queue=self._deps.queue_name,
                job_types=tuple(JOB_TYPES),
            )
        )

    async def queue_stats(self, request: Request) -> Response:
        snapshot = await self._deps.sample()
        queue = snapshot.queue
        upkeep = self._deps.upkeep if queue.fresh else None
        by_priority = await upkeep.priorities() if upkeep else None
        oldest = await upkeep.oldest_waiting() if upkeep else None
        return answer(
            QueueStats(
                queue=queue.name,
                is_paused=queue.is_paused,
                fresh=queue.fresh,
                counts=_counts(queue),
                by_priority=None if by_priority is None else {str(key): n for key, n in sorted(by_priority.items())},
                rates=snapshot.rates,
                oldest_waiting_age=None if oldest is None else max(0.0, self._deps.now() - oldest / 1000),
            )
        )

    async def _dependencies(self) -> tuple[Mapping[str, DependencyState], list[str]]:
        state = (await self._deps.sample()).daemon.state
        problems = [f"the daemon is {state}: it takes no more jobs"] if state in _STOPPING else []
        with trio.move_on_after(_CHECK_S) as checking:
            return await self._deps.dependencies(), problems
        if checking.cancelled_caught:
            problems.append(f"the dependencies did not answer within {_CHECK_S:.0f} s")
        return {}, problems


def _complaints(snapshot: Snapshot) -> list[str]:
    failed = [
        f"{child.name} has failed: {child.last_error or 'no reason given'}"
        for child in snapshot.children
        if child.state == "failed"
    ]
    return failed if snapshot.queue.fresh else [*failed, "Redis does not answer"]


def _fails(state: DependencyState) -> bool:
    return state.required and not state.ok


def _counts(queue: QueueDepth) -> dict[str, int]:
    return {
        "waiting": queue.waiting,
        "prioritized": queue.prioritized,
        "active": queue.active,
        "delayed": queue.delayed,
        "waiting-children": queue.waiting_children,
        "completed": queue.completed,
        "failed": queue.failed,
        "paused": queue.paused,
    }
