"""One picture of several worker processes that work as one daemon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from .schema import Breaker, ChainHealth, Child, Rates, Snapshot

_FAILURES = 100
#: States of a breaker, the worst last.
_MODES = ("closed", "half-open", "open", "cordoned")


def merged(own: Snapshot, workers: Mapping[str, Snapshot]) -> Snapshot:
    """`own` is the supervising process, which runs no jobs itself; `workers` are by name.

    Counts are added up. Percentiles cannot be: the median is the workers' weighted by their jobs, the 95th percentile
    the worst worker's.
    """
    if not workers:
        return own
    parts = [workers[name] for name in sorted(workers)]
    daemons = [part.daemon for part in parts]
    daemon = msgspec.structs.replace(
        own.daemon,
        slots=sum(one.slots for one in daemons),
        slots_busy=sum(one.slots_busy for one in daemons),
        is_paused=all(one.is_paused for one in daemons),
        rss_bytes=own.daemon.rss_bytes + sum(one.rss_bytes for one in daemons),
        cpu=round(own.daemon.cpu + sum(one.cpu for one in daemons), 3),
        loop_lag=max(own.daemon.loop_lag, *(one.loop_lag for one in daemons)),
    )
    failures = sorted((failure for part in parts for failure in part.failures), key=lambda failure: -failure.at)
    return msgspec.structs.replace(
        own,
        daemon=daemon,
        rates=_rates([part.rates for part in parts]),
        running=tuple(sorted((job for part in parts for job in part.running), key=lambda job: job.started_at)),
        chains=_chains([chain for part in parts for chain in part.chains]),
        breakers=_breakers([part.breakers for part in (own, *parts) if part.breakers is not None]),
        failures=tuple(failures[:_FAILURES]),
        children=(*own.children, *_troubled(workers)),
    )


def _rates(parts: Sequence[Rates]) -> Rates:
    medians = [(part.p50, max(1, part.completed)) for part in parts if part.p50 is not None]
    worst = [part.p95 for part in parts if part.p95 is not None]
    weight = sum(jobs for _, jobs in medians)
    return Rates(
        completed=sum(part.completed for part in parts),
        failed=sum(part.failed for part in parts),
        retried=sum(part.retried for part in parts),
        per_second=round(sum(part.per_second for part in parts), 2),
        p50=sum(p50 * jobs for p50, jobs in medians) / weight if medians else None,
        p95=max(worst, default=None),
    )


def _chains(rows: Sequence[ChainHealth]) -> tuple[ChainHealth, ...]:
    found: dict[tuple[int, str], ChainHealth] = {}
    for row in rows:
        key = (row.chain_id, row.provider)
        found[key] = _both(found[key], row) if key in found else row
    return tuple(found[key] for key in sorted(found))


def _both(one: ChainHealth, other: ChainHealth) -> ChainHealth:
    return msgspec.structs.replace(
        one,
        requests=one.requests + other.requests,
        errors=one.errors + other.errors,
        p50=max((value for value in (one.p50, other.p50) if value is not None), default=None),
        p95=max((value for value in (one.p95, other.p95) if value is not None), default=None),
        last_error=one.last_error or other.last_error,
    )


def _breakers(pictures: Sequence[tuple[Breaker, ...]]) -> tuple[Breaker, ...] | None:
    """Each process has its own view of an endpoint: the worst is shown."""
    if not pictures:
        return None
    found: dict[str, Breaker] = {}
    for row in (row for rows in pictures for row in rows):
        known = found.get(row.name)
        if known is None or _severity(row) > _severity(known):
            found[row.name] = row
    return tuple(found[name] for name in sorted(found))


def _severity(breaker: Breaker) -> tuple[int, int]:
    return (_MODES.index(breaker.state) if breaker.state in _MODES else -1, breaker.failures)


def _troubled(workers: Mapping[str, Snapshot]) -> list[Child]:
    """The workers' parts that do not run as they should; the others would only fill the board."""
    return [
        msgspec.structs.replace(child, name=f"{name}/{child.name}")
        for name in sorted(workers)
        for child in workers[name].children
        if child.state != "running"
    ]
