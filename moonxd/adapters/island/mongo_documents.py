"""Between the domain's statistics and MongoDB's documents. Pure; the form is the readers' (docs/contract.md).

Times are BSON dates, numbers doubles or integers; what is not known is null. `status` holds what old readers know
(healthy, degraded, unhealthy) and keeps its last value when we do not know; `health` says so. Fields that old readers
do not know are called as in the domain, in camelCase and without the unit of seconds: a new one needs no line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, TypeVar

import msgspec

from ...domain.archive import SEVERITY, Sample, is_fresh, of_the_look
from ...domain.stats import BridgeStats, ChainStats, Health, Overview, Probe

Document = dict[str, Any]
T = TypeVar("T", bound=msgspec.Struct)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT64 = 2**63
#: A chain's logo for documents that have none yet; one that is there stays.
_LOGO = "https://icons.llamao.fi/icons/chains/rsz_{}.jpg"
_UNITS = ((Decimal(10) ** 12, "T"), (Decimal(10) ** 9, "B"), (Decimal(10) ** 6, "M"), (Decimal(10) ** 3, "K"))
#: Field -> name in the document, where the readers have one of their own.
_NAMES = {
    "name": "chainName",
    "slug": "chainSlug",
    "llama": "defiLlamaSlug",
    "at_ms": "updatedAt",
    "measured_at_ms": "measuredAt",
    "status": "health",
    "volume_24h_usd": "volumeUSD",
    "tvl_usd": "tvlUSD",
    "latency_s": "latency",
    "p50_s": "latencyP50",
    "p95_s": "latencyP95",
    "quoted_s": "quotedDuration",
}
_DATES = frozenset({"at_ms", "measured_at_ms"})
_MILLISECONDS = frozenset({"latency_s", "p50_s", "p95_s"})
#: Kept together in `blockTime`.
_BLOCK_TIME = {"block_time_s": "current", "block_time_change_pct": "changePercent"}


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
    change, volume = row.block_time_change_pct, row.volume_24h_usd
    block_time = {
        "current": row.block_time_s,
        "change": None if change is None else f"{change:+.2f}%",
        "changePercent": change,
        "timestamp": _date_or_none(row.measured_at_ms),
    }
    fields = set(row.__struct_fields__) - of_the_look(row) - set(_BLOCK_TIME)
    return _stored(row, fields) | {
        "blockTime": block_time,
        "volume24h": None if volume is None else short_usd(volume),
    }


def chain_look(row: ChainStats) -> Document:
    """What every look replaces."""
    return _stored(row, of_the_look(row)) | _known_status(row)


def chain_logo(row: ChainStats) -> str:
    return _LOGO.format(row.llama)


def bridge_values(row: BridgeStats) -> Document:
    fields = set(row.__struct_fields__) - of_the_look(row)
    return _stored(row, fields) | {"timestamp": _date_or_none(row.measured_at_ms)}


def bridge_look(row: BridgeStats) -> Document:
    return _stored(row, of_the_look(row)) | _known_status(row)


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


def _known_status(row: ChainStats | BridgeStats) -> Document:
    return {} if row.status is Health.UNKNOWN else {"status": row.status.value}


def _stored(row: ChainStats | BridgeStats, fields: set[str] | frozenset[str]) -> Document:
    return {_name(field): _cell(field, getattr(row, field)) for field in row.__struct_fields__ if field in fields}


def _name(field: str) -> str:
    if field in _NAMES:
        return _NAMES[field]
    head, *rest = field.removesuffix("_s").split("_")
    return head + "".join(word.capitalize() for word in rest)


def _cell(field: str, value: Any) -> Any:
    if value is None:
        return None
    if field in _DATES:
        return date(value)
    if field in _MILLISECONDS:
        return round(value * 1000, 6)
    return _bson(value)


def _bson(value: Any) -> Any:
    match value:
        case Decimal():
            return float(value)
        case Enum():
            return value.value
        case msgspec.Struct():
            # Inside a row names are only shortened: nobody knew them before.
            return {_short(field): _bson(getattr(value, field)) for field in value.__struct_fields__}
        case tuple() | list():
            return [_bson(one) for one in value]
        case int() if not -_INT64 <= value < _INT64:
            return str(value)
    return value


def _short(field: str) -> str:
    return field.removesuffix("_s")


def _date_or_none(at_ms: int | None) -> datetime | None:
    return None if at_ms is None else date(at_ms)


# ---- from documents ------------------------------------------------------------------------------------------------


def chain_of(document: Mapping[str, Any]) -> ChainStats:
    """Also of a document that another program wrote. Raises KeyError, TypeError, ValueError when it makes no sense."""
    block_time = document.get("blockTime") or {}
    known = {field: block_time.get(name) for field, name in _BLOCK_TIME.items()}
    return _read(document, ChainStats, {"llama": "", "measured_at_ms": block_time.get("timestamp")}, known)


def bridge_of(document: Mapping[str, Any]) -> BridgeStats:
    otherwise = {
        "route": "",
        "from_chain": 0,
        "to_chain": 0,
        "measured_at_ms": document.get("timestamp"),
        "outcome": Probe.NETWORK.value if document.get("error") else Probe.OK.value,
    }
    return _read(document, BridgeStats, otherwise, {})


def overview_of(document: Mapping[str, Any]) -> Overview:
    return Overview(
        at_ms=millis(document["lastUpdated"]),
        status=Health(document["healthStatus"]),
        chains=tuple(chain_of(row) for row in document["chainPerformance"]),
        bridges=tuple(bridge_of(row) for row in document["bridgeLatency"]),
    )


def _read(document: Mapping[str, Any], kind: type[T], otherwise: Mapping[str, Any], known: Mapping[str, Any]) -> T:
    """`otherwise`: what stands for fields that the document lacks."""
    found = dict(known) | {"status": document.get("status") or Health.UNKNOWN.value}
    for field in kind.__struct_fields__:
        value = document.get(_name(field), otherwise.get(field))
        if field not in known and (value is not None or _name(field) in document or field in otherwise):
            found[field] = _domain(field, value)
    return msgspec.convert(found, kind, strict=False)


def _domain(field: str, value: Any) -> Any:
    if value is None:
        return None
    if field in _DATES:
        return millis(value)
    if field in _MILLISECONDS:
        return value / 1000
    if field.endswith("_usd"):
        return Decimal(str(value))
    return _long(value)


def _long(value: Any) -> Any:
    """The names inside a row as the domain has them: `p50` is `p50_s`."""
    match value:
        case Mapping():
            return {name: _long(one) for name, one in value.items()} | {f"{name}_s": one for name, one in value.items()}
        case list():
            return [_long(one) for one in value]
    return value
