"""Closes what a crashed worker left open, so that no audit row says "running" for ever, and removes what is old."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from ..domain import event
from ..domain.errors import Transient
from ..domain.ledger import ABANDONED, Event, Orphan, Retention
from ..ports import Clock, Ledger, LedgerUpkeep

log = logging.getLogger("moonxd.janitor")

#: Seconds between two batches: other writers get their turn, and a backlog of years takes its time.
_BREATH_S = 0.05


class Janitor:
    """Every `interval_s`: rows still running though their lease ended more than `grace_s` ago are closed.

    The grace must exceed the time in which a stalled job is redelivered: a redelivery reopens its own row.
    """

    def __init__(self, ledger: Ledger, *, interval_s: float, grace_s: float, version: str, clock: Clock) -> None:
        self._ledger = ledger
        self._version = version
        self._clock = clock
        self._interval_s = interval_s
        self._grace_s = grace_s

    async def run(self, ready: Callable[[], None]) -> None:
        ready()
        while True:
            try:
                closed = await self._ledger.sweep(self._grace_s, self._told)
            except Transient as error:
                # A database that is away is nobody's fault here: the next round finds the same rows.
                log.warning("nothing was swept: %s", error)
                closed = 0
            if closed:
                log.warning("closed %d operations whose worker died", closed, extra={"closed": closed})
            await trio.sleep(self._interval_s)

    def _told(self, orphan: Orphan) -> Event:
        """Written with the row that is closed."""
        about = event.Subject(
            operation=orphan.operation,
            user_id=orphan.user_id,
            wallet=orphan.wallet,
            version=self._version,
            at_ms=int(self._clock.now() * 1000),
        )
        attempt = orphan.attempt or 1
        return event.failed(
            about, fence=orphan.fence, attempt=attempt, error=ABANDONED, duration_ms=None, abandoned=True
        )


class Pruner:
    """Every `interval_s`: what is older than `keep` says is removed, `limit` rows of each table at a time.

    Any number of workers may do it at once: each removes what the others do not have in hand.
    """

    def __init__(self, ledger: LedgerUpkeep, keep: Retention, *, interval_s: float, limit: int) -> None:
        self._ledger = ledger
        self._interval_s = interval_s
        self._limit = limit
        #: May be replaced while it runs.
        self.keep = keep

    async def run(self, ready: Callable[[], None]) -> None:
        ready()
        while True:
            try:
                await self.prune()
            except Transient as error:
                log.warning("old rows stay for now: %s", error)
            await trio.sleep(self._interval_s)

    async def prune(self) -> int:
        """Remove everything that is too old; how many rows."""
        removed = {"history": 0, "operations": 0, "outbox": 0}
        while True:
            batch = await self._ledger.prune(self.keep, self._limit)
            counts = {"history": batch.history, "operations": batch.operations, "outbox": batch.outbox}
            for table, count in counts.items():
                removed[table] += count
            if max(counts.values()) < self._limit:
                break
            await trio.sleep(_BREATH_S)
        total = sum(removed.values())
        if total:
            log.info("removed %d old rows", total, extra=removed)
        return total
