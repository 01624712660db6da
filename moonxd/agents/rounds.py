"""Runs one collector of statistics at the instants of its pattern, in the one daemon of the fleet that may.

A round never overlaps the one before it: instants that pass meanwhile are counted as missed. So are those that fall
into a time in which the process slept or the clock jumped ahead.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable

import msgspec
import trio

from ..api.stats import CollectorView
from ..domain.cron import Cron
from ..domain.errors import MoonxdError, describe
from ..domain.stats import Round
from ..ports import Collector

log = logging.getLogger("moonxd.stats")

#: Longest sleep between two looks at the wall clock: it may jump.
_LOOK_S = 5.0
#: Missed instants are counted up to this many; a machine that slept for a month has missed "at least" so many.
_COUNT_MAX = 1000
#: Outcome, seconds, what was found (None: nothing), and why not more.
OnEnd = Callable[[str, float, Round | None, str | None], Awaitable[None]]


class Rounds:
    """`keep` tells of a round and stores it; `on_start` and `on_end` hear of each. `now` gives unix seconds.

    A round starts up to `jitter_s` after its instant, so that a fleet of fleets does not ask everybody at once.
    """

    def __init__(
        self,
        collector: Collector,
        cron: Cron,
        *,
        timeout_s: float,
        is_ours: Callable[[], bool],
        keep: Callable[[Round], Awaitable[None]],
        now: Callable[[], float],
        jitter_s: float = 0.0,
        on_start: Callable[[], Awaitable[None]] | None = None,
        on_end: OnEnd | None = None,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._collector = collector
        self._cron = cron
        self._timeout_s = timeout_s
        self._is_ours = is_ours
        self._keep = keep
        self._now = now
        self._jitter_s = jitter_s
        self._on_start = on_start
        self._on_end = on_end
        self._rand = rand
        #: What became of the rounds; instants that got none of their own are missed.
        self._report = CollectorView(name=collector.name)

    @property
    def report(self) -> CollectorView:
        return msgspec.structs.replace(self._report, is_ours=self._is_ours())

    async def run(self, ready: Callable[[], None]) -> None:
        ready()
        slot = self._cron.after(int(self._now()))
        while slot is not None:
            slot = await self._sleep_until(slot)
            if self._is_ours():
                await self._round()
            slot = self._following(slot)
        log.warning("%s is never due again: its pattern is %s", self._collector.name, self._cron.pattern)
        await trio.sleep_forever()

    async def _sleep_until(self, slot: int) -> int:
        """The instant that came; an earlier one than `slot` after the clock went back."""
        due = slot + self._jitter_s * self._rand()
        while (left := due - self._now()) > 0:
            self._note(next_at=due)
            await trio.sleep(min(left, _LOOK_S))
            earlier = self._cron.after(int(self._now()))
            if earlier is not None and earlier < slot:
                slot, due = earlier, float(earlier)
        return slot

    def _following(self, slot: int) -> int | None:
        """The next instant that is still to come; those before it are missed if they were ours to use."""
        now, missed = self._now(), 0
        following = self._cron.after(slot)
        while following is not None and following <= now - 1:
            missed += 1
            following = self._cron.after(following if missed < _COUNT_MAX else int(now))
        if missed and self._is_ours():
            log.warning("%s missed %d of its instants", self._collector.name, missed, extra={"missed": missed})
            self._note(missed=self._report.missed + missed)
        return following

    async def _round(self) -> None:
        began, at = trio.current_time(), self._now()
        self._note(is_running=True)
        try:
            if self._on_start is not None:
                await self._on_start()
            outcome, found, error = await self._collect(at)
        finally:
            self._note(is_running=False)
        took = trio.current_time() - began
        good_at = at if outcome in ("ok", "partial") else self._report.good_at
        self._note(
            rounds=self._report.rounds + 1, outcome=outcome, error=error, took_s=took, last_at=at, good_at=good_at
        )
        if self._on_end is not None:
            await self._on_end(outcome, took, found, error)

    async def _collect(self, at: float) -> tuple[str, Round | None, str | None]:
        with trio.move_on_after(self._timeout_s):
            try:
                found = await self._collector.collect(round(at * 1000))
                await self._keep(found)
            except MoonxdError as error:
                log.warning("%s failed: %s", self._collector.name, error)
                return "failed", None, describe(error)
            if not found.failed:
                return "ok", found, None
            reasons = "; ".join(found.failed)
            has_any = found.chains or found.bridges or found.overview
            return ("partial", found, reasons) if has_any else ("failed", None, reasons)
        log.warning("%s was cut off after %g s", self._collector.name, self._timeout_s)
        return "timeout", None, f"not done within {self._timeout_s:g} s"

    def _note(self, **changes: object) -> None:
        self._report = msgspec.structs.replace(self._report, **changes)
