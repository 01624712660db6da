"""Listens to what other programs say of users (user.activities): who is there is synced periodically.

A message is committed after what it says is written, so that one which is read twice is nothing new, and none is lost.
What nobody can read is counted, said in the log, and passed by: one such message must not stop the listener.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import trio

from ..domain.activity import Sign, sign_of
from ..domain.errors import Permanent, Transient
from ..domain.message import Received
from ..ports import Feed

log = logging.getLogger("moonxd.activities")

#: Seconds that are waited for a message, and for more of them once there is one.
WAIT_S, GATHER_S = 5.0, 0.2
#: Messages that are taken together: a burst is one statement.
MOST = 5_000
#: Seconds after which a ledger that is away is asked again.
FIRST_S, LONGEST_S = 0.5, 10.0

OpenFeed = Callable[[], AbstractAsyncContextManager[Feed]]


class Activities:
    """`touch` writes signs of users, `active_s` is how long one lasts, `source` is what our own events say; `count` is
    told how many messages were touched, ours, stale or malformed. `now` gives unix seconds."""

    def __init__(
        self,
        touch: Callable[[Sequence[Sign]], Awaitable[None]],
        *,
        source: str,
        active_s: float,
        now: Callable[[], float],
        count: Callable[[Mapping[str, int]], None] = lambda counts: None,
    ) -> None:
        self._touch = touch
        self._source = source
        self._active_s = active_s
        self._now = now
        self._count = count

    async def run(self, ready: Callable[[], None], open_feed: OpenFeed) -> None:
        """Raises Transient when the feed breaks."""
        async with open_feed() as feed:
            ready()
            while True:
                page = await self._gather(feed)
                if page:
                    await self._take(page)
                    await feed.commit()

    async def _gather(self, feed: Feed) -> list[Received]:
        page = list(await feed.next(WAIT_S))
        while page and len(page) < MOST:
            more = await feed.next(GATHER_S)
            if not more:
                break
            page += more
        return page

    async def _take(self, page: Sequence[Received]) -> None:
        counts: Counter[str] = Counter()
        signs: dict[tuple[str, str | None], Sign] = {}
        for message in page:
            word, sign = self._read(message)
            counts[word] += 1
            if sign is not None:
                known = signs.get((sign.user_id, sign.wallet))
                if known is None or known.at < sign.at:
                    signs[sign.user_id, sign.wallet] = sign
        if signs:
            await self._write(tuple(signs.values()))
        self._count(counts)

    def _read(self, message: Received) -> tuple[str, Sign | None]:
        try:
            sign = sign_of(message, self._source)
        except Permanent as error:
            where = {"topic": message.topic, "partition": message.partition, "offset": message.offset}
            log.warning("a message about a user's activity is passed by: %s", error, extra=where)
            return "malformed", None
        if sign is None:
            return "ignored", None
        now = self._now()
        if sign.at < now - self._active_s:
            # A topic that is read from its beginning must not wake everybody who was ever there.
            return "stale", None
        return "touched", Sign(user_id=sign.user_id, wallet=sign.wallet, at=min(sign.at, now))

    async def _write(self, signs: Sequence[Sign]) -> None:
        pause = FIRST_S
        while True:
            try:
                await self._touch(signs)
                return
            except Transient as error:
                log.warning("%d active users wait to be noted: %s", len(signs), error)
            await trio.sleep(pause)
            pause = min(pause * 2, LONGEST_S)
