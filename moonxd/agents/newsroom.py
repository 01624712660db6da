"""What becomes of a round of statistics: what changed in it is told, then all of it is archived.

In this order (ADR 0073): a crash between the two tells once more rather than never.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import msgspec

from ..domain.errors import MoonxdError
from ..domain.ledger import Event
from ..domain.stats import Round
from ..domain.stats_change import Due, Thresholds, Told, after, due, told_before
from ..domain.stats_event import Teller
from ..log import log_once_per
from ..ports import Clock, LedgerUpkeep, StatsArchive

log = logging.getLogger("moonxd.stats")


class Newsroom:
    """One for all collectors of a daemon. A ledger that is away delays news, and never loses a measurement. `term`
    counts how often the collecting became ours: between two terms others told."""

    def __init__(
        self,
        archive: StatsArchive,
        ledger: LedgerUpkeep,
        clock: Clock,
        thresholds: Thresholds,
        *,
        version: str,
        term: Callable[[], int],
    ) -> None:
        self._archive = archive
        self._ledger = ledger
        self._clock = clock
        self._thresholds = thresholds
        self._version = version
        self._term = term
        self._told = Told()
        self._told_in: int | None = None
        #: Whether the ledger took what it was told last, None before; and why not.
        self.is_heard: bool | None = None
        self.trouble: str | None = None

    async def keep(self, collector: str, found: Round) -> None:
        """Tell what is news of `found`, then archive it. Raises what the archive raises."""
        told = await self._known()
        news = due(told, found, self._thresholds)
        if news and await self._tell(self._events(Teller(collector, self._version), news)):
            self._told = after(told, news)
        if found.chains:
            await self._archive.put_chains(found.chains)
        if found.bridges:
            await self._archive.put_bridges(found.bridges)
        if found.overview is not None:
            await self._archive.put_overview(found.overview)

    async def started(self, collector: str) -> None:
        await self._tell([Teller(collector, self._version).started(self._now_ms())])

    async def ended(self, collector: str, found: Round | None, error: str | None, took_s: float) -> None:
        """`found` None: the round gave nothing, for the reason that `error` gives."""
        teller, took_ms, at_ms = Teller(collector, self._version), round(took_s * 1000), self._now_ms()
        if found is None:
            event = teller.failed(error or "no reason is known", duration_ms=took_ms, at_ms=at_ms)
        else:
            event = teller.completed(found, duration_ms=took_ms, at_ms=at_ms)
        await self._tell([event])

    async def _known(self) -> Told:
        """What was told last; when a term begins that is what the archive shows."""
        term, archive = self._term(), self._archive
        if self._told_in != term:
            before = told_before(await archive.chains(), await archive.bridges(), await archive.overview())
            # How this daemon is nobody else tells.
            self._told, self._told_in = msgspec.structs.replace(before, service=self._told.service), term
        return self._told

    def _events(self, teller: Teller, news: Due) -> list[Event]:
        at_ms = self._now_ms()
        events = [teller.chains(news.chains, at_ms)] if news.chains else []
        events += [teller.bridges(news.bridges, at_ms)] if news.bridges else []
        events += [teller.overview(news.overview)] if news.overview is not None else []
        events += [teller.health(news.service)] if news.service is not None else []
        return events

    async def _tell(self, events: Sequence[Event]) -> bool:
        try:
            await self._ledger.tell(events)
        except MoonxdError as error:
            log_once_per(60.0, log, logging.WARNING, "statistics wait to be told: %s", error, key=str(error))
            self.is_heard, self.trouble = False, str(error)
            return False
        self.is_heard, self.trouble = True, None
        return True

    def _now_ms(self) -> int:
        return round(self._clock.now() * 1000)
