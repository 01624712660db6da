"""Between the domain's statistics and MongoDB's documents. Pure; the form is the readers' (docs/contract.md).

Times are BSON dates, numbers doubles or integers; what is not known is null. `status` holds what old readers know
(healthy, degraded, unhealthy) and keeps its last value when we do not know; `health` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from ...domain.archive import SEVERITY, Sample, is_fresh
from ...domain.stats import BridgeStats, ChainStats, EndpointStats, Health, Overview, Probe

Document = dict[str, Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT64 = 2**63
#: A chain's logo for documents that have none yet; one that is there stays.
_LOGO = "https://icons.llamao.fi/icons/chains/rsz_{}.jpg"
_UNITS = ((Decimal(10) ** 12, "T"), (Decimal(10) ** 9, "B"), (Decimal(10) ** 6, "M"), (Decimal(10) ** 3, "K"))


def date(at_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=at_ms)


def millis(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(milliseconds=1)


def short_usd(value: Decimal) -> str:
    """For people: "$1.2B", "$950.0M", "$12.00"."""
    for unit, letter in _UNITS:
        # What would be shown as 1000.0 of one unit is 1.0 of the next.
        if value >= unit * Decimal("0.99995"):
            return f"${value / unit:.1f}{letter}"
    return f"${value:.2f}"


# ---- to documents --------------------------------------------------------------------------------------------------


def chain_values(row: ChainStats) -> Document:
    """What outlives a look that failed."""
    change = row.block_time_change_pct
    return {
        "blockTime": {
            "current": row.block_time_s,
            "change": None if change is None else f"{change:+.2f}%",
            "changePercent": change,
            "timestamp": _date_or_none(row.measured_at_ms),
        },
        "volume24h": None if row.volume_24h_usd is None else short_usd(row.volume_24h_usd),
        "volumeUSD": _double(row.volume_24h_usd),
        "tvlUSD": _double(row.tvl_usd),
        "head": row.head,
        "headAge": row.head_age_s,
        "finalityLag": row.finality_lag,
        "gasPriceWei": _whole(row.gas_price_wei),
        "measuredAt": _date_or_none(row.measured_at_ms),
    }


def chain_look(row: ChainStats) -> Document:
    """What every look replaces."""
    return {
        "chainId": row.chain_id,
        "chainName": row.name,
        "chainSlug": row.slug,
        "defiLlamaSlug": row.llama,
        **_health(row),
        "reason": row.reason,
        "error": row.error,
        "reorgs": row.reorgs,
        "endpoints": [
            {"host": end.host, "outcome": end.outcome.value, "p50": end.p50_s, "p95": end.p95_s}
            | {"head": end.head, "lag": end.lag}
            for end in row.endpoints
        ],
        "updatedAt": date(row.at_ms),
    }


def chain_logo(row: ChainStats) -> str:
    return _LOGO.format(row.llama)


def bridge_values(row: BridgeStats) -> Document:
    return {
        "latency": _ms(row.latency_s),
        "latencyP50": _ms(row.p50_s),
        "latencyP95": _ms(row.p95_s),
        "quotedDuration": row.quoted_s,
        "timestamp": _date_or_none(row.measured_at_ms),
        "measuredAt": _date_or_none(row.measured_at_ms),
    }


def bridge_look(row: BridgeStats) -> Document:
    return {
        "provider": row.provider,
        "route": row.route,
        "fromChain": row.from_chain,
        "toChain": row.to_chain,
        **_health(row),
        "outcome": row.outcome.value,
        "reason": row.reason,
        "error": row.error,
        "updatedAt": date(row.at_ms),
    }


def replacement(look: Mapping[str, Any], values: Mapping[str, Any], *, fresh: bool, defaults: Mapping[str, Any]) -> Any:
    """The update pipeline that makes a row the latest by the same rule as `domain.archive.merged`.

    A newer document stays as it is; a look that failed keeps values that are not older than its own. Texts such as
    "$1.2B" are literals, not names of fields.
    """
    measured = values["measuredAt"]
    known = {"$ifNull": ["$measuredAt", {"$ifNull": ["$blockTime.timestamp", "$timestamp"]}]}
    keeps = {"$gte": [known, measured or _EPOCH]}
    literal = {"$literal": dict(values)}
    set_once = {name: {"$ifNull": [f"${name}", {"$literal": value}]} for name, value in defaults.items()}
    parts = [
        "$$ROOT",
        literal if fresh else {"$cond": [keeps, {}, literal]},
        {"$literal": dict(look)},
        {**set_once, "createdAt": {"$ifNull": ["$createdAt", look["updatedAt"]]}},
    ]
    newer = {"$gt": ["$updatedAt", look["updatedAt"]]}
    return [{"$replaceWith": {"$cond": [newer, "$$ROOT", {"$mergeObjects": parts}]}}]


def chain_update(row: ChainStats) -> Any:
    defaults = {"logoUrl": chain_logo(row)}
    return replacement(chain_look(row), chain_values(row), fresh=is_fresh(row), defaults=defaults)


def bridge_update(row: BridgeStats) -> Any:
    return replacement(bridge_look(row), bridge_values(row), fresh=is_fresh(row), defaults={})


def sample_document(key: Mapping[str, Any], sample: Sample, keep_ms: int) -> Document:
    """One sample; its id is made of what it is about and when, so that writing it again adds nothing."""
    return {
        "_id": ":".join([*(str(part) for part in key.values()), str(sample.at_ms)]),
        **key,
        "at": date(sample.at_ms),
        "status": sample.status.value,
        "severity": SEVERITY[sample.status],
        "values": sample.values,
        "expiresAt": date(sample.at_ms + keep_ms),
    }


def overview_document(overview: Overview, keep_ms: int) -> Document:
    return {
        "_id": f"overview:{overview.at_ms}",
        "chainPerformance": [
            {**chain_look(row), "logoUrl": chain_logo(row), **chain_values(row)} for row in overview.chains
        ],
        "bridgeLatency": [{**bridge_look(row), **bridge_values(row)} for row in overview.bridges],
        "lastUpdated": date(overview.at_ms),
        "healthStatus": overview.status.value,
        "isLatest": True,
        "expiresAt": date(overview.at_ms + keep_ms),
    }


def _health(row: ChainStats | BridgeStats) -> Document:
    known = {} if row.status is Health.UNKNOWN else {"status": row.status.value}
    return {**known, "health": row.status.value}


def _date_or_none(at_ms: int | None) -> datetime | None:
    return None if at_ms is None else date(at_ms)


def _double(value: Decimal | None) -> float | None:
    return None if value is None else float(value)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _whole(value: int | None) -> int | str | None:
    """BSON's integers end at 64 bits."""
    return value if value is None or -_INT64 <= value < _INT64 else str(value)


