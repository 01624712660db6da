"""Statistics: the latest values, their history, and how the collectors stand."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ..api.stats import (
    MAX_POINTS,
    BridgesReply,
    BridgeView,
    ChainsReply,
    ChainView,
    OverviewReply,
    PointView,
    Series,
)
from ..domain.stats import Health, Point
from .deps import Deps, Statistics
from .errors import answer, invalid, not_found
from .request import DEADLINE_S, Handler, moment, seconds

V = TypeVar("V")

#: Seconds of a step that nobody named, and the longest.
_STEP_S, _STEP_MAX_S = 60.0, 86_400.0


def stats_routes(deps: Deps) -> list[tuple[str, str, Handler, float | None]]:
    """Served under /v1 only."""
    desk = StatsDesk(deps)
    return [
        ("GET", "/stats/chains", desk.chains, DEADLINE_S),
        ("GET", "/stats/bridges", desk.bridges, DEADLINE_S),
        ("GET", "/stats/overview", desk.overview, DEADLINE_S),
    ]


class StatsDesk:
    """The handlers of /stats."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def chains(self, request: Request) -> Response:
        archive, span = self._statistics().archive, self._span(request)
        rows = await archive.chains()
        history = []
        for row in rows if span else ():
            since, until, step = span or (0, 0, 0.0)
            points = await archive.chain_history(row.chain_id, since_ms=since, until_ms=until, step_s=step)
            history.append(_series(row.slug, points))
        return answer(ChainsReply(chains=tuple(_view(row, ChainView) for row in rows), history=tuple(history)))

    async def bridges(self, request: Request) -> Response:
        archive, span = self._statistics().archive, self._span(request)
        rows = await archive.bridges()
        history = []
        for row in rows if span else ():
            since, until, step = span or (0, 0, 0.0)
            points = await archive.bridge_history(row.provider, row.route, since_ms=since, until_ms=until, step_s=step)
            history.append(_series(f"{row.provider} {row.route}", points))
        return answer(BridgesReply(bridges=tuple(_view(row, BridgeView) for row in rows), history=tuple(history)))

    async def overview(self, request: Request) -> Response:
        statistics = self._statistics()
        archive = statistics.archive
        found = await archive.overview()
        # Before the first one, what was measured since.
        chains = await archive.chains() if found is None else found.chains
        bridges = await archive.bridges() if found is None else found.bridges
        return answer(
            OverviewReply(
                at_ms=None if found is None else found.at_ms,
                status=Health.UNKNOWN if found is None else found.status,
                chains=tuple(_view(row, ChainView) for row in chains),
                bridges=tuple(_view(row, BridgeView) for row in bridges),
                collectors=statistics.collectors(),
                costs=statistics.costs,
            )
        )

    def _statistics(self) -> Statistics:
        if self._deps.statistics is None:
            raise not_found("this daemon keeps no statistics", "set stats.enabled = true")
        return self._deps.statistics

    def _span(self, request: Request) -> tuple[int, int, float] | None:
        """From, to (epoch ms) and step of the history that was asked for."""
        since = moment(request, "since")
        if since is None:
            return None
        step = seconds(request, "step", _STEP_S, high=_STEP_MAX_S)
        now = self._deps.now()
        if step <= 0 or (now - since.timestamp()) / step > MAX_POINTS:
            raise invalid(f"more than {MAX_POINTS} steps are asked for", "name a later `since` or a longer `step`")
        return int(since.timestamp() * 1000), int(now * 1000) + 1, step


def _series(key: str, points: tuple[Point, ...]) -> Series:
    return Series(key=key, points=tuple(_view(point, PointView) for point in points))


def _view(row: msgspec.Struct, kind: type[V]) -> V:
    return msgspec.convert(row, kind, from_attributes=True)
