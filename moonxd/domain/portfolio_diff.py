"""What changed of a portfolio, and whether that is worth telling."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from .token import Holding


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Between two portfolios, spam left out. `changed` are pairs of before and after."""

    added: tuple[Holding, ...] = ()
    removed: tuple[Holding, ...] = ()
    changed: tuple[tuple[Holding, Holding], ...] = ()

    @property
    def is_of_substance(self) -> bool:
        """Whether more than prices moved: tokens came or went, or one has another balance or name."""
        return bool(self.added or self.removed) or any(_named(a) != _named(b) for a, b in self.changed)


def difference(before: Iterable[Holding], after: Iterable[Holding]) -> Difference:
    old = {row.token: row for row in before if not row.is_spam}
    new = {row.token: row for row in after if not row.is_spam}
    both = [(old[token], row) for token, row in sorted(new.items()) if token in old]
    return Difference(
        added=tuple(row for token, row in sorted(new.items()) if token not in old),
        removed=tuple(row for token, row in sorted(old.items()) if token not in new),
        changed=tuple((a, b) for a, b in both if _named(a) != _named(b) or a.value_usd != b.value_usd),
    )


def _named(row: Holding) -> tuple[object, ...]:
    return row.raw, row.amount, row.symbol


def is_worth_telling(found: Difference, total: Decimal, told: Decimal | None, move: Decimal) -> bool:
    """Tokens or balances always are. Prices alone are when the total moved by the share `move` since it was last told:
    measured from there, not from the sync before, so that a slow drift is told as well."""
    if found.is_of_substance:
        return True
    # Prices may also have moved in earlier syncs, too little then.
    return bool(found.changed) if told is None else _moved(total, told, move)


def _moved(total: Decimal, told: Decimal, move: Decimal) -> bool:
    return total != told and abs(total - told) >= move * abs(told)
