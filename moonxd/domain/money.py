"""Amounts and values. Raw balances are integers, everything else is `Decimal`; a float never enters.

The default decimal context keeps 28 digits, a uint256 has up to 78: every operation here names its context.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal, DecimalException, InvalidOperation

#: Wide enough for a uint256 times a price with as many digits, without rounding.
WIDE = Context(prec=200, rounding=ROUND_HALF_EVEN)
#: The scale at which a value in USD is stored and compared.
USD_QUANTUM = Decimal("1e-18")
UINT256_MAX = 2**256 - 1


def amount(raw: int, decimals: int) -> Decimal:
    """`raw` base units as whole tokens, exact for every uint256 and every uint8 of decimals."""
    return Decimal(raw).scaleb(-decimals, context=WIDE)


def value(tokens: Decimal, price: Decimal) -> Decimal:
    """USD value of `tokens` at `price`, rounded half-even to 18 places."""
    return WIDE.multiply(tokens, price).quantize(USD_QUANTUM, context=WIDE)


def total(values: list[Decimal]) -> Decimal:
    """Sum of USD values without intermediate rounding."""
    result = Decimal(0)
    for one in values:
        result = WIDE.add(result, one)
    return result


def parse_price(text: str | int | Decimal) -> Decimal | None:
    """A price as sources send it, or None when it is not a positive finite number."""
    try:
        price = Decimal(text)
    except (InvalidOperation, DecimalException, ValueError, TypeError):
        return None
    return price if price.is_finite() and price > 0 else None
