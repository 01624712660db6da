"""What a faultless reader would find in a wallet: the answer sheet for tests."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from moonxd.domain import money

from .universe import SimToken, Trait
from .world import SimChain, World


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows count towards the totals (every row is listed)."""

    #: Only tokens on the token list, as a reader without discovery sees them.
    listed_only: bool = False
    #: Prices below it count as no price.
    min_confidence: float = 0.5


def wallet(world: World, address: str, counted: Filter) -> dict[str, Any]:
    """Balances, prices and totals of a lower-case address, per chain. Amounts and USD are decimal text, raw is text."""
    key = bytes.fromhex(address[2:])
    now = world.now()
    chains, totals = {}, []
    for slug, chain in world.chains.items():
        rows = [_row(world, chain, token, raw, now) for token, raw in held(chain, key)]
        values = [Decimal(row["valueUsd"]) for row in rows if _counts(row, counted)]
        totals += values
        chains[slug] = {"chainId": chain.chain.id, "tokens": rows, "totalValueUsd": format(money.total(values), "f")}
    total = format(money.total(totals), "f")
    return {"address": address, "at": now, "totalValueUsd": total, "chains": chains}


def held(chain: SimChain, wallet_key: bytes) -> list[tuple[SimToken, int]]:
    """A wallet's tokens and their raw balances, the coin first."""
    raw = chain.wallets.get(wallet_key).raw
    return [(token, raw[key]) for key in raw if (token := chain.universe.get(key)) is not None]


def _row(world: World, chain: SimChain, token: SimToken, raw: int, now: float) -> dict[str, Any]:
    price = world.pricing.usd(token, now)
    scale = token.known_decimals
    amount = None if scale is None else money.amount(raw, scale)
    value = None if price is None or amount is None else money.value(amount, price)
    contracts = chain.contracts
    broken = token.trait in (Trait.REVERTING, Trait.POISON)
    return {
        "address": token.address,
        "symbol": token.symbol,
        "name": token.name,
        "decimals": scale,
        "raw": str(raw),
        "amount": None if amount is None else format(amount, "f"),
        "priceUsd": None if price is None else format(price, "f"),
        "confidence": token.confidence if price is not None else None,
        "valueUsd": None if value is None else format(value, "f"),
        "trait": str(token.trait),
        "listed": token.listed,
        "spam": token.spam,
        "readable": not broken and token.key not in contracts.poison and token.key not in contracts.reverting,
    }


def _counts(row: dict[str, Any], counted: Filter) -> bool:
    if row["valueUsd"] is None or row["spam"] or not row["readable"]:
        return False
    return row["confidence"] >= counted.min_confidence and (row["listed"] or not counted.listed_only)
