"""Reads the outbox as it grows, for the clients of this daemon; it takes nothing out and holds no lock.

Every process that writes to the ledger may add events, so it looks by itself as long as somebody listens; a job that
ended in this process makes it look at once.
"""

from __future__ import annotations

import logging

import msgspec
import trio

from ...domain.errors import MoonxdError
from ...domain.ledger import StoredEvent
from ...domain.live import update_of
from ...ports import Outbox
from .hub import Hub
from .window import told

log = logging.getLogger("moonxd.control.live")

#: Seconds between two looks that nobody asked for, and between any two.
POLL_S = 0.1
_PAUSE_S = 0.02
_PAGE = 500
_READ_S = 10.0
#: The window is kept this long when everybody left: they may be back at once.
_LINGER_S = 60.0
_RETRY_S = (0.2, 5.0)


class Tail:
    """One per daemon."""

    def __init__(self, outbox: Outbox, hub: Hub, *, keep: int, poll_s: float = POLL_S, linger_s: float = _LINGER_S):
        """`keep`: how far behind the newest event the window begins."""
        self._outbox = outbox
        self._hub = hub
        self._keep = keep
        self._poll_s = poll_s
        self._linger_s = linger_s
        self._nudged = trio.Event()
        self._position = 0
        self._unreadable = 0

    def nudge(self) -> None:
        """Something was committed."""
        self._nudged.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._hub.watched.wait()
            await self._follow()
            self._hub.ready = trio.Event()

    async def _follow(self) -> None:
        """From the first client until the last one is gone for a while."""
        position: int | None = None
        pause = _RETRY_S[0]
        left_at: float | None = None
        while left_at is None or trio.current_time() - left_at < self._linger_s:
            left_at = None if self._hub.clients else left_at or trio.current_time()
            try:
                with trio.fail_after(_READ_S):
                    position = await self._begin() if position is None else position
                    count = await self._read()
            except (MoonxdError, trio.TooSlowError) as error:
                log.warning("the live feed cannot read events and tries again: %s", error or "no answer in time")
                await trio.sleep(pause)
                pause = min(pause * 2, _RETRY_S[1])
                continue
            pause = _RETRY_S[0]
            if count < _PAGE:
                self._hub.ready.set()
                await self._wait()

    async def _begin(self) -> int:
        self._position = max(0, await self._outbox.newest() - self._keep)
        self._hub.window.restart(self._position)
        return self._position

    async def _read(self) -> int:
        page = await self._outbox.read(self._position, _PAGE)
        for stored in page:
            await self._tell(stored)
            self._position = stored.position
        return len(page)

    async def _tell(self, stored: StoredEvent) -> None:
        try:
            update = update_of(stored)
        except msgspec.MsgspecError as error:
            # A row by another hand must not stop the feed.
            self._unreadable += 1
            if self._unreadable == 1:
                log.error("an event is not in the form of events and is left out of the live feed: %s", error)
            update = None
        if update is None:
            self._hub.window.pass_by(stored.position)
        else:
            await self._hub.publish(told(update))

    async def _wait(self) -> None:
        with trio.move_on_after(self._poll_s):
            await self._nudged.wait()
        self._nudged = trio.Event()
        await trio.sleep(_PAUSE_S)
