"""One verdict over all chains and bridges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from .stats import BridgeStats, ChainStats, Health, Overview

Row = TypeVar("Row", ChainStats, BridgeStats)

_AILING = (Health.DEGRADED, Health.UNHEALTHY)


def overview(chains: Sequence[ChainStats], bridges: Sequence[BridgeStats], *, at_ms: int, stale_s: float) -> Overview:
    """Everything as of `at_ms`. What nobody has looked at for `stale_s` is unknown, whatever it was then."""
    fresh_chains = tuple(_aged(chain, at_ms, stale_s) for chain in chains)
    fresh_bridges = tuple(_aged(bridge, at_ms, stale_s) for bridge in bridges)
    verdicts = [chain.status for chain in fresh_chains] + [bridge.status for bridge in fresh_bridges]
    return Overview(at_ms=at_ms, status=verdict(verdicts), chains=fresh_chains, bridges=fresh_bridges)


def verdict(statuses: Sequence[Health]) -> Health:
    """`unknown` when nothing is known, `unhealthy` when most of what is known is, `degraded` when anything ails."""
    known = [status for status in statuses if status is not Health.UNKNOWN]
    if not known:
        return Health.UNKNOWN
    if 2 * known.count(Health.UNHEALTHY) > len(known):
        return Health.UNHEALTHY
    return Health.DEGRADED if any(status in _AILING for status in known) else Health.HEALTHY


def _aged(row: Row, at_ms: int, stale_s: float) -> Row:
    age_s = (at_ms - row.at_ms) / 1000
    if age_s <= stale_s or row.status is Health.UNKNOWN:
        return row
    return msgspec.structs.replace(row, status=Health.UNKNOWN, reason=f"nobody has looked for {age_s:.0f} s")
