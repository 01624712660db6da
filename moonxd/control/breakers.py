"""Breakers: looking at them, and an operator's word over them."""

from __future__ import annotations

import logging

from starlette.requests import Request
from starlette.responses import Response

from ..api.messages import BreakerRequest, Breakers, BreakerView
from ..domain import breakers as domain
from .deps import Deps
from .errors import answer, not_found
from .request import DEADLINE_S, Handler, connection_of, read_optional_body

log = logging.getLogger("moonxd.control")
#: Names that a refusal lists, so that it stays readable.
_NAMED = 20


def breaker_routes(deps: Deps) -> list[tuple[str, str, Handler, float | None]]:
    """Served under /v1 only."""
    desk = BreakerDesk(deps)
    return [
        ("GET", "/breakers", desk.page, DEADLINE_S),
        ("POST", "/breakers/{name:path}/cordon", desk.cordon, DEADLINE_S),
        ("POST", "/breakers/{name:path}/uncordon", desk.uncordon, DEADLINE_S),
        ("POST", "/breakers/{name:path}/reset", desk.reset, DEADLINE_S),
    ]


class BreakerDesk:
    """The handlers of /breakers."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def page(self, request: Request) -> Response:
        views = () if self._deps.breakers is None else self._deps.breakers.views()
        return answer(Breakers(breakers=tuple(map(_view, views))))

    async def cordon(self, request: Request) -> Response:
        breakers, name, ask = await self._read(request)
        breakers.cordon(name, ask.reason or "by an operator, who gave no reason", ask.ttl_s)
        return self._changed(request, "cordoned", name, ask)

    async def uncordon(self, request: Request) -> Response:
        breakers, name, ask = await self._read(request)
        breakers.uncordon(name)
        return self._changed(request, "uncordoned", name, ask)

    async def reset(self, request: Request) -> Response:
        breakers, name, ask = await self._read(request)
        breakers.reset(name)
        return self._changed(request, "reset", name, ask)

    async def _read(self, request: Request) -> tuple[domain.Breakers, str, BreakerRequest]:
        ask = await read_optional_body(request, BreakerRequest, BreakerRequest())
        name, breakers = request.path_params["name"], self._deps.breakers
        if breakers is None or name not in breakers:
            known = [] if breakers is None else [view.name for view in breakers.views()]
            shown = ", ".join(known[:_NAMED]) + (", ..." if len(known) > _NAMED else "")
            raise not_found(f"there is no breaker {name[:200]!r}", f"there are: {shown or 'none'}")
        return breakers, name, ask

    def _changed(self, request: Request, what: str, name: str, ask: BreakerRequest) -> Response:
        assert self._deps.breakers is not None
        peer = connection_of(request)
        log.warning(
            "breaker %s %s",
            name,
            what,
            extra={"breaker": name, "reason": ask.reason, "ttl_s": ask.ttl_s, "peer_uid": peer.uid},
        )
        return answer(_view(self._deps.breakers.view(name)))


def _view(view: domain.View) -> BreakerView:
    return BreakerView(
        name=view.name, state=view.mode, failures=view.failures, opened_at=view.opened_at, reason=view.reason
    )
