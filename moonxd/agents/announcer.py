"""Writes down what happens beside the jobs' own course: jobs that were added, called off, portfolios that were viewed.

Whoever tells it something neither waits nor fails. A job's own admission tells what was forgotten here, so that a crash
or a ledger that is away costs at most the news of jobs that were called off meanwhile.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from ..domain.errors import MoonxdError, Permanent
from ..domain.ledger import Event, Withdrawal
from ..ports import LedgerUpkeep

log = logging.getLogger("moonxd.announcer")

T = TypeVar("T")
#: Seconds that news is gathered before it is written in one statement.
GATHER_S = 0.05
#: Pieces of news per statement, and how many are kept while the ledger is away: the oldest go first.
PAGE, MOST = 500, 100_000
#: Seconds after which a failure is tried again, and for the last news when the daemon stops.
AWAY_S, LAST_S = 1.0, 3.0


class Announcer:
    """`tell` and `withdraw` take news at any time; `run` writes it."""

    def __init__(self, ledger: LedgerUpkeep) -> None:
        self._ledger = ledger
        self._events: deque[Event] = deque(maxlen=MOST)
        self._withdrawals: deque[Withdrawal] = deque(maxlen=MOST)
        self._wake = trio.Event()

    def tell(self, events: Sequence[Event]) -> None:
        self._events.extend(events)
        self._wake.set()

    def withdraw(self, jobs: Sequence[Withdrawal]) -> None:
        self._withdrawals.extend(jobs)
        self._wake.set()

    async def run(self, ready: Callable[[], None]) -> None:
        ready()
        try:
            while True:
                await self._wake.wait()
                await trio.sleep(GATHER_S)
                self._wake = trio.Event()
                if not await self._write():
                    await trio.sleep(AWAY_S)
                    self._wake.set()
        finally:
            with trio.move_on_after(LAST_S) as last:
                last.shield = True
                await self._write()

    async def _write(self) -> bool:
        """False when the ledger is away: what is left is kept."""
        try:
            # A job is told before it is called off.
            while self._events:
                await self._page(self._events, self._ledger.tell)
            while self._withdrawals:
                await self._page(self._withdrawals, self._ledger.withdraw)
        except MoonxdError as error:
            waiting = len(self._events) + len(self._withdrawals)
            log.warning("%d pieces of news wait: %s", waiting, error, extra={"waiting": waiting})
            return False
        return True

    async def _page(self, news: deque[T], write: Callable[[Sequence[T]], Awaitable[object]]) -> None:
        page = [news[place] for place in range(min(PAGE, len(news)))]
        await self._send(page, write)
        # Only now: what could not be written stays, unless newer news pushed it out.
        for one in page:
            if news and news[0] is one:
                news.popleft()

    async def _send(self, page: Sequence[T], write: Callable[[Sequence[T]], Awaitable[object]]) -> None:
        """One that the ledger will never take must not keep the others back."""
        try:
            await write(page)
            return
        except Permanent as error:
            if len(page) == 1:
                log.error("a piece of news is dropped: %s", error)
                return
        half = len(page) // 2
        await self._send(page[:half], write)
        await self._send(page[half:], write)
