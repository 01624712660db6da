"""Tells the schedule whose users are active: a manual sync registers its wallet, at no cost to the sync itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import trio

from ..domain.errors import MoonxdError, Permanent
from ..domain.plan import Plan
from ..domain.schedule import Registration
from ..ports import Schedule

log = logging.getLogger("moonxd.activity")

#: Seconds that signs of life are gathered before they are written in one statement.
GATHER_S = 1.0
#: Wallets per statement, and how many are kept while the ledger is away: the oldest go first.
PAGE, MOST = 500, 50_000
#: Seconds for the last ones when the daemon stops.
LAST_S = 3.0


class Activity:
    """`now` gives unix seconds."""

    def __init__(self, schedule: Schedule, plan: Plan, now: Callable[[], float]) -> None:
        self._schedule = schedule
        self._plan = plan
        self._now = now
        self._seen: dict[tuple[str, str], float] = {}
        self._wake = trio.Event()

    def note(self, user_id: str, wallet: str) -> None:
        """The user of this wallet asked for something just now. Neither blocks nor fails."""
        self._seen[user_id, wallet] = self._now()
        if len(self._seen) > MOST:
            del self._seen[next(iter(self._seen))]
        self._wake.set()

    async def run(self, ready: Callable[[], None]) -> None:
        ready()
        try:
            while True:
                await self._wake.wait()
                await trio.sleep(GATHER_S)
                self._wake = trio.Event()
                await self._write()
        finally:
            with trio.move_on_after(LAST_S) as last:
                last.shield = True
                await self._write()

    async def _write(self) -> None:
        while self._seen:
            page = dict(list(self._seen.items())[:PAGE])
            entries = [self._plan.register(user, wallet, at) for (user, wallet), at in page.items()]
            try:
                added = await self._register(entries)
            except MoonxdError as error:
                log.warning("%d active users were not noted, again soon: %s", len(self._seen), error)
                self._wake.set()
                return
            for key, at in page.items():
                if self._seen.get(key) == at:
                    del self._seen[key]
            if added:
                log.info("%d wallets are synced periodically from now on", added, extra={"added": added})

    async def _register(self, entries: Sequence[Registration]) -> int:
        """How many were new. One that the ledger will never take must not keep the others out."""
        try:
            return await self._schedule.register(entries)
        except Permanent as error:
            if len(entries) == 1:
                log.warning("user %s cannot be registered: %s", entries[0].user_id, error)
                return 0
        half = len(entries) // 2
        return await self._register(entries[:half]) + await self._register(entries[half:])
