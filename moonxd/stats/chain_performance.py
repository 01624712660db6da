"""How the chains do: every endpoint is looked at once a round, all at the same time."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

import trio

from ..domain.chain import CHAINS
from ..domain.chainwatch import ChainWatch, Market
from ..domain.errors import Transient
from ..domain.heads import HeadsSeen
from ..domain.health import is_network_up
from ..domain.looks import Look, Want
from ..domain.stats import ChainStats, Health, Point, Probe, Round
from ..ports import ChainProbe, StatsArchive

log = logging.getLogger("moonxd.stats")

_DAY_S, _HOUR_S = 86400.0, 3600.0
#: Our sample of a day before is the mean of what was measured so long before and after that instant.
_AROUND_S = 1200.0
#: How long what is usual looks back after a restart.
_LEARN_S = 7 * _DAY_S
#: How often the archive is asked, and how long it may take.
_ASK_S, _ARCHIVE_S = 300.0, 5.0

#: By chain id: the volume of the last 24 hours and what is locked, in USD.
Markets = Callable[[], Mapping[int, tuple[Decimal | None, Decimal | None]]]
HeadsOf = Callable[[int], HeadsSeen | None]


class ChainPerformance:
    """`probes` by chain id. `markets` and `heads` are asked each round and must not wait."""

    name = "chain_performance"

    def __init__(
        self,
        probes: Mapping[int, Sequence[ChainProbe]],
        archive: StatsArchive,
        *,
        markets: Markets | None = None,
        heads: HeadsOf | None = None,
    ) -> None:
        self._probes = probes
        self._archive = archive
        self._markets = markets or dict
        self._heads = heads or (lambda chain_id: None)
        self._watches = {chain_id: ChainWatch(CHAINS[chain_id]) for chain_id in probes}
        self._has_begun = False
        self._has_learnt = False
        self._asked_at = -math.inf

    def usual_block_time(self, chain_id: int) -> float:
        """Seconds, as learnt so far."""
        return self._watches[chain_id].usual.seconds

    async def collect(self, now_ms: int) -> Round:
        """One row per chain, whatever could be measured."""
        now = now_ms / 1000
        places = [(chain_id, probe) for chain_id, probes in self._probes.items() for probe in probes]
        looks: list[Look | None] = [None] * len(places)
        wants = {chain_id: watch.want(now) for chain_id, watch in self._watches.items()}

        async def look(place: int, probe: ChainProbe, want: Want) -> None:
            looks[place] = await probe.look(want)

        async with trio.open_nursery() as nursery:
            # The archive is asked while the endpoints are: it must not make the round longer.
            nursery.start_soon(self._remember, now)
            for place, (chain_id, probe) in enumerate(places):
                nursery.start_soon(look, place, probe, wants[chain_id])
        found: dict[int, list[Look]] = {chain_id: [] for chain_id in self._probes}
        for (chain_id, _), seen in zip(places, looks, strict=True):
            if seen is not None:
                found[chain_id].append(seen)
        return self._round(found, now)

    # ---- what a round makes of it --------------------------------------------------------------------------------

    def _round(self, looks: Mapping[int, Sequence[Look]], now: float) -> Round:
        heads = {chain_id: self._heads(chain_id) for chain_id in looks}
        markets = self._markets()
        is_up = is_network_up(look.outcome for seen in looks.values() for look in seen) or any(
            watch.is_announced(heads[chain_id], now) for chain_id, watch in self._watches.items()
        )
        rows = tuple(
            self._observe(chain_id, seen, heads[chain_id], Market(*markets.get(chain_id, ())), now, is_up)
            for chain_id, seen in looks.items()
        )
        failed = tuple(
            f"{row.slug}: {row.error}"
            for row in rows
            if row.error and not any(look.outcome is Probe.OK for look in looks[row.chain_id])
        )
        return Round(chains=rows, failed=failed)

    def _observe(
        self, chain_id: int, seen: Sequence[Look], heads: HeadsSeen | None, market: Market, now: float, is_up: bool
    ) -> ChainStats:
        watch = self._watches[chain_id]
        before = watch.standing.status
        row = watch.observe(seen, heads, market, now, is_network_up=is_up)
        if row.status is not before:
            log.log(
                logging.INFO if row.status is Health.HEALTHY else logging.WARNING,
                "%s is %s, it was %s%s", row.slug, row.status, before, f": {row.reason}" if row.reason else "",
                extra={"chain": row.slug, "status": str(row.status)},
            )  # fmt: skip
        return row

    # ---- what was kept -------------------------------------------------------------------------------------------

    async def _remember(self, now: float) -> None:
        """Take up what the archive knows. It may be away: then we go by what we see."""
        if now - self._asked_at < _ASK_S:
            return
        # Noted before: an archive that hangs is not to hold up every round.
        self._asked_at = now
        with trio.move_on_after(_ARCHIVE_S):
            try:
                await self._resume()
                await self._learn(now)
                await self._look_up(now)
            except Transient as error:
                log.info("statistics of chains go on without what was kept: %s", error)

    async def _resume(self) -> None:
        # Only before the first verdict of our own: later what we see is truer than what was kept.
        if not self._has_begun:
            self._has_begun = True
            for row in await self._archive.chains():
                if row.chain_id in self._watches:
                    self._watches[row.chain_id].resume(row)

    async def _learn(self, now: float) -> None:
        if self._has_learnt:
            return
        for chain_id, watch in self._watches.items():
            for point in await self._history(chain_id, now - _LEARN_S, now, _HOUR_S):
                watch.usual.note(point.values["block_time_s"], point.at_ms / 1000)
        self._has_learnt = True

    async def _look_up(self, now: float) -> None:
        """Our own sample of the day before."""
        then = now - _DAY_S
        for chain_id, watch in self._watches.items():
            points = await self._history(chain_id, then - _AROUND_S, then + _AROUND_S, 2 * _AROUND_S)
            count = sum(point.samples for point in points)
            total = sum(point.values["block_time_s"] * point.samples for point in points)
            watch.day_before_s = total / count if count else None

    async def _history(self, chain_id: int, since: float, until: float, step_s: float) -> list[Point]:
        points = await self._archive.chain_history(
            chain_id, since_ms=round(since * 1000), until_ms=round(until * 1000), step_s=step_s
        )
        return [point for point in points if "block_time_s" in point.values]
