"""Stands in front of the archive of statistics: whoever collects never waits for it, however long it is away.

What is put is the latest at once and is written in the background, in batches. While the archive is away samples wait
in memory; when there are too many the oldest are thinned. Samples carry their own keys, so a batch of which nobody
knows whether it arrived is simply written again.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import TypeVar

import msgspec
import trio

from ..domain.archive import latest_of, merged, thinned
from ..domain.errors import ConfigError, MoonxdError, Permanent, Transient
from ..domain.job import Backoff
from ..domain.retry import backoff_delay
from ..domain.stats import BridgeStats, ChainStats, Overview, Point
from ..log import log_once_per
from ..ports import StatsArchive
from ..telemetry import Telemetry

log = logging.getLogger("moonxd.stats")
T = TypeVar("T")
Row = ChainStats | BridgeStats

#: Samples that wait at most: most of a day of six chains every minute and three bridges every other minute.
MOST = 10_000
#: Samples written in one call.
BATCH = 500
#: Seconds that a reader waits for an archive that does not answer, before memory answers.
READ_S = 2.0
#: Seconds that the last writes of a stopping daemon may take.
FLUSH_S = 3.0
#: Pauses between two tries while the archive is away, and the longest of them in seconds.
_BACKOFF = Backoff(kind="exponential", delay=1_000, multiplier=2.0, jitter=0.3)
_LONGEST_S = 30.0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How the writing stands. Counts are since the start."""

    #: Samples that wait.
    pending: int
    written: int
    #: Left out because too many waited.
    thinned: int
    #: Left out because the archive does not take them.
    refused: int
    #: Why nothing can be written just now; None while it works.
    away: str | None


def tell(telemetry: Telemetry) -> Callable[[Report], None]:
    """What `on_report` may be: the report as metrics."""
    return lambda report: telemetry.archive(waiting=report.pending, thinned=report.thinned, refused=report.refused)


def _series(row: Row) -> Hashable:
    return row.chain_id if isinstance(row, ChainStats) else (row.provider, row.route)


