"""Looks at the outbox: how many events wait for the relay, since when, and whether somebody has to be told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec
import trio

from ..domain.errors import MoonxdError
from ..domain.ledger import Backlog
from ..ports import Publication

log = logging.getLogger("moonxd.outbox")

#: Seconds between two looks.
LOOK_S = 5.0
Notify = Callable[[str, str, str, dict[str, Any]], None]


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of lag, and of another program's transaction, from which somebody is told; 0 never."""

    lag_s: float = 60.0
    transaction_s: float = 300.0


class OutboxWatch:
    """`is_ours`: whether this daemon answers for the outbox; the others only measure."""

    def __init__(
        self,
        publication: Publication,
        rule: Rule,
        *,
        is_ours: Callable[[], bool],
        notify: Notify,
        show: Callable[[Backlog], None],
    ) -> None:
        self._publication = publication
        self._rule = rule
        self._is_ours = is_ours
        self._notify = notify
        self._show = show
        self._is_late = False
        self._is_held_up = False
        #: At the last look; None before the first one.
        self.standing: Backlog | None = None

    async def run(self, ready: Callable[[], None]) -> None:
        ready()
        while True:
            began = trio.current_time()
            try:
                await self.look()
            except MoonxdError as error:
                # A ledger that is away has its own alarms; the picture stays the last one known.
                log.debug("the outbox was not looked at: %s", error)
            # Counting millions of events takes a while: never more than a twentieth of the database's time.
            await trio.sleep(max(LOOK_S, 20 * (trio.current_time() - began)))

    async def look(self) -> None:
        backlog = await self._publication.backlog()
        self.standing = backlog
        self._show(self.standing)
        if not self._is_ours():
            self._is_late = self._is_held_up = False
            return
        self._tell_lag(self.standing)
        if self._rule.transaction_s:
            self._tell_holdup(await self._publication.holdup(self._rule.transaction_s))

    def _tell_lag(self, now: Backlog) -> None:
        limit = self._rule.lag_s
        if limit and not self._is_late and now.age_s >= limit:
            self._is_late = True
            text = f"{now.count} events wait to be published, the oldest for {now.age_s:.0f} s"
            self._tell("outbox_lag", text, raised=True, unpublished=now.count, lagSeconds=round(now.age_s))
        # Half of it, so that an outbox at the limit does not flap.
        elif self._is_late and now.age_s < limit / 2:
            self._is_late = False
            text = f"over: {now.count} events wait to be published, the oldest for {now.age_s:.0f} s"
            self._tell("outbox_lag", text, raised=False, unpublished=now.count, lagSeconds=round(now.age_s))

    def _tell_holdup(self, why: str | None) -> None:
        if why is not None and not self._is_held_up:
            self._tell("outbox_held_up", why, raised=True)
        elif why is None and self._is_held_up:
            self._tell("outbox_held_up", "over: no transaction is open for long any more", raised=False)
        self._is_held_up = why is not None

    def _tell(self, kind: str, text: str, *, raised: bool, **figures: int) -> None:
        self._notify(kind, text, "warning" if raised else "info", {"raised": raised, **figures})
