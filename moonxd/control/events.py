"""Committed events: pages of them, following them, and sending them again."""

from __future__ import annotations

from datetime import UTC, datetime
from fnmatch import fnmatchcase

import trio
from starlette.requests import Request
from starlette.responses import Response

from ..api.events import ReplayRequest, ReplayResult
from ..api.messages import EventsPage
from ..domain.event_filter import EventFilter
from ..domain.events import EVENT_TYPES
from ..ports import Outbox
from .deps import Deps
from .errors import Refused, answer, conflict, invalid, not_found
from .request import DEADLINE_S, Handler, integer, moment, read_body, seconds
from .scan import Found, before, end, scan
from .views import event_view

#: Longest that a request waits for the next event, and how often it looks.
MAX_WAIT_S, LOOK_S = 30.0, 0.25
#: Events sent again in one request, and seconds that may take.
MOST_SENT, REPLAY_S = 1000, 120.0


def event_routes(deps: Deps, stopping: trio.Event) -> list[tuple[str, str, Handler, float | None]]:
    """Served under /v1 only."""
    events = Events(deps, stopping)
    return [
        ("GET", "/events", events.page, MAX_WAIT_S + DEADLINE_S),
        ("POST", "/events/replay", events.replay, REPLAY_S),
    ]


class Events:
    """The handlers of /events."""

    def __init__(self, deps: Deps, stopping: trio.Event) -> None:
        self._deps = deps
        self._stopping = stopping

    async def page(self, request: Request) -> Response:
        """With `wait`: as soon as there is one that matches, or an empty page after so many seconds."""
        outbox, wanted = self._outbox(), _filter(request)
        limit = integer(request, "limit", 100, low=1, high=1000)
        deadline = trio.current_time() + seconds(request, "wait", 0.0, high=MAX_WAIT_S)
        found = await scan(outbox, wanted, await self._start(request, outbox, wanted), limit)
        while not found.events and not found.more and trio.current_time() < deadline and not self._stopping.is_set():
            with trio.move_on_at(min(deadline, trio.current_time() + LOOK_S)):
                await self._stopping.wait()
            found = await scan(outbox, wanted, found.next, limit)
        return answer(
            EventsPage(
                events=tuple(event_view(one) for one in found.events),
                next=found.next,
                backlog=await outbox.backlog(),
                more=found.more,
            )
        )

    async def _start(self, request: Request, outbox: Outbox, wanted: EventFilter) -> int:
        """`after` if given; else by time, or so that the `last` ones are left."""
        after = integer(request, "after", 0, low=0, high=2**63 - 1)
        last = integer(request, "last", -1, low=-1, high=1000)
        if after == 0 and wanted.since is not None:
            return await before(outbox, wanted.since)
        if after == 0 and last >= 0:
            return max(0, await end(outbox) - last)
        return after

    async def replay(self, request: Request) -> Response:
        """One step: at most MOST_SENT events behind `after`. Those that were never published are the relay's."""
        ask = await read_body(request, ReplayRequest)
        resend = self._deps.resend
        if resend is None:
            raise conflict("this daemon publishes to no Kafka, so there is nowhere to send events again", NO_KAFKA)
        wanted = _replay_filter(ask)
        outbox = self._outbox()
        after = ask.after or await before(outbox, _moment(ask.since))
        found = await scan(outbox, wanted, after, MOST_SENT)
        chosen = tuple(one for one in found.events if one.published_at is not None and one.parked is None)
        if chosen and not ask.dry_run:
            await resend(chosen)
        return answer(_result(found, len(chosen), sent=0 if ask.dry_run else len(chosen)))

    def _outbox(self) -> Outbox:
        if self._deps.outbox is None:
            raise not_found("this daemon keeps no outbox of events")
        return self._deps.outbox


NO_KAFKA = "set kafka.brokers (docs/operations.md), or read the events with GET /v1/events"


def _result(found: Found, matched: int, *, sent: int) -> ReplayResult:
    return ReplayResult(matched=matched, sent=sent, next=found.next, more=found.more)


def _filter(request: Request) -> EventFilter:
    params = request.query_params
    types = tuple(params.getlist("type"))
    _check(types)
    return EventFilter(
        types=types,
        topics=tuple(params.getlist("topic")),
        users=tuple(params.getlist("user")),
        wallet=params["wallet"].lower() if "wallet" in params else None,
        since=moment(request, "since"),
        until=moment(request, "until"),
    )


def _replay_filter(ask: ReplayRequest) -> EventFilter:
    _check(ask.types)
    if ask.until <= ask.since:
        raise invalid("`until` is not behind `since`", "both are unix seconds; nothing lies between them")
    return EventFilter(
        types=ask.types,
        topics=ask.topics,
        users=ask.users,
        since=_moment(ask.since),
        until=_moment(ask.until),
    )


def _moment(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise invalid(f"{seconds:g} is no time", "give seconds since 1970") from None


def _check(types: tuple[str, ...]) -> None:
    """A type that nobody sends is a slip of the pen, not a wish for nothing."""
    for one in types:
        if not any(fnmatchcase(name, one) for name in EVENT_TYPES):
            raise Refused(
                400, "unknown-event-type", f"there is no event type {one[:80]!r}", f"known: {', '.join(EVENT_TYPES)}"
            )
