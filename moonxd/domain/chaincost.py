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
    #: Of the looks, and of the heads that are announced besides.
    units_per_day: int
    heads_per_day: int = 0


def budget_per_day(plan_units_per_month: int, share: float) -> int:
    """Units a day that statistics may spend of a plan."""
    return int(plan_units_per_month * share / _MONTH_DAYS)


def costs(
    units_per_look: Mapping[str, int], heads_per_day: Mapping[str, int], *, budget: int, tick_s: float
) -> tuple[Cost, ...]:
    """What each chain (by slug) costs a day when what the heads leave of `budget` is shared evenly among those that are
    looked at, and none of them is looked at more than once in `tick_s` seconds.

    A share too small for one look a day means no looks: `every_s` is infinite.
    """
    share = (budget - sum(heads_per_day.values())) / max(1, len(units_per_look))
    slugs = dict.fromkeys((*units_per_look, *heads_per_day))
    return tuple(_cost(slug, units_per_look.get(slug, 0), heads_per_day.get(slug, 0), share, tick_s) for slug in slugs)


def _cost(slug: str, units: int, heads: int, share: float, tick_s: float) -> Cost:
    if not 0 < units <= share:
        return Cost(slug=slug, units_per_look=units, every_s=math.inf, units_per_day=0, heads_per_day=heads)
    every_s = max(tick_s, units * _DAY_S / share)
    per_day = math.floor(units * _DAY_S / every_s)
    return Cost(slug=slug, units_per_look=units, every_s=every_s, units_per_day=per_day, heads_per_day=heads)


def heads_cost(chain: Chain, units_per_head: int) -> int:
    """Units that a day of the chain's heads costs."""
    return math.ceil(units_per_head * _DAY_S / chain.block_time)


def statement(found: tuple[Cost, ...], *, budget: int) -> tuple[str, ...]:
    """A sentence per chain, and one about all of them, for the log and for people."""
    total = sum(cost.units_per_day + cost.heads_per_day for cost in found)
    whole = f"all chains: {total} of the {budget} compute units a day that statistics may spend"
    return (*(f"{cost.slug}: {_said(cost)}" for cost in found), whole)


def _said(cost: Cost) -> str:
    looks = f"{cost.units_per_day} compute units a day, a look of {cost.units_per_look} every {cost.every_s:.0f} s"
    heads = f", and {cost.heads_per_day} for its heads" if cost.heads_per_day else ""
    return (looks if cost.units_per_day else "no looks, the budget does not allow one a day") + heads
