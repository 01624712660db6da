"""What is known of chains and bridges at one moment. Stored forms are the archive's affair (docs/contract.md).

Times are epoch milliseconds, durations seconds, money `Decimal` USD. None means not known, never zero.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

import msgspec


class Health(StrEnum):
    """`unknown`: we could not look; it says nothing against the chain or the bridge."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class Probe(StrEnum):
    """How one request for a measurement ended. Only `ok` has a latency."""

    OK = "ok"
    NO_ROUTE = "no_route"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    NETWORK = "network"
    #: It answered for another chain than the one it is configured for.
    WRONG_CHAIN = "wrong_chain"


class EndpointStats(msgspec.Struct, frozen=True, kw_only=True):
    """One RPC endpoint of a chain, named by its host only (and what it takes to tell two of one host apart)."""

    host: str
    outcome: Probe
    p50_s: float | None = None
    p95_s: float | None = None
    head: int | None = None
    #: Blocks behind the highest head seen on this chain in the same round.
    lag: int | None = None
    #: Of this endpoint alone: unhealthy when it fails or serves another chain, degraded when it is slow or behind.
    status: Health = Health.UNKNOWN
    error: str | None = None


class ChainStats(msgspec.Struct, frozen=True, kw_only=True):
    """One chain. After a failed round the values are the last good ones, with `status` and `error` beside them."""

    chain_id: int
    name: str
    slug: str
    llama: str
    #: When this was looked at.
    at_ms: int
    #: When the values were measured; None: never yet.
    measured_at_ms: int | None
    status: Health
    #: Why the status is not healthy, for people.
    reason: str | None = None
    error: str | None = None
    block_time_s: float | None = None
    #: Against our own sample of 24 h before, in percent.
    block_time_change_pct: float | None = None
    #: What is usual for the chain, as learned over a week.
    usual_block_time_s: float | None = None
    head: int | None = None
    head_age_s: float | None = None
    #: Blocks between head and the finalized block.
    finality_lag: int | None = None
    gas_price_wei: int | None = None
    endpoints: tuple[EndpointStats, ...] = ()
    #: Reorganisations seen in heads since the daemon started, and blocks that the deepest of them replaced.
    reorgs: int = 0
    deepest_reorg: int = 0
    volume_24h_usd: Decimal | None = None
    tvl_usd: Decimal | None = None


class BridgeStats(msgspec.Struct, frozen=True, kw_only=True):
    """One bridge provider on one route, from quotes only."""

    provider: str
    route: str
    from_chain: int
    to_chain: int
    at_ms: int
    measured_at_ms: int | None
    status: Health
    outcome: Probe
    #: Of the last quote that succeeded.
    latency_s: float | None = None
    p50_s: float | None = None
    p95_s: float | None = None
    #: How long the provider says the transfer itself takes.
    quoted_s: float | None = None
    reason: str | None = None
    error: str | None = None


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at once, as its readers get it."""

    at_ms: int
    status: Health
    chains: tuple[ChainStats, ...]
    bridges: tuple[BridgeStats, ...]


class PartHealth(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the daemon, or something it leans on. Without a critical one the daemon cannot do its work."""

    name: str
    status: Health
    critical: bool
    reason: str | None = None


class ServiceHealth(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon itself, by its parts."""

    at_ms: int
    status: Health
    parts: tuple[PartHealth, ...]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What the market says about one chain. `at_ms`: when it was fetched."""

    at_ms: int
    volume_24h_usd: Decimal | None = None
    tvl_usd: Decimal | None = None


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of a collector found. Things it could not measure are in it too, with their status and error."""

    chains: tuple[ChainStats, ...] = ()
    bridges: tuple[BridgeStats, ...] = ()
    overview: Overview | None = None
    service: ServiceHealth | None = None
    #: Sentences about what could not be measured; a round with nothing else is a failed one.
    failed: tuple[str, ...] = ()


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a history: what was measured within it, averaged. `samples` 0 never occurs."""

    at_ms: int
    samples: int
    #: By name, for example "block_time_s", "latency_s", "gas_price_wei"; names without a value are absent.
    values: dict[str, float]
    #: The worst status within the step.
    status: Health
