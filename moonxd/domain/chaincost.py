"""What statistics cost on a metered key, in the provider's units, and how often we may look within a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from .chain import Chain

_DAY_S = 86400.0
#: The longest month: a budget that is kept in it is kept in every other.
_MONTH_DAYS = 31


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """One chain on a metered key."""

    slug: str
    units_per_look: int
    #: A look at most every so many seconds.
    every_s: float
    units_per_day: int


def budget_per_day(plan_units_per_month: int, share: float) -> int:
    """Units a day that statistics may spend of a plan."""
    return int(plan_units_per_month * share / _MONTH_DAYS)


def costs(units_per_look: Mapping[str, int], *, budget: int, tick_s: float) -> tuple[Cost, ...]:
    """What each chain (by slug) costs a day when `budget` units are shared evenly and nobody looks more than each tick.

    A budget too small for one look a day means no looks: `every_s` is infinite.
    """
    share = budget / max(1, len(units_per_look))
    return tuple(_cost(slug, units, share, tick_s) for slug, units in units_per_look.items())


def _cost(slug: str, units: int, share: float, tick_s: float) -> Cost:
    if share < units:
        return Cost(slug=slug, units_per_look=units, every_s=math.inf, units_per_day=0)
    every_s = max(tick_s, units * _DAY_S / share)
    return Cost(slug=slug, units_per_look=units, every_s=every_s, units_per_day=math.floor(units * _DAY_S / every_s))


def statement(found: tuple[Cost, ...], *, budget: int) -> tuple[str, ...]:
    """A sentence per chain, and one about all of them, for the log and for people."""
    lines = tuple(
        f"{cost.slug}: {cost.units_per_day} compute units a day, a look of {cost.units_per_look} every "
        f"{cost.every_s:.0f} s"
        if cost.units_per_day
        else f"{cost.slug}: no looks, the budget does not allow one a day"
        for cost in found
    )
    total = sum(cost.units_per_day for cost in found)
    return (*lines, f"all chains: {total} of the {budget} compute units a day that statistics may spend")


def wants_heads(chain: Chain, *, fastest_s: float, units_per_head: int, budget: float) -> bool:
    """Whether the heads of a chain are subscribed to: its blocks are no faster than `fastest_s`, and what a day of them
    costs (`units_per_head` 0: nothing) is within `budget`."""
    return chain.block_time >= fastest_s and units_per_head * _DAY_S / chain.block_time <= budget
