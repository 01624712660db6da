"""How a bridge is, from the quotes it was asked for. A pure machine: one step per look.

| what a look shows | counts as |
|---|---|
| a quote in under 5 s; an answer that there is no route | well |
| a quote in 5 to 10 s | slow |
| a quote after over 10 s, a server error, no answer in time, no connection while others had one | failed |
| asked to slow down, our key refused, not asked, no connection while nobody had one | nothing |

Three failures in a row make it unhealthy. Well and slow replace each other, and end a failure, after two looks in a
row. What shows nothing changes nothing, until so many such looks have passed that the last word is no longer news; one
that is not asked because it is unhealthy stays that.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .stats import Health, Probe

#: Seconds from which a quote is slow, and over which it is as good as none.
SLOW_S = 5.0
TOO_SLOW_S = 10.0
#: Failures in a row that make it unhealthy.
FAILURES = 3
#: Looks in a row after which it is called well, or slow, again.
AGREEING = 2
#: Looks in a row that showed nothing, after which nothing is known.
BLIND = 3
#: Quotes that percentiles are taken of: an hour at one look every two minutes.
KEPT = 30
#: Fewer than these say nothing about the middle, and about the tail.
_MIDDLE_FROM = 3
_TAIL_FROM = 20


class Track(msgspec.Struct, frozen=True):
    """One provider on one route: what is shown, and what has been seen since."""

    status: Health = Health.UNKNOWN
    #: Failures since it last answered.
    failures: int = 0
    #: Looks in a row that showed nothing.
    blind: int = 0
    #: What the last look showed of an answering bridge, and how many in a row showed the same.
    grade: Health = Health.UNKNOWN
    agreeing: int = 0
    #: Durations of the newest quotes, oldest first.
    latencies: tuple[float, ...] = ()


def sign(outcome: Probe | None, latency_s: float | None, *, offline: bool) -> Health:
    """What one look says. `offline`: in this round nobody at all could be connected to."""
    match outcome:
        case Probe.OK:
            return _grade(latency_s or 0.0)
        case Probe.NO_ROUTE:
            return Health.HEALTHY
        case Probe.SERVER_ERROR | Probe.TIMEOUT:
            return Health.UNHEALTHY
        case Probe.NETWORK:
            return Health.UNKNOWN if offline else Health.UNHEALTHY
        case _:
            return Health.UNKNOWN


def _grade(latency_s: float) -> Health:
    if latency_s < SLOW_S:
        return Health.HEALTHY
    return Health.DEGRADED if latency_s <= TOO_SLOW_S else Health.UNHEALTHY


def follow(track: Track, outcome: Probe | None, latency_s: float | None, *, offline: bool = False) -> Track:
    """The track after one more look; `latency_s` counts only with Probe.OK."""
    if outcome is None and track.status is Health.UNHEALTHY:
        return track
    seen = sign(outcome, latency_s, offline=offline)
    kept = track.latencies
    if outcome is Probe.OK and latency_s is not None:
        kept = (*kept, latency_s)[-KEPT:]
    if seen is Health.UNKNOWN:
        return _saw_nothing(track)
    if seen is Health.UNHEALTHY:
        return _failed(track, kept)
    return _answered(track, seen, kept)


def _saw_nothing(track: Track) -> Track:
    blind = track.blind + 1
    status = Health.UNKNOWN if blind >= BLIND else track.status
    return msgspec.structs.replace(track, status=status, blind=blind)


def _failed(track: Track, kept: tuple[float, ...]) -> Track:
    failures = track.failures + 1
    status = Health.UNHEALTHY if failures >= FAILURES else track.status
    return Track(status=status, failures=failures, latencies=kept)


def _answered(track: Track, seen: Health, kept: tuple[float, ...]) -> Track:
    agreeing = track.agreeing + 1 if seen is track.grade else 1
    settled = agreeing >= AGREEING or track.status is Health.UNKNOWN
    return Track(status=seen if settled else track.status, grade=seen, agreeing=agreeing, latencies=kept)


def percentiles(latencies: Sequence[float]) -> tuple[float | None, float | None]:
    """p50 and p95 by nearest rank; None where there are too few to say."""
    ordered, count = sorted(latencies), len(latencies)
    p50 = ordered[(count - 1) // 2] if count >= _MIDDLE_FROM else None
    p95 = ordered[-(-95 * count // 100) - 1] if count >= _TAIL_FROM else None
    return p50, p95


def reason(track: Track) -> str | None:
    """Why the status is what it is, for people; None while there is nothing to explain."""
    if track.failures:
        times = "once" if track.failures == 1 else f"{track.failures} times in a row"
        return f"failed {times}" + ("" if track.status is Health.UNHEALTHY else f"; {FAILURES} make it unhealthy")
    if track.blind:
        return f"not seen for {track.blind} rounds" if track.blind > 1 else "not seen in this round"
    if track.status is Health.DEGRADED and track.latencies:
        return f"the last quote took {track.latencies[-1]:.1f} s; under {SLOW_S:g} s is healthy"
    if track.status is Health.UNHEALTHY:
        return f"answers again; {AGREEING} good answers in a row make it healthy"
    return None