class Archivist:
    """A `ports.StatsArchive` whose `put_*` never wait and never fail; `run` does the writing.

    Latest values come from memory together with the archive's; from memory alone while it is away. History is the
    archive's: its readers hear Transient meanwhile.
    """

    def __init__(
        self,
        archive: StatsArchive | None = None,
        *,
        most: int = MOST,
        on_report: Callable[[Report], None] = lambda report: None,
    ) -> None:
        self._archive = archive
        self._most = most
        self._on_report = on_report
        self._chains: dict[int, ChainStats] = {}
        self._bridges: dict[tuple[str, str], BridgeStats] = {}
        self._overview: Overview | None = None
        self._overview_waits = False
        #: Oldest first; what is being written stays here until it is acknowledged.
        self._pending: list[Row] = []
        self._wake = trio.Event()
        self._written = self._thinned = self._refused = 0
        self._away: str | None = None
        self._failures = 0

    def use(self, archive: StatsArchive | None) -> None:
        """Read and write there from now on; None: nowhere, for now."""
        self._archive = archive

    @property
    def _there(self) -> StatsArchive:
        if self._archive is None:
            raise Transient("the archive of statistics is not open")
        return self._archive

    # ---- writing -------------------------------------------------------------------------------------------------

    async def put_chains(self, rows: Sequence[ChainStats]) -> None:
        await trio.lowlevel.checkpoint()
        for row in rows:
            self._chains[row.chain_id] = merged(self._chains.get(row.chain_id), row)
        self._wait_with(rows)

    async def put_bridges(self, rows: Sequence[BridgeStats]) -> None:
        await trio.lowlevel.checkpoint()
        for row in rows:
            key = (row.provider, row.route)
            self._bridges[key] = merged(self._bridges.get(key), row)
        self._wait_with(rows)

    async def put_overview(self, overview: Overview) -> None:
        """Only the newest waits: it holds everything that its readers want."""
        await trio.lowlevel.checkpoint()
        if self._overview is None or overview.at_ms >= self._overview.at_ms:
            self._overview = overview
            self._overview_waits = True
            self._wake.set()

    # ---- reading -------------------------------------------------------------------------------------------------

    async def chains(self) -> tuple[ChainStats, ...]:
        stored = await self._ask(lambda: self._there.chains()) or ()
        latest = latest_of([*stored, *self._chains.values()], lambda row: row.chain_id)
        return tuple(sorted(latest, key=lambda row: row.chain_id))

    async def bridges(self) -> tuple[BridgeStats, ...]:
        stored = await self._ask(lambda: self._there.bridges()) or ()
        latest = latest_of([*stored, *self._bridges.values()], lambda row: (row.provider, row.route))
        return tuple(sorted(latest, key=lambda row: (row.provider, row.route)))

    async def overview(self) -> Overview | None:
        stored = await self._ask(lambda: self._there.overview())
        known = [one for one in (stored, self._overview) if one is not None]
        return max(known, key=lambda one: one.at_ms, default=None)

    async def chain_history(self, chain_id: int, *, since_ms: int, until_ms: int, step_s: float) -> tuple[Point, ...]:
        self._must_be_there()
        return await self._there.chain_history(chain_id, since_ms=since_ms, until_ms=until_ms, step_s=step_s)

    async def bridge_history(
        self, provider: str, route: str, *, since_ms: int, until_ms: int, step_s: float
    ) -> tuple[Point, ...]:
        self._must_be_there()
        return await self._there.bridge_history(provider, route, since_ms=since_ms, until_ms=until_ms, step_s=step_s)

    def report(self) -> Report:
        return Report(
            pending=len(self._pending),
            written=self._written,
            thinned=self._thinned,
            refused=self._refused,
            away=self._away,
        )

    def _must_be_there(self) -> None:
        if self._away is not None:
            raise Transient(f"the history of statistics cannot be read now: {self._away}")

    async def _ask(self, question: Callable[[], Awaitable[T]]) -> T | None:
        if self._away is not None:
            await trio.lowlevel.checkpoint()
            return None
        try:
            with trio.fail_after(READ_S):
                return await question()
        except (MoonxdError, trio.TooSlowError) as error:
            why = str(error) or f"nothing within {READ_S:g} s"
            log_once_per(60.0, log, logging.INFO, "the archive of statistics did not answer, memory does: %s", why)
            return None

    # ---- in the background ---------------------------------------------------------------------------------------

    async def run(self, ready: Callable[[], None]) -> None:
        ready()
        try:
            while True:
                # Anew before looking: what is put from now on wakes us again.
                self._wake = trio.Event()
                await self._drain()
                await self._wake.wait()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + FLUSH_S):
                await self._last_words()

    async def _drain(self) -> None:
        """Write until nothing waits, however long that takes."""
        while self._waits:
            if not await self._write_some():
                delay_ms = backoff_delay(_BACKOFF, self._failures, random.random())
                await trio.sleep(min(delay_ms / 1000, _LONGEST_S))

    async def _last_words(self) -> None:
        """Until the first refusal: whoever stops us does not wait for an archive that is away."""
        try:
            while self._waits and await self._write_some():
                pass
        finally:
            lost = len(self._pending)
            if lost:
                log.warning("stopping: %d samples of statistics could not be written", lost, extra={"samples": lost})

    @property
    def _waits(self) -> bool:
        return bool(self._pending) or self._overview_waits

    async def _write_some(self) -> bool:
        """Write the oldest batch, and the overview; False when the archive is away."""
        batch = self._pending[:BATCH]
        try:
            await self._write(batch)
            await self._write_overview()
        except (Transient, ConfigError) as error:
            self._note_failure(error)
            return False
        self._note_success()
        return True

    async def _write(self, batch: Sequence[Row]) -> None:
        try:
            await self._hand_over(batch)
            self._written += len(batch)
        except Permanent as error:
            if len(batch) > 1:
                # One of them does not fit: one by one the others arrive.
                for row in batch:
                    await self._write([row])
                return
            log.error("a sample of %s does not fit into the archive and is left out: %s", _series(batch[0]), error)
            self._refused += 1
        self._forget(batch)

    async def _hand_over(self, batch: Sequence[Row]) -> None:
        chains = [row for row in batch if isinstance(row, ChainStats)]
        bridges = [row for row in batch if isinstance(row, BridgeStats)]
        if chains:
            await self._there.put_chains(chains)
        if bridges:
            await self._there.put_bridges(bridges)

    async def _write_overview(self) -> None:
        overview = self._overview
        if not self._overview_waits or overview is None:
            return
        try:
            await self._there.put_overview(overview)
        except Permanent as error:
            log.error("an overview does not fit into the archive and is left out: %s", error)
            self._refused += 1
        # A newer one may have come meanwhile.
        self._overview_waits = self._overview is not overview

    def _wait_with(self, rows: Sequence[Row]) -> None:
        self._pending.extend(rows)
        before = len(self._pending)
        if before > self._most:
            self._pending = thinned(self._pending, _series, self._most)
            self._thinned += before - len(self._pending)
        self._wake.set()
        self._on_report(self.report())

    def _forget(self, batch: Sequence[Row]) -> None:
        """They need not be the first any more: what waits may have been thinned meanwhile."""
        done = {id(row) for row in batch}
        self._pending = [row for row in self._pending if id(row) not in done]

    def _note_failure(self, error: MoonxdError) -> None:
        self._failures += 1
        if self._away is None:
            level = logging.ERROR if isinstance(error, ConfigError) else logging.WARNING
            log.log(level, "statistics wait in memory: %s", error, extra={"samples": len(self._pending)})
        self._away = str(error)
        self._on_report(self.report())

    def _note_success(self) -> None:
        if self._away is not None:
            log.info("the archive of statistics is back", extra={"samples": len(self._pending)})
        self._failures = 0
        self._away = None
        self._on_report(self.report())
