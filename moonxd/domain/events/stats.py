"""Statistics of chains and bridges as their readers know them."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from .envelope import Data


class BlockTime(Data, frozen=True, kw_only=True):
    """`current` in seconds; `change` against 24 h before, "+1.23%", and the same as a number."""

    current: float | None
    change: str | None
    change_percent: float | None
    #: When it was measured; null: never yet.
    timestamp: int | None


class Endpoint(Data, frozen=True, kw_only=True):
    """One RPC endpoint, by host only. Latencies in milliseconds."""

    host: str
    outcome: str
    p50: float | None
    p95: float | None
    head: int | None
    lag: int | None


class ChainPerformance(Data, frozen=True, kw_only=True):
    """One chain. After a failed round the values are the last good ones, with `status` and `error` beside them."""

    chain_id: int
    chain_name: str
    chain_slug: str
    defi_llama_slug: str
    block_time: BlockTime
    #: "$1.2B"; null: not known.
    volume24h: str | None
    volume_usd: Decimal | None = msgspec.field(name="volumeUSD")
    tvl_usd: Decimal | None
    #: healthy | degraded | unhealthy | unknown
    status: str
    reason: str | None
    error: str | None
    head: int | None
    head_age_seconds: float | None
    finality_lag: int | None
    #: Text: it may be larger than what JavaScript counts exactly.
    gas_price_wei: str | None
    reorgs: int
    endpoints: tuple[Endpoint, ...]
    updated_at: int


class BridgeLatency(Data, frozen=True, kw_only=True):
    """One provider on one route. `latency` in milliseconds, of the last quote that succeeded."""

    provider: str
    route: str
    from_chain: int
    to_chain: int
    latency: int | None
    p50: float | None
    p95: float | None
    #: Seconds the provider says the transfer takes.
    quoted_seconds: float | None
    status: str
    outcome: str
    reason: str | None
    error: str | None
    timestamp: int | None
    updated_at: int


class ChainPerformanceUpdated(Data, frozen=True, kw_only=True):
    """Chains whose statistics changed."""

    chains: tuple[ChainPerformance, ...]
    updated_at: int


class BridgeLatencyUpdated(Data, frozen=True, kw_only=True):
    """Bridges whose statistics changed."""

    bridges: tuple[BridgeLatency, ...]
    updated_at: int


class OverviewUpdated(Data, frozen=True, kw_only=True):
    """Everything at once, when any of it changed."""

    chain_performance: tuple[ChainPerformance, ...]
    bridge_latency: tuple[BridgeLatency, ...]
    health_status: str
    last_updated: int


class Part(Data, frozen=True, kw_only=True):
    """One part of the daemon. `critical`: without it nothing works."""

    name: str
    status: str
    critical: bool
    reason: str | None


class HealthCheck(Data, frozen=True, kw_only=True):
    """How the daemon that collects is doing, part by part; sent when a part's status changed."""

    status: str
    parts: tuple[Part, ...]
    checked_at: int


class CollectionStarted(Data, frozen=True, kw_only=True):
    """A collector begins a round."""

    collector: str
    started_at: int


class CollectionCompleted(Data, frozen=True, kw_only=True):
    """A round gave something. `problems`: what could not be measured in it."""

    collector: str
    duration: int
    chains: int
    bridges: int
    problems: tuple[str, ...]
    completed_at: int


class CollectionFailed(Data, frozen=True, kw_only=True):
    """A round gave nothing; the last good values stand."""

    collector: str
    duration: int
    error: str
    failed_at: int
