"""Asks for statistics again and again, over a connection of its own, for as long as somebody looks at them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .feed import Connect, Feed, FeedError, NoStatistics
from .figures import SPAN_S, STEP_S, Asking, Measured, News, Unmeasured
from .reader import backoff

#: Seconds between an answer and the next request.
EVERY_S = 5.0


class Poller:
    """`dispatch` takes what was learned; `pause` gives the seconds to wait after the first, second, ... failure."""

    def __init__(
        self,
        connect: Connect,
        dispatch: Callable[[News], object],
        clock: Callable[[], float],
        *,
        every: float = EVERY_S,
        pause: Callable[[int], float] = backoff,
    ) -> None:
        self._connect = connect
        self._dispatch = dispatch
        self._clock = clock
        self._every = every
        self._pause = pause
        self._attempt = 0

    async def run(self) -> None:
        """Until cancelled; that ends the request under way and closes the connection."""
        while True:
            try:
                async with self._connect() as feed:
                    await self._follow(feed)
            except FeedError as error:
                self._dispatch(Unmeasured(str(error), error.hint, not isinstance(error, NoStatistics)))
            delay = self._pause(self._attempt)
            self._attempt += 1
            await asyncio.sleep(delay)

    async def _follow(self, feed: Feed) -> None:
        """Until a request fails."""
        while True:
            now = self._clock()
            self._dispatch(Asking(now))
            found = await feed.statistics(since=now - SPAN_S, step=STEP_S)
            self._dispatch(Measured(found, self._clock()))
            self._attempt = 0
            await asyncio.sleep(self._every)
