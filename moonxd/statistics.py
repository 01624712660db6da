"""Statistics as the daemon runs and shows them: the collectors, when each is due, and where it ends."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from . import wiring
from .adapters.redis.client import Redis
from .adapters.rpc import Transport, open_transport
from .agents.archivist import Archivist, tell
from .agents.heads import HeadsWatch
from .agents.markets import Markets
from .agents.newsroom import Newsroom
from .agents.office import Office
from .agents.rounds import Rounds
from .api.schema import Child as ChildView
from .api.schema import Outbox
from .api.stats import CollectorView
from .config import Config
from .config.cron import CronPattern
from .config.outlets import Stats as Section
from .control import deps
from .domain.breakers import Breakers
from .domain.service_health import of_age, of_answer, of_lag, of_state
from .domain.stats import PartHealth, Round
from .ports import Collector, LedgerUpkeep, Quota, StatsArchive
from .readings import Readings
from .stats.bridge_latency import BridgeLatency
from .stats.chain_performance import ChainPerformance
from .stats.overview import OverviewOf
from .stats.service_health import ServiceHealthOf
from .supervisor import Child
from .telemetry import Telemetry
from .version import VERSION
from .wiring import WithArchive

log = logging.getLogger("moonxd.stats")

#: When the daemon's own health is summed up: from memory, nothing is asked for it.
HEALTH_CRON, HEALTH_TIMEOUT_S = "*/30 * * * * *", 5.0
#: Every collector of stats/ by its name, and when it runs: its pattern, and the deadline of a round in seconds.
COLLECTORS: dict[str, Callable[[Section], tuple[str, float]]] = {
    ChainPerformance.name: lambda stats: (stats.chains_cron, stats.chains_timeout_s),
    BridgeLatency.name: lambda stats: (stats.bridges_cron, stats.bridges_timeout_s),
    OverviewOf.name: lambda stats: (stats.overview_cron, stats.overview_timeout_s),
    ServiceHealthOf.name: lambda stats: (HEALTH_CRON, HEALTH_TIMEOUT_S),
}
#: An outbox whose oldest event waits for so long is degraded where nothing else is configured, and so many times that
#: is unhealthy.
SLOW_OUTBOX_S, BAD_OUTBOX = 60.0, 5
#: Probes of all chains and bridges; no more are ever open at a time per host.
_CONNECTIONS = 20
#: Rounds start within this share of their timeout after their instant, at most so many seconds.
_JITTER_S = 2.0


@dataclass(frozen=True, slots=True)
class Bureau:
    """What the collectors have of their own: their probes must not wait for syncs, nor syncs for them."""

    transport: Transport
    quota: Quota


@asynccontextmanager
async def open_bureau(config: Config, redis: Redis) -> AsyncGenerator[Bureau]:
    async with open_transport(connections=_CONNECTIONS) as transport:
        yield Bureau(transport, wiring.quota(config, redis))


class Statistics:
    """`children_now` gives the supervised parts as operators see them. All is idle where another one collects."""

    def __init__(
        self,
        config: Config,
        bureau: Bureau,
        with_archive: WithArchive,
        *,
        worker: str,
        redis: Redis,
        ledger: LedgerUpkeep,
        breakers: Breakers,
        telemetry: Telemetry,
        children_now: Callable[[], tuple[ChildView, ...]],
        outbox_now: Callable[[], Outbox | None],
    ) -> None:
        section, transport = config.stats, bureau.transport
        self._with_archive = with_archive
        self._archive = archive = Archivist(on_report=tell(telemetry))
        self._redis = redis
        self._telemetry = telemetry
        self._children_now = children_now
        self._outbox_now = outbox_now
        self._slow_outbox_s = config.kafka.lag_alert_s or SLOW_OUTBOX_S
        self._office = Office(wiring.election(config, redis, worker), "statistics")
        self._readings = Readings(telemetry.registry, lambda: self._office.is_held, time.time)
        self._newsroom = Newsroom(
            archive,
            ledger,
            wiring.WallClock(),
            section.news.thresholds,
            version=VERSION,
            term=lambda: self._office.terms,
        )
        self._markets = Markets(
            wiring.market_figures(config, transport, breakers), [chain.id for chain in config.enabled_chains]
        )
        chains = ChainPerformance(
            wiring.chain_probes(config, transport, breakers, bureau.quota, telemetry),
            archive,
            markets=self._markets,
            heads=lambda chain_id: self._heads.seen(chain_id),
        )
        self._heads = HeadsWatch(wiring.chain_heads(config, transport), chains.usual_block_time)
        bridges = BridgeLatency(
            wiring.bridge_probes(config, transport, breakers), archive.bridges, timeout_s=section.bridges_timeout_s
        )
        overview, health = OverviewOf(archive.chains, archive.bridges), ServiceHealthOf([self.parts])
        collectors: tuple[Collector, ...] = (chains, bridges, overview, health)
        self._rounds = tuple(self._rounds_of(one, *COLLECTORS[one.name](section)) for one in collectors)
        costs = wiring.cost_statement(config)
        for line in costs:
            log.info("statistics on a metered key: %s", line)
        self.desk = deps.Statistics(archive=archive, collectors=self.view, costs=costs)

    def children(self) -> tuple[Child, ...]:
        return (
            Child(name="stats-archive", body=self._keep_archive, critical=False),
            Child(name="stats-office", body=self._office.run, critical=False),
            Child(name="heads", body=partial(self._office.while_held, self._heads.run), critical=False),
            Child(name="markets", body=partial(self._office.while_held, self._markets.run), critical=False),
            *(
                Child(name=f"stats-{rounds.report.name.replace('_', '-')}", body=rounds.run, critical=False)
                for rounds in self._rounds
            ),
        )

    def view(self) -> tuple[CollectorView, ...]:
        return tuple(rounds.report for rounds in self._rounds)

    def _rounds_of(self, collector: Collector, pattern: str, timeout_s: float) -> Rounds:
        name, is_told = collector.name, pattern is not HEALTH_CRON
        return Rounds(
            collector,
            CronPattern(pattern),
            timeout_s=timeout_s,
            is_ours=lambda: self._office.is_held,
            keep=partial(self._newsroom.keep, name),
            now=time.time,
            jitter_s=_JITTER_S,
            on_start=partial(self._newsroom.started, name) if is_told else None,
            on_end=partial(self._ended, name, is_told),
        )

    async def _keep_archive(self, ready: Callable[[], None]) -> None:
        """Open it, and write what waits; what is put before and between is kept in memory."""

        async def write(archive: StatsArchive) -> None:
            self._archive.use(archive)
            try:
                await self._archive.run(ready)
            finally:
                self._archive.use(None)

        await self._with_archive(write)

    async def _ended(
        self, name: str, is_told: bool, outcome: str, took_s: float, found: Round | None, error: str | None
    ) -> None:
        self._telemetry.collection(name, outcome, took_s)
        if found is not None:
            self._readings.note(found)
        if is_told:
            await self._newsroom.ended(name, found, error, took_s)

    # ---- how we are -------------------------------------------------------------------------------------------------

    def parts(self, now_ms: int) -> Iterable[PartHealth]:
        """How each part of the daemon is, and what it leans on; from memory: nothing is asked for it."""
        for child in self._children_now():
            yield of_state(child.name, child.state, critical=child.critical, error=child.last_error)
        is_there = self._redis.state == "connected"
        yield of_answer("redis", is_there, critical=True, detail=self._redis.last_error)
        newsroom, outbox = self._newsroom, self._outbox_now()
        yield of_answer("ledger", newsroom.is_heard, critical=True, detail=newsroom.trouble)
        if outbox is not None:
            slow_s = self._slow_outbox_s
            bad_s = BAD_OUTBOX * slow_s
            yield of_lag(
                "outbox", outbox.lag, slow_s=slow_s, bad_s=bad_s, critical=False, what="the oldest event waits"
            )
        away = self._archive.report().away
        yield of_answer("stats archive", away is None, critical=False, detail=away)
        for rounds in self._rounds:
            report = rounds.report
            if report.next_at is None or report.last_at is None:
                continue
            expected_s = max(1.0, report.next_at - report.last_at)
            age_s = None if report.good_at is None else now_ms / 1000 - report.good_at
            yield of_age(report.name, age_s, expected_s=expected_s, critical=False, what="the last good round")
