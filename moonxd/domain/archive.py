"""What every archive of statistics does alike: what of a row is a sample, which values outlive a failed look, steps.

A row is fresh when its values were measured in the round that it reports (`measured_at_ms >= at_ms`). Only fresh rows
give values to the history; of a look that failed it keeps the status.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from .stats import BridgeStats, ChainStats, Health, Point

Row = TypeVar("Row", ChainStats, BridgeStats)
S = TypeVar("S")

#: Names of the values in a chain's history, and in a bridge's: fields of the row, and the best endpoint's latency.
CHAIN_VALUES = (
    "block_time_s",
    "head_age_s",
    "finality_lag",
    "gas_price_wei",
    "rpc_p50_s",
    "rpc_p95_s",
    "volume_24h_usd",
    "tvl_usd",
)
BRIDGE_VALUES = ("latency_s", "p50_s", "p95_s", "quoted_s")
#: What a row says of the look itself; all else are values, which outlive looks that failed.
_OF_THE_LOOK = frozenset(
    {"chain_id", "name", "slug", "llama", "provider", "route", "from_chain", "to_chain"}
    | {"at_ms", "status", "reason", "error", "outcome", "endpoints", "reorgs", "deepest_reorg"}
)
#: Not to know is worse than to know that all is well, and better than to know of trouble.
SEVERITY: Mapping[Health, int] = {
    Health.HEALTHY: 0,
    Health.UNKNOWN: 1,
    Health.DEGRADED: 2,
    Health.UNHEALTHY: 3,
}
BY_SEVERITY: Mapping[int, Health] = {severity: health for health, severity in SEVERITY.items()}
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class Keep(msgspec.Struct, frozen=True, kw_only=True):
    """How long an archive keeps what is not the latest, in milliseconds."""

    history_ms: int = 30 * DAY_MS
    overview_ms: int = DAY_MS


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a history."""

    at_ms: int
    status: Health
    values: dict[str, float]


def is_fresh(row: ChainStats | BridgeStats) -> bool:
    return row.measured_at_ms is not None and row.measured_at_ms >= row.at_ms


def of_the_look(row: ChainStats | BridgeStats) -> frozenset[str]:
    """The fields of `row` that are replaced even by a look that failed."""
    return _OF_THE_LOOK & set(row.__struct_fields__)


def merged(old: Row | None, new: Row) -> Row:
    """What is the latest after `new` came: never an older look, and never worse values for a look that failed."""
    if old is None:
        return new
    if new.at_ms < old.at_ms:
        return old
    if is_fresh(new) or (new.measured_at_ms or 0) > (old.measured_at_ms or 0) or old.measured_at_ms is None:
        return new
    return msgspec.structs.replace(old, **{name: getattr(new, name) for name in of_the_look(new)})


def latest_of(rows: Iterable[Row], series: Callable[[Row], Hashable]) -> list[Row]:
    """One row of each series: what is the latest after all of them came in order."""
    latest: dict[Hashable, Row] = {}
    for row in rows:
        key = series(row)
        latest[key] = merged(latest.get(key), row)
    return list(latest.values())


def chain_sample(row: ChainStats) -> Sample:
    values = {name: getattr(row, name) for name in CHAIN_VALUES if hasattr(row, name)}
    best = min((end for end in row.endpoints if end.p50_s is not None), key=lambda end: end.p50_s or 0.0, default=None)
    if best is not None:
        values |= {"rpc_p50_s": best.p50_s, "rpc_p95_s": best.p95_s}
    return Sample(at_ms=row.at_ms, status=row.status, values=_known(values) if is_fresh(row) else {})


def bridge_sample(row: BridgeStats) -> Sample:
    values = {name: getattr(row, name) for name in BRIDGE_VALUES}
    return Sample(at_ms=row.at_ms, status=row.status, values=_known(values) if is_fresh(row) else {})


def _known(values: Mapping[str, object]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if value is not None}  # type: ignore[arg-type]


def step_ms(step_s: float) -> int:
    """A step in milliseconds, at least one."""
    return max(1, round(step_s * 1000))


def downsampled(samples: Iterable[Sample], *, since_ms: int, until_ms: int, step_s: float) -> tuple[Point, ...]:
    """since <= time < until, one point per step that has samples. Steps are whole multiples since the epoch, so that
    they stay where they are while a window moves; a point's time is its step's beginning."""
    step = step_ms(step_s)
    steps: dict[int, list[Sample]] = {}
    for sample in samples:
        if since_ms <= sample.at_ms < until_ms:
            steps.setdefault(sample.at_ms // step * step, []).append(sample)
    return tuple(_point(at_ms, steps[at_ms]) for at_ms in sorted(steps))


def _point(at_ms: int, samples: Sequence[Sample]) -> Point:
    sums: dict[str, list[float]] = {}
    for sample in samples:
        for name, value in sample.values.items():
            sums.setdefault(name, []).append(value)
    return Point(
        at_ms=at_ms,
        samples=len(samples),
        values={name: sum(values) / len(values) for name, values in sums.items()},
        status=BY_SEVERITY[max(SEVERITY[sample.status] for sample in samples)],
    )


def thinned(samples: Sequence[S], series: Callable[[S], Hashable], most: int) -> list[S]:
    """`samples`, oldest first, with every second one of the oldest half left out until at most `most` remain.

    Counted within each series, or the same chains would always be the ones left out. The last of every series stays,
    so more than `most` remain when there are more series than that.
    """
    kept = list(samples)
    while len(kept) > most:
        half = max(len(kept) // 2, 1)
        fewer = _every_second(kept, series, half)
        if len(fewer) == len(kept):
            fewer = _every_second(kept, series, len(kept))
        if len(fewer) == len(kept):
            break
        kept = fewer
    return kept


def _every_second(samples: Sequence[S], series: Callable[[S], Hashable], among: int) -> list[S]:
    """Without the first, third, ... of each series among the first `among`, but never without a series' last."""
    last = {series(sample): index for index, sample in enumerate(samples)}
    seen: dict[Hashable, int] = {}
    kept: list[S] = []
    for index, sample in enumerate(samples):
        name = series(sample)
        seen[name] = seen.get(name, 0) + 1
        if index >= among or index == last[name] or seen[name] % 2 == 0:
            kept.append(sample)
    return kept
