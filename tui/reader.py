"""Follows the daemon: one stream after another, with a growing pause between attempts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from moonxd.api.schema import Delta, Snapshot

from .feed import Connect, Feed, FeedError
from .state import Changed, Connected, Connecting, Lost, Message, State

#: Seconds to wait after the first, second, ... failed attempt; the last one repeats.
BACKOFF_S = (0.5, 1.0, 2.0, 4.0)


def backoff(attempt: int) -> float:
    """Seconds to wait after failed attempt number `attempt` (0 is the first)."""
    return BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)]


class Reader:
    """`dispatch` reduces a message and returns the new state; `clock` gives unix seconds."""

    def __init__(
        self,
        connect: Connect,
        dispatch: Callable[[Message], State],
        clock: Callable[[], float],
        pause: Callable[[int], float] = backoff,
    ) -> None:
        self._connect = connect
        self._dispatch = dispatch
        self._clock = clock
        self._pause = pause
        self._attempt = 0
        #: The feed of the current stream, for actions; None while there is none.
        self.feed: Feed | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._dispatch(Connecting(self._clock()))
            reason, hint = "The daemon ended the stream", ""
            try:
                if await self._follow():
                    await asyncio.sleep(self._pause(0))
                    continue
            except FeedError as error:
                reason, hint = str(error), error.hint
            delay = self._pause(self._attempt)
            self._attempt += 1
            now = self._clock()
            self._dispatch(Lost(reason, hint, now + delay, now))
            await asyncio.sleep(delay)

    async def _follow(self) -> bool:
        """One stream; True when it was left because a delta is missing, so that the next one is a resync."""
        async with self._connect() as feed:
            try:
                async with aclosing(feed.stream()) as messages:
                    async for message in messages:
                        self.feed = feed
                        state = self._take(message)
                        self._attempt = 0
                        if state.connection.gap:
                            return True
            finally:
                self.feed = None
        return False

    def _take(self, message: Snapshot | Delta) -> State:
        now = self._clock()
        if isinstance(message, Snapshot):
            return self._dispatch(Connected(message, now))
        return self._dispatch(Changed(message, now))
