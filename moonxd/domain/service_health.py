"""How this daemon itself is, part by part, from what is known already: nothing is probed for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from .stats import Health, PartHealth, ServiceHealth

#: Looks in a row that must agree before a part changes: at one every 30 s it takes a minute to be called worse.
AGREEING = 2
_ORDER = (Health.HEALTHY, Health.UNKNOWN, Health.DEGRADED, Health.UNHEALTHY)


class PartTrack(msgspec.Struct, frozen=True):
    """One part: what is shown of it, and what the last looks saw instead."""

    shown: PartHealth
    seen: Health
    agreeing: int


def follow(tracks: Mapping[str, PartTrack], seen: Iterable[PartHealth]) -> dict[str, PartTrack]:
    """The tracks after one more look; parts that are gone are forgotten, new ones are shown at once."""
    return {part.name: _step(tracks.get(part.name), part) for part in seen}


def _step(track: PartTrack | None, part: PartHealth) -> PartTrack:
    if track is None or part.status is track.shown.status:
        return PartTrack(part, part.status, 0)
    agreeing = track.agreeing + 1 if part.status is track.seen else 1
    if agreeing >= AGREEING or track.shown.status is Health.UNKNOWN:
        return PartTrack(part, part.status, 0)
    return PartTrack(track.shown, part.status, agreeing)


def summed(tracks: Mapping[str, PartTrack], at_ms: int) -> ServiceHealth:
    """All parts as they are shown; the worst one speaks for the whole, an optional one for `degraded` at most."""
    parts = tuple(tracks[name].shown for name in sorted(tracks))
    return ServiceHealth(at_ms=at_ms, status=worst(map(_weight, parts)), parts=parts)


def _weight(part: PartHealth) -> Health:
    is_bearable = part.status is Health.UNHEALTHY and not part.critical
    return Health.DEGRADED if is_bearable else part.status


def worst(statuses: Iterable[Health]) -> Health:
    """The worst of them, `healthy` of none."""
    return max(statuses, key=_ORDER.index, default=Health.HEALTHY)


# ---- from what is known of a part to its health -------------------------------------------------------------------


def of_state(name: str, state: str, *, critical: bool, error: str | None = None) -> PartHealth:
    """A supervised child by its state (starting | running | backing-off | failed | stopped)."""
    status = {"running": Health.HEALTHY, "starting": Health.UNKNOWN, "backing-off": Health.DEGRADED}.get(
        state, Health.UNHEALTHY
    )
    said = None if status is Health.HEALTHY else f"{state}: {error}" if error else state
    return PartHealth(name=name, status=status, critical=critical, reason=said)


def of_answer(name: str, ok: bool | None, *, critical: bool, detail: str | None = None) -> PartHealth:
    """Something that we lean on, by whether it answered last; None: nobody has asked yet."""
    if ok is None:
        return PartHealth(name=name, status=Health.UNKNOWN, critical=critical, reason="not asked yet")
    status = Health.HEALTHY if ok else Health.UNHEALTHY
    return PartHealth(name=name, status=status, critical=critical, reason=None if ok else detail or "does not answer")


def of_age(name: str, age_s: float | None, *, expected_s: float, critical: bool, what: str) -> PartHealth:
    """Something that should have happened within `expected_s` seconds; None: never yet.

    Three times that is degraded, ten times unhealthy. `what` is named to people, for example "the last success".
    """
    if age_s is None:
        return PartHealth(name=name, status=Health.UNKNOWN, critical=critical, reason=f"{what}: never yet")
    late = age_s / expected_s
    status = Health.HEALTHY if late < 3 else Health.DEGRADED if late < 10 else Health.UNHEALTHY
    said = None if late < 3 else f"{what}: {age_s:.0f} s ago, expected every {expected_s:g} s"
    return PartHealth(name=name, status=status, critical=critical, reason=said)


def of_lag(name: str, lag_s: float | None, *, slow_s: float, bad_s: float, critical: bool, what: str) -> PartHealth:
    """Something that waits, by how long it has; None: not known."""
    if lag_s is None:
        return PartHealth(name=name, status=Health.UNKNOWN, critical=critical, reason=f"{what}: not known")
    status = Health.HEALTHY if lag_s < slow_s else Health.DEGRADED if lag_s < bad_s else Health.UNHEALTHY
    said = None if lag_s < slow_s else f"{what}: {lag_s:.0f} s, should be under {slow_s:g} s"
    return PartHealth(name=name, status=status, critical=critical, reason=said)