# ---- from documents ------------------------------------------------------------------------------------------------


def chain_of(document: Mapping[str, Any]) -> ChainStats:
    """Also of a document that another program wrote. Raises KeyError, TypeError, ValueError when it makes no sense."""
    block_time = document.get("blockTime") or {}
    return ChainStats(
        chain_id=int(document["chainId"]),
        name=str(document["chainName"]),
        slug=str(document["chainSlug"]),
        llama=str(document.get("defiLlamaSlug") or ""),
        at_ms=millis(document["updatedAt"]),
        measured_at_ms=_millis_or_none(document.get("measuredAt", block_time.get("timestamp"))),
        status=_health_of(document),
        reason=document.get("reason"),
        error=document.get("error"),
        block_time_s=block_time.get("current"),
        block_time_change_pct=block_time.get("changePercent"),
        head=document.get("head"),
        head_age_s=document.get("headAge"),
        finality_lag=document.get("finalityLag"),
        gas_price_wei=_int_or_none(document.get("gasPriceWei")),
        endpoints=tuple(_endpoint_of(end) for end in document.get("endpoints") or ()),
        reorgs=int(document.get("reorgs") or 0),
        volume_24h_usd=_usd(document.get("volumeUSD")),
        tvl_usd=_usd(document.get("tvlUSD")),
    )


def bridge_of(document: Mapping[str, Any]) -> BridgeStats:
    outcome = document.get("outcome") or (Probe.NETWORK if document.get("error") else Probe.OK)
    return BridgeStats(
        provider=str(document["provider"]),
        route=str(document.get("route") or ""),
        from_chain=int(document.get("fromChain") or 0),
        to_chain=int(document.get("toChain") or 0),
        at_ms=millis(document["updatedAt"]),
        measured_at_ms=_millis_or_none(document.get("measuredAt", document.get("timestamp"))),
        status=_health_of(document),
        outcome=Probe(outcome),
        latency_s=_seconds(document.get("latency")),
        p50_s=_seconds(document.get("latencyP50")),
        p95_s=_seconds(document.get("latencyP95")),
        quoted_s=document.get("quotedDuration"),
        reason=document.get("reason"),
        error=document.get("error"),
    )


def overview_of(document: Mapping[str, Any]) -> Overview:
    return Overview(
        at_ms=millis(document["lastUpdated"]),
        status=Health(document["healthStatus"]),
        chains=tuple(chain_of(row) for row in document["chainPerformance"]),
        bridges=tuple(bridge_of(row) for row in document["bridgeLatency"]),
    )


def _health_of(document: Mapping[str, Any]) -> Health:
    return Health(document.get("health") or document.get("status") or Health.UNKNOWN)


def _endpoint_of(end: Mapping[str, Any]) -> EndpointStats:
    return EndpointStats(
        host=str(end["host"]),
        outcome=Probe(end["outcome"]),
        p50_s=end.get("p50"),
        p95_s=end.get("p95"),
        head=end.get("head"),
        lag=end.get("lag"),
    )


def _millis_or_none(at: datetime | None) -> int | None:
    return None if at is None else millis(at)


def _int_or_none(value: int | str | None) -> int | None:
    return None if value is None else int(value)


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else ms / 1000


def _usd(value: float | None) -> Decimal | None:
    return None if value is None else Decimal(str(value))
