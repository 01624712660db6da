"""Which price to believe, given what several sources said. Unknown is None: never zero, never a guess."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import msgspec

from .token import Price

#: Sources whose own doubts count: below `Rules.trusted` such a price needs another source beside it.
_SELF_DOUBTING = frozenset({"defillama"})


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """When a price stands. Confidences are 0..1, shares of a price are 0.1 for ten percent."""

    #: Confidence from which a price needs no other source.
    trusted: float = 0.9
    #: Confidence below which a price counts as unknown.
    floor: float = 0.2
    #: Confidence from which a price stands where no other source is configured.
    alone: float = 0.5
    #: How far two sources may be apart to confirm each other.
    agree: float = 0.1
    #: A change against the last stored price that nobody believes of one source.
    jump: float = 0.5


class Verdict(msgspec.Struct, frozen=True):
    """`price` None: unknown. `held`: the last stored price stands because nobody confirmed the new one."""

    price: Price | None
    held: bool = False


def settled(said: Sequence[Price], last: Price | None, rules: Rules) -> Price | None:
    """The price that stands without asking anybody else, if one does. `last`: stored within the last minutes."""
    for place, price in enumerate(said):
        for other in said[:place]:
            if other.source != price.source and _agree(price.usd, other.usd, rules.agree):
                return max(other, price, key=lambda one: one.confidence)
    for price in said:
        if price.confidence >= rules.trusted and not _has_jumped(price, last, rules):
            return price
    return None


def decide(said: Sequence[Price], last: Price | None, rules: Rules, *, others: bool) -> Verdict:
    """What to believe once everybody was asked. `others`: more than one source is configured."""
    price = settled(said, last, rules)
    if price is not None:
        return Verdict(price)
    credible = [one for one in said if one.confidence >= rules.floor]
    jumped = [one for one in credible if _has_jumped(one, last, rules)]
    if jumped:
        return Verdict(last, held=True)
    if len(credible) != 1:
        # Nobody knows it, or those who do contradict each other.
        return Verdict(None)
    alone = credible[0]
    if others and alone.source in _SELF_DOUBTING:
        return Verdict(None)
    needed = rules.floor if others else rules.alone
    return Verdict(alone if alone.confidence >= needed else None)


def liquidity_confidence(usd: float) -> float | None:
    """How far to trust a price that comes from a pool with so many dollars; None: not at all."""
    if usd >= 50_000:
        return 0.9
    return 0.5 if usd >= 5_000 else None


def _has_jumped(price: Price, last: Price | None, rules: Rules) -> bool:
    return last is not None and not _agree(price.usd, last.usd, rules.jump)


def _agree(one: Decimal, other: Decimal, share: float) -> bool:
    """Whether neither is more than `share` away from the other, seen from the larger one."""
    low, high = sorted((one, other))
    return high - low <= high * Decimal(str(share))
