"""Asks every bridge provider for a quote on each of its routes, all at once."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
import trio

from ..domain.bridge import Route, Sight
from ..domain.bridge_health import Track, follow, percentiles, reason
from ..domain.errors import MoonxdError, Permanent
from ..domain.stats import BridgeStats, Health, Probe, Round
from ..ports import BridgeProbe

log = logging.getLogger("moonxd.stats")

#: Requests are spread over this share of what the slowest quote took last, so that a round is hardly longer for it.
_SPREAD = 0.1
_SPREAD_MAX_S = 0.5
#: Of the round's deadline; the rest is for what comes after the answers.
_SHARE = 0.95
#: A status of before the start is believed for so long.
_NEWS_S = 900.0

Key = tuple[str, str]
#: What the archive holds, for the first round after a start.
Latest = Callable[[], Awaitable[Sequence[BridgeStats]]]


class BridgeLatency:
    """A `ports.Collector`. `timeout_s` is the round's deadline; `rand` spreads the requests."""

    name = "bridge_latency"

    def __init__(
        self,
        probes: Sequence[BridgeProbe],
        latest: Latest,
        *,
        timeout_s: float,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._asks = [(probe, route) for probe in probes for route in probe.routes]
        self._latest = latest
        self._timeout_s = timeout_s
        self._rand = rand
        self._rows: dict[Key, BridgeStats] = {}
        self._tracks: dict[Key, Track] = {}
        self._is_recalled = False

    async def collect(self, now_ms: int) -> Round:
        """See ports.Collector. Raises Permanent when there is nobody to ask."""
        if not self._asks:
            raise Permanent("no bridge is configured: give stats.lifi.routes or stats.relay.routes a route")
        await self._recall(now_ms)
        sights = await self._look()
        asked = [sight.outcome for sight in sights.values() if sight.asked]
        offline = bool(asked) and all(outcome is Probe.NETWORK for outcome in asked)
        rows: list[BridgeStats] = []
        failed: list[str] = []
        for probe, route in self._asks:
            key, sight = _key(probe, route), sights[_key(probe, route)]
            row = self._take(key, route, sight, now_ms, offline=offline)
            rows += [row] if row is not None else []
            if sight.outcome not in (Probe.OK, Probe.NO_ROUTE):
                failed.append(f"{probe.provider} {route.name}: {sight.error}")
        return Round(bridges=tuple(rows), failed=tuple(failed))

    async def _recall(self, now_ms: int) -> None:
        """Last good values and statuses from before the start; without them it goes on all the same."""
        if self._is_recalled:
            return
        try:
            rows = await self._latest()
        except MoonxdError as error:
            log.warning("the bridges' last known values cannot be read: %s", error)
            return
        known = {_key(probe, route) for probe, route in self._asks}
        for row in rows:
            key = (row.provider, row.route)
            if key in known and key not in self._rows:
                self._rows[key] = row
                is_news = now_ms - row.at_ms <= _NEWS_S * 1000
                self._tracks[key] = Track(status=row.status) if is_news else Track()
        self._is_recalled = True

    async def _look(self) -> Mapping[Key, Sight]:
        sights: dict[Key, Sight] = {}
        spread_s = min(_SPREAD_MAX_S, _SPREAD * max((row.latency_s or 0.0 for row in self._rows.values()), default=0.0))

        async def ask(probe: BridgeProbe, route: Route) -> None:
            await trio.sleep(spread_s * self._rand())
            sights[_key(probe, route)] = await probe.quote(route)

        with trio.move_on_after(_SHARE * self._timeout_s):
            async with trio.open_nursery() as nursery:
                for probe, route in self._asks:
                    nursery.start_soon(ask, probe, route)
        unasked = Sight(outcome=None, asked=False, error="not asked: the round's deadline came first")
        return {_key(*ask): sights.get(_key(*ask), unasked) for ask in self._asks}

    def _take(self, key: Key, route: Route, sight: Sight, now_ms: int, *, offline: bool) -> BridgeStats | None:
        """The row after this look; None when nobody was asked and nothing changes by it."""
        before, old = self._tracks.get(key, Track()), self._rows.get(key)
        track = self._tracks[key] = follow(before, sight.outcome, sight.latency_s, offline=offline)
        if sight.outcome is None and (old is None or track.status is old.status):
            return None
        row = _looked(old or _blank(key, route), track, sight, now_ms)
        if offline and sight.asked:
            row = msgspec.structs.replace(row, reason="no provider could be reached: is it our own network?")
        if sight.outcome is Probe.OK:
            row = _measured(row, track, sight)
        self._rows[key] = row
        return row


def _key(probe: BridgeProbe, route: Route) -> Key:
    return probe.provider, route.name


def _blank(key: Key, route: Route) -> BridgeStats:
    """Nothing is known of it yet."""
    return BridgeStats(
        provider=key[0],
        route=key[1],
        from_chain=route.sent.chain.id,
        to_chain=route.received.chain.id,
        at_ms=0,
        measured_at_ms=None,
        status=Health.UNKNOWN,
        outcome=Probe.NETWORK,
    )


def _looked(row: BridgeStats, track: Track, sight: Sight, now_ms: int) -> BridgeStats:
    """The last good values, with what this look showed beside them."""
    return msgspec.structs.replace(
        row,
        at_ms=now_ms,
        status=track.status,
        outcome=sight.outcome or row.outcome,
        reason=reason(track),
        error=sight.error,
    )


def _measured(row: BridgeStats, track: Track, sight: Sight) -> BridgeStats:
    p50, p95 = percentiles(track.latencies)
    return msgspec.structs.replace(
        row,
        measured_at_ms=row.at_ms,
        latency_s=sight.latency_s,
        p50_s=p50,
        p95_s=p95,
        quoted_s=sight.quoted_s,
    )
