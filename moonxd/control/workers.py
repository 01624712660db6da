"""The fleet: who works, and pausing and resuming."""

from __future__ import annotations

import logging

from starlette.requests import Request
from starlette.responses import Response

from ..api.messages import PauseRequest, PauseResult, RestartRequest, RestartResult, Workers
from .deps import Deps
from .errors import answer, conflict, not_found
from .request import connection_of, read_optional_body
from .views import worker_view

log = logging.getLogger("moonxd.control")

#: How a client names the worker it talks to without knowing its name.
THIS = "this"


class Fleet:
    """The handlers of /workers."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def page(self, request: Request) -> Response:
        if self._deps.workers is not None:
            return answer(Workers(workers=await self._deps.workers()))
        return answer(Workers(workers=(worker_view(await self._deps.sample()),)))

    async def pause(self, request: Request) -> Response:
        return await self._set(request, paused=True)

    async def resume(self, request: Request) -> Response:
        return await self._set(request, paused=False)

    async def restart(self, request: Request) -> Response:
        ask = await read_optional_body(request, RestartRequest, RestartRequest())
        if self._deps.restart_workers is None:
            raise conflict(
                "this daemon has no worker processes of its own to restart",
                "it is a single process: restart the service; `moonxd serve --workers N` runs several",
            )
        try:
            names = self._deps.restart_workers(ask.worker)
        except KeyError:
            raise not_found(f"this daemon runs no worker {ask.worker!r}", "`moonxd workers` lists them") from None
        peer = connection_of(request)
        log.warning("restarting %s", ", ".join(names), extra={"reason": ask.reason, "peer_uid": peer.uid})
        return answer(RestartResult(workers=names), 202)

    async def _set(self, request: Request, *, paused: bool) -> Response:
        ask = await read_optional_body(request, PauseRequest, PauseRequest())
        self._check(ask)
        peer = connection_of(request)
        log.warning(
            "paused" if paused else "resumed",
            extra={
                "scope": "worker" if ask.worker else "queue",
                "queue": self._deps.queue_name,
                "reason": ask.reason,
                "peer_uid": peer.uid,
                "peer_pid": peer.pid,
            },
        )
        if ask.worker not in (None, "", THIS, self._deps.worker):
            return await self._order(ask.worker, paused)
        if ask.worker:
            self._deps.pause_worker(paused)
            return answer(PauseResult(scope="worker", name=self._deps.worker, is_paused=paused))
        await self._deps.queue_admin.pause(paused)
        return answer(PauseResult(scope="queue", name=self._deps.queue_name, is_paused=paused))

    async def _order(self, worker: str, paused: bool) -> Response:
        assert self._deps.ask_worker is not None
        reply = await self._deps.ask_worker(worker, "pause" if paused else "resume", "")
        if reply is None or not reply.done:
            raise conflict(f"worker {worker!r} does not answer", "`moonxd workers` lists those that live")
        return answer(PauseResult(scope="worker", name=worker, is_paused=paused))

    def _check(self, ask: PauseRequest) -> None:
        if ask.queue not in (None, self._deps.queue_name):
            raise not_found(f"this daemon serves no queue {ask.queue!r}", f"it serves {self._deps.queue_name!r}")
        if self._deps.ask_worker is None and ask.worker not in (None, "", THIS, self._deps.worker):
            raise conflict(
                f"worker {ask.worker!r} is not this daemon ({self._deps.worker!r})",
                "ask that worker's own daemon, or leave the worker out to act on the whole queue",
            )
