"""Which statistics are news: they are told when they changed, compared with what was last told.

Compared with the last value *told*, not the last one measured: a slow drift adds up until it is told, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from .stats import BridgeStats, ChainStats, Health, Overview, Round, ServiceHealth

#: One provider on one route.
BridgeKey = tuple[str, str]


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """Relative changes that are news; a change of status always is."""

    block_time: float = 0.1
    latency: float = 0.25
    volume: float = 0.05
    #: Below so many seconds a latency's changes are noise.
    latency_floor_s: float = 0.2


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What was last told."""

    chains: Mapping[int, ChainStats] = {}
    bridges: Mapping[BridgeKey, BridgeStats] = {}
    overview: Overview | None = None
    service: ServiceHealth | None = None


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """What is news. Names of events: stats.chain_performance_updated, .bridge_latency_updated, .overview_updated and
    stats.health_check."""

    chains: tuple[ChainStats, ...] = ()
    bridges: tuple[BridgeStats, ...] = ()
    overview: Overview | None = None
    service: ServiceHealth | None = None

    def __bool__(self) -> bool:
        return bool(self.chains or self.bridges or self.overview or self.service)


def told_before(chains: Sequence[ChainStats], bridges: Sequence[BridgeStats], overview: Overview | None) -> Told:
    """What a daemon that starts takes for told: the archive's latest."""
    return Told(
        chains={chain.chain_id: chain for chain in chains},
        bridges={_key(bridge): bridge for bridge in bridges},
        overview=overview,
    )


def due(told: Told, new: Round, thresholds: Thresholds) -> Due:
    """What of `new` is news after `told`."""
    return Due(
        chains=tuple(one for one in new.chains if _chain_differs(told.chains.get(one.chain_id), one, thresholds)),
        bridges=tuple(one for one in new.bridges if _bridge_differs(told.bridges.get(_key(one)), one, thresholds)),
        overview=new.overview if _overview_differs(told.overview, new.overview, thresholds) else None,
        service=new.service if _service_differs(told.service, new.service) else None,
    )


def after(told: Told, news: Due) -> Told:
    """What is told once `news` has been."""
    return Told(
        chains={**told.chains, **{chain.chain_id: chain for chain in news.chains}},
        bridges={**told.bridges, **{_key(bridge): bridge for bridge in news.bridges}},
        overview=news.overview or told.overview,
        service=news.service or told.service,
    )


def _key(bridge: BridgeStats) -> BridgeKey:
    return bridge.provider, bridge.route


def _chain_differs(old: ChainStats | None, new: ChainStats, thresholds: Thresholds) -> bool:
    return (
        old is None
        or old.status is not new.status
        or differs(old.block_time_s, new.block_time_s, thresholds.block_time)
        or differs(old.volume_24h_usd, new.volume_24h_usd, thresholds.volume)
        or differs(old.tvl_usd, new.tvl_usd, thresholds.volume)
    )


def _bridge_differs(old: BridgeStats | None, new: BridgeStats, thresholds: Thresholds) -> bool:
    return (
        old is None
        or old.status is not new.status
        or differs(old.latency_s, new.latency_s, thresholds.latency, floor=thresholds.latency_floor_s)
    )


def _overview_differs(old: Overview | None, new: Overview | None, thresholds: Thresholds) -> bool:
    if new is None or old is None or old.status is not new.status:
        return new is not None
    chains = {chain.chain_id: chain for chain in old.chains}
    bridges = {_key(bridge): bridge for bridge in old.bridges}
    return (
        chains.keys() != {chain.chain_id for chain in new.chains}
        or bridges.keys() != {_key(bridge) for bridge in new.bridges}
        or any(_chain_differs(chains.get(chain.chain_id), chain, thresholds) for chain in new.chains)
        or any(_bridge_differs(bridges.get(_key(bridge)), bridge, thresholds) for bridge in new.bridges)
    )


def _service_differs(old: ServiceHealth | None, new: ServiceHealth | None) -> bool:
    if new is None:
        return False
    if old is None:
        # The first verdict after a start is told, once there is one.
        return new.status is not Health.UNKNOWN
    return _states(old) != _states(new)


def _states(service: ServiceHealth) -> tuple[Health, dict[str, Health]]:
    return service.status, {part.name: part.status for part in service.parts}


def differs(old: float | Decimal | None, new: float | Decimal | None, share: float, *, floor: float = 0.0) -> bool:
    """Whether `new` is away from `old` by at least `share` of it; None is different from every number.

    What is below `floor` counts as if it were there.
    """
    if old is None or new is None:
        return old is not new
    before, now = max(float(old), floor), max(float(new), floor)
    return before != now and abs(now - before) >= share * abs(before)
