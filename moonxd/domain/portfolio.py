"""From what the chains and price sources said to what the ledger must change. The maths of a sync, and nothing else.

Three rules hold everywhere: a chain that failed keeps its last good rows, a token that could not be read keeps its last
good row, and an unknown price is None. Only a source that answered and did not know a token makes its price unknown;
a source that was away leaves the last known price standing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from . import money
from .spam import is_spam
from .token import ChainSnapshot, Holding, Price, TokenBalance, TokenRef

#: Where a holding keeps, beside what the chain's source said, whose word its price is: source, confidence, at.
PRICE_FACTS = "price"


class PriceLookup(msgspec.Struct, frozen=True):
    """Prices found, and the tokens nobody could be asked about (every source for them was away)."""

    found: Mapping[TokenRef, Price] = msgspec.field(default_factory=dict)
    unavailable: frozenset[TokenRef] = frozenset()


class PortfolioChange(msgspec.Struct, frozen=True, kw_only=True):
    """What a sync found, against the rows that stood before."""

    #: The whole portfolio afterwards, rows of untouched chains included.
    holdings: tuple[Holding, ...]
    #: Rows that are new or differ in any field.
    changed: tuple[Holding, ...]
    #: Rows whose balance is gone.
    removed: tuple[TokenRef, ...]
    total_value_usd: Decimal

    @property
    def is_empty(self) -> bool:
        return not self.changed and not self.removed


def unpriced(snapshots: Iterable[ChainSnapshot]) -> tuple[TokenRef, ...]:
    """The tokens a sync needs prices for: those with a known scale."""
    return tuple(
        balance.token for snapshot in snapshots for balance in snapshot.balances if balance.meta.decimals is not None
    )


def assemble(previous: Sequence[Holding], snapshots: Sequence[ChainSnapshot], prices: PriceLookup) -> PortfolioChange:
    """The portfolio after reading `snapshots`, and its difference to `previous`."""
    before = {row.token: row for row in previous}
    read = {snapshot.chain_id for snapshot in snapshots}
    after = {token: row for token, row in before.items() if token.chain_id not in read}
    for snapshot in snapshots:
        for address in snapshot.quarantined:
            token = TokenRef(snapshot.chain_id, address)
            if token in before:
                after[token] = before[token]
        for balance in snapshot.balances:
            after[balance.token] = _row(balance, before.get(balance.token), prices)
    return _difference(before, after)


def refresh_metadata(previous: Sequence[Holding], snapshots: Sequence[ChainSnapshot]) -> PortfolioChange:
    """Only names, symbols, scales and logos of the rows that stand; balances and prices stay as they are."""
    before = {row.token: row for row in previous}
    after = dict(before)
    for snapshot in snapshots:
        for balance in snapshot.balances:
            row = before.get(balance.token)
            if row is not None:
                stands = msgspec.structs.replace(balance, raw=row.raw)
                after[balance.token] = _build(stands, row.price_usd, row.said.get(PRICE_FACTS))
    return _difference(before, after)


def _row(balance: TokenBalance, before: Holding | None, prices: PriceLookup) -> Holding:
    price = prices.found.get(balance.token)
    if price is not None:
        facts = {"source": price.source, "confidence": price.confidence, "at": price.at}
        return _build(balance, price.usd, facts)
    if before is not None and balance.token in prices.unavailable:
        return _build(balance, before.price_usd, before.said.get(PRICE_FACTS))
    return _build(balance, None, None)


def _build(balance: TokenBalance, price: Decimal | None, facts: dict[str, Any] | None) -> Holding:
    meta = balance.meta
    amount = None if meta.decimals is None else money.amount(balance.raw, meta.decimals)
    usd = None if amount is None else price
    return Holding(
        chain_id=balance.token.chain_id,
        address=balance.token.address,
        symbol=meta.symbol,
        name=meta.name,
        decimals=meta.decimals,
        raw=balance.raw,
        amount=amount,
        price_usd=usd,
        value_usd=None if amount is None or usd is None else money.value(amount, usd),
        logo=meta.logo,
        is_spam=is_spam(balance),
        is_verified=balance.verified,
        said=balance.said if usd is None or facts is None else {**balance.said, PRICE_FACTS: facts},
    )


def _same(row: Holding, before: Holding | None) -> bool:
    """Whether nothing changed but, at most, who confirmed the same price and when."""
    if before is None or row == before:
        return before is not None
    if row.raw != before.raw or row.price_usd != before.price_usd:
        return False
    return msgspec.structs.replace(row, said=_steady(row)) == msgspec.structs.replace(before, said=_steady(before))


def _steady(row: Holding) -> dict[str, Any]:
    return {key: value for key, value in row.said.items() if key != PRICE_FACTS}


def _difference(before: Mapping[TokenRef, Holding], after: Mapping[TokenRef, Holding]) -> PortfolioChange:
    holdings = tuple(after[token] for token in sorted(after))
    return PortfolioChange(
        holdings=holdings,
        changed=tuple(row for row in holdings if not _same(row, before.get(row.token))),
        removed=tuple(sorted(token for token in before if token not in after)),
        total_value_usd=total_value(holdings),
    )


def total_value(holdings: Iterable[Holding]) -> Decimal:
    """USD of everything that has a price and is not spam."""
    return money.total([row.value_usd for row in holdings if row.value_usd is not None and not row.is_spam])
