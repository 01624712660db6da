"""Finding events in the outbox, which knows no other order than its positions."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from ..domain.event_filter import EventFilter
from ..domain.ledger import StoredEvent
from ..ports import Outbox

#: Events read at a time, and looked at in one request: whoever wants more asks again from where it ended.
PAGE, MOST = 1000, 20_000
#: Positions are given in commit order, times are those of the writing: a transaction may lie between.
_SLACK = timedelta(seconds=60)


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """`next` is where to go on; `more` is False once the end of the outbox, or of the time asked for, was reached."""

    events: tuple[StoredEvent, ...]
    next: int
    more: bool


async def scan(outbox: Outbox, wanted: EventFilter, after: int, limit: int) -> Found:
    """At most `limit` events behind the position `after`."""
    found: list[StoredEvent] = []
    seen = 0
    while seen < MOST:
        page = await outbox.read(after, PAGE)
        for stored in page:
            if wanted.until is not None and stored.created_at >= wanted.until + _SLACK:
                return Found(events=tuple(found), next=after, more=False)
            after = stored.position
            if wanted.matches(stored):
                found.append(stored)
                if len(found) == limit:
                    return Found(events=tuple(found), next=after, more=True)
        if len(page) < PAGE:
            return Found(events=tuple(found), next=after, more=False)
        seen += len(page)
    return Found(events=tuple(found), next=after, more=True)


async def before(outbox: Outbox, moment: datetime) -> int:
    """A position behind which everything since `moment` stands."""
    return await _first(outbox, moment - _SLACK)


async def end(outbox: Outbox) -> int:
    """The last position; 0 in an empty outbox."""
    return await _first(outbox, None)


async def _first(outbox: Outbox, moment: datetime | None) -> int:
    """The lowest position behind which nothing older than `moment` stands (None: nothing at all), by halving."""

    async def is_behind(position: int) -> bool:
        page = await outbox.read(position, 1)
        return not page or (moment is not None and page[0].created_at >= moment)

    if await is_behind(0):
        return 0
    low, high = 0, PAGE
    while not await is_behind(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if await is_behind(middle):
            high = middle
        else:
            low = middle
    return high
