"""How the daemon's own parts are, by what is known of them already. Nothing is probed for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..domain.service_health import PartTrack, follow, summed
from ..domain.stats import PartHealth, Round

#: Gives parts as they are at `now_ms`, from memory: it neither waits nor asks anybody.
Look = Callable[[int], Iterable[PartHealth]]


class ServiceHealthOf:
    """A `ports.Collector` over `looks`; `domain.service_health.of_*` make their parts."""

    name = "service_health"

    def __init__(self, looks: Sequence[Look]) -> None:
        self._looks = tuple(looks)
        self._tracks: dict[str, PartTrack] = {}

    async def collect(self, now_ms: int) -> Round:
        """See ports.Collector."""
        seen = [part for look in self._looks for part in look(now_ms)]
        self._tracks = follow(self._tracks, seen)
        return Round(service=summed(self._tracks, now_ms))
