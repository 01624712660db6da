"""Tells the schedule whose users are active: a manual sync registers its wallet, at no cost to the sync itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import trio

from ..domain.activity import Sign
from ..domain.errors import MoonxdError, Permanent, Transient
from ..domain.plan import Plan
from ..domain.schedule import Change, Registration
from ..ports import Schedule

log = logging.getLogger("moonxd.activity")

#: Seconds that signs of life are gathered before they are written in one statement.
GATHER_S = 1.0
#: Wallets per statement, and how many are kept while the ledger is away: the oldest go first.
PAGE, MOST = 500, 50_000
#: Seconds for the last ones when the daemon stops.
LAST_S = 3.0
#: Users that are touched at a time when nobody said with which wallet.
AT_ONCE = 8


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

    async def record(self, signs: Sequence[Sign]) -> None:
        """Write what other programs saw, now. Raises Transient when the ledger is away: all of it may be repeated."""
        known = [self._plan.register(one.user_id, one.wallet, one.at) for one in signs if one.wallet is not None]
        for start in range(0, len(known), PAGE):
            await self._register(known[start : start + PAGE])
        await self._touch([one for one in signs if one.wallet is None])

    async def _touch(self, signs: Sequence[Sign]) -> None:
        """Whatever wallets these users have here. Whoever has none is nobody to us."""
        left = iter(signs)
        failure: Transient | None = None

        async def work(scope: trio.CancelScope) -> None:
            nonlocal failure
            for one in left:
                try:
                    await self._schedule.change(one.user_id, None, Change(active_at=one.at))
                except Permanent as error:
                    log.warning("user %s cannot be noted: %s", one.user_id, error)
                except Transient as error:
                    failure = error
                    scope.cancel()

        async with trio.open_nursery() as nursery:
            for _ in range(min(AT_ONCE, len(signs))):
                nursery.start_soon(work, nursery.cancel_scope)
        if failure is not None:
            raise failure

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
