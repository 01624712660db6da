"""Builds the events of statistics from domain/stats.py. What they look like is domain/events/stats.py."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from .event import build, system_subject
from .events import stats as say
from .events.envelope import Data
from .ledger import Event
from .stats import BridgeStats, ChainStats, EndpointStats, Overview, Round, ServiceHealth


class Teller:
    """One collector's voice: `collector` as in configuration, `version` of the program."""

    def __init__(self, collector: str, version: str) -> None:
        self._collector = collector
        self._version = version

    def chains(self, rows: Sequence[ChainStats], at_ms: int) -> Event:
        """`rows`: those that changed."""
        return self._event(say.ChainPerformanceUpdated(chains=tuple(map(chain, rows)), updated_at=at_ms), at_ms)

    def bridges(self, rows: Sequence[BridgeStats], at_ms: int) -> Event:
        """`rows`: those that changed."""
        return self._event(say.BridgeLatencyUpdated(bridges=tuple(map(bridge, rows)), updated_at=at_ms), at_ms)

    def overview(self, whole: Overview) -> Event:
        data = say.OverviewUpdated(
            chain_performance=tuple(map(chain, whole.chains)),
            bridge_latency=tuple(map(bridge, whole.bridges)),
            health_status=whole.status.value,
            last_updated=whole.at_ms,
        )
        return self._event(data, whole.at_ms)

    def health(self, service: ServiceHealth) -> Event:
        parts = tuple(
            say.Part(name=part.name, status=part.status.value, critical=part.critical, reason=part.reason)
            for part in service.parts
        )
        data = say.HealthCheck(status=service.status.value, parts=parts, checked_at=service.at_ms)
        return self._event(data, service.at_ms)

    def started(self, at_ms: int) -> Event:
        return self._event(say.CollectionStarted(collector=self._collector, started_at=at_ms), at_ms)

    def completed(self, found: Round, *, duration_ms: int, at_ms: int) -> Event:
        whole = found.overview
        data = say.CollectionCompleted(
            collector=self._collector,
            duration=duration_ms,
            chains=len(whole.chains if whole else found.chains),
            bridges=len(whole.bridges if whole else found.bridges),
            problems=found.failed,
            completed_at=at_ms,
        )
        return self._event(data, at_ms)

    def failed(self, error: str, *, duration_ms: int, at_ms: int) -> Event:
        data = say.CollectionFailed(collector=self._collector, duration=duration_ms, error=error, failed_at=at_ms)
        return self._event(data, at_ms)

    def _event(self, data: Data, at_ms: int) -> Event:
        return build(system_subject("stats", self._collector, version=self._version, at_ms=at_ms), data)


def chain(row: ChainStats) -> say.ChainPerformance:
    change = row.block_time_change_pct
    return say.ChainPerformance(
        chain_id=row.chain_id,
        chain_name=row.name,
        chain_slug=row.slug,
        defi_llama_slug=row.llama,
        block_time=say.BlockTime(
            current=row.block_time_s,
            change=None if change is None else f"{change:+.2f}%",
            change_percent=change,
            timestamp=row.measured_at_ms,
        ),
        volume24h=None if row.volume_24h_usd is None else short_usd(row.volume_24h_usd),
        volume_usd=row.volume_24h_usd,
        tvl_usd=row.tvl_usd,
        status=row.status.value,
        reason=row.reason,
        error=row.error,
        head=row.head,
        head_age_seconds=row.head_age_s,
        finality_lag=row.finality_lag,
        gas_price_wei=None if row.gas_price_wei is None else str(row.gas_price_wei),
        reorgs=row.reorgs,
        endpoints=tuple(map(_endpoint, row.endpoints)),
        updated_at=row.at_ms,
    )


def _endpoint(row: EndpointStats) -> say.Endpoint:
    return say.Endpoint(
        host=row.host, outcome=row.outcome.value, p50=_ms(row.p50_s), p95=_ms(row.p95_s), head=row.head, lag=row.lag
    )


def bridge(row: BridgeStats) -> say.BridgeLatency:
    latency = _ms(row.latency_s)
    return say.BridgeLatency(
        provider=row.provider,
        route=row.route,
        from_chain=row.from_chain,
        to_chain=row.to_chain,
        latency=None if latency is None else round(latency),
        p50=_ms(row.p50_s),
        p95=_ms(row.p95_s),
        quoted_seconds=row.quoted_s,
        status=row.status.value,
        outcome=row.outcome.value,
        reason=row.reason,
        error=row.error,
        timestamp=row.measured_at_ms,
        updated_at=row.at_ms,
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def short_usd(value: Decimal) -> str:
    """As dashboards show it: $1.2B, $345.6M, $7.8K, $9.00."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if value >= size:
            return f"${value / size:.1f}{unit}"
    return f"${value:.2f}"
