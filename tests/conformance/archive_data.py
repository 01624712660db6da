"""Rows of statistics to put into archives."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from moonxd.domain.stats import BridgeStats, ChainStats, EndpointStats, Health, Overview, Probe

#: A whole number of days since the epoch, so that steps begin at it; close to nothing is pruned by `now` = START.
START_MS = 1_795_392_000_000
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


def chain(at_ms: int = START_MS, chain_id: int = 8453, **change: Any) -> ChainStats:
    """A look at a chain that succeeded."""
    fields: dict[str, Any] = {
        "chain_id": chain_id,
        "name": "Base",
        "slug": "base",
        "llama": "base",
        "at_ms": at_ms,
        "measured_at_ms": at_ms,
        "status": Health.HEALTHY,
        "block_time_s": 2.0,
        "block_time_change_pct": 1.234,
        "head": 40_000_000,
        "head_age_s": 1.5,
        "finality_lag": 400,
        "gas_price_wei": 5_000_000,
        "endpoints": (EndpointStats(host="rpc.test", outcome=Probe.OK, p50_s=0.05, p95_s=0.1, head=40_000_000, lag=0),),
        "reorgs": 1,
        "volume_24h_usd": Decimal("1234567890.12"),
        "tvl_usd": Decimal("4500000000"),
    }
    return ChainStats(**{**fields, **change})


def failed(row: ChainStats, at_ms: int, **change: Any) -> ChainStats:
    """A look that found nothing, by somebody who does not know what was measured before."""
    fields: dict[str, Any] = {
        "chain_id": row.chain_id,
        "name": row.name,
        "slug": row.slug,
        "llama": row.llama,
        "at_ms": at_ms,
        "measured_at_ms": None,
        "status": Health.UNKNOWN,
        "reason": "no endpoint answered",
        "error": "$timeout after 10 s",
        "endpoints": (EndpointStats(host="rpc.test", outcome=Probe.TIMEOUT),),
    }
    return ChainStats(**{**fields, **change})


def bridge(at_ms: int = START_MS, provider: str = "LI.FI", route: str = "base-arbitrum", **change: Any) -> BridgeStats:
    fields: dict[str, Any] = {
        "provider": provider,
        "route": route,
        "from_chain": 8453,
        "to_chain": 42161,
        "at_ms": at_ms,
        "measured_at_ms": at_ms,
        "status": Health.HEALTHY,
        "outcome": Probe.OK,
        "latency_s": 0.75,
        "p50_s": 0.5,
        "p95_s": 1.25,
        "quoted_s": 60.0,
    }
    return BridgeStats(**{**fields, **change})


def overview(at_ms: int = START_MS) -> Overview:
    return Overview(at_ms=at_ms, status=Health.DEGRADED, chains=(chain(at_ms),), bridges=(bridge(at_ms),))
