"""Reads the outbox as it grows, for the clients of this daemon; it takes nothing out and holds no lock.

Every process that writes to the ledger may add events, so it looks by itself as long as somebody listens; a job that
ended in this process makes it look at once.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import msgspec
import trio

from ...domain.errors import MoonxdError
from ...domain.ledger import StoredEvent
from ...domain.live import update_of
from ...domain.paging import next_rows
from ...ports import Outbox
from .hub import Hub
from .window import told

log = logging.getLogger("moonxd.control.live")

#: Seconds between two looks that nobody asked for, and between any two.
POLL_S = 0.05
_PAUSE_S = 0.02
_PAGE = 500
#: Events, and bytes of them, between two looks at what else the loop has to do; about a millisecond.
_SLICE, _SLICE_BYTES = 50, 256 * 1024
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
        #: Events up to here were told; None: nothing was read yet.
        self._position: int | None = None
        self._rows = _PAGE
        self._unreadable = 0

    def nudge(self) -> None:
        """Something was committed."""
        self._nudged.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._hub.ready = trio.Event()
            await self._hub.watched.wait()
            await self._follow()

    async def _follow(self) -> None:
        """From the first client until the last one is gone for a while."""
        self._position, self._rows = None, _PAGE
        pause = _RETRY_S[0]
        left_at = math.inf
        while True:
            left_at = math.inf if self._hub.clients else min(left_at, trio.current_time())
            if trio.current_time() - left_at > self._linger_s:
                return
            try:
                with trio.fail_after(_READ_S):
                    page = await self._page()
            except (MoonxdError, trio.TooSlowError) as error:
                log.warning("the live feed cannot read events and tries again: %s", error or "no answer in time")
                await trio.sleep(pause)
                pause = min(pause * 2, _RETRY_S[1])
                continue
            pause = _RETRY_S[0]
            await self._tell_all(page)
            rows, self._rows = self._rows, next_rows(page, _PAGE)
            if len(page) < rows:
                self._hub.ready.set()
                await self._wait()

    async def _page(self) -> tuple[StoredEvent, ...]:
        if self._position is None:
            begin = max(0, await self._outbox.newest() - self._keep)
            self._hub.window.restart(begin)
            self._position = begin
        return await self._outbox.read(self._position, self._rows)

    async def _tell_all(self, page: Sequence[StoredEvent]) -> None:
        number = size = 0
        for stored in page:
            await self._tell(stored)
            self._position = stored.position
            number, size = number + 1, size + len(stored.event.body)
            if number >= _SLICE or size > _SLICE_BYTES:
                number = size = 0
                await trio.lowlevel.checkpoint()

    async def _tell(self, stored: StoredEvent) -> None:
        try:
            update = update_of(stored)
        except (msgspec.MsgspecError, RecursionError) as error:
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
