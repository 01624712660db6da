"""Amounts are exact for everything a uint256 and a uint8 can say."""

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from moonxd.domain import money

RAW = st.integers(min_value=0, max_value=money.UINT256_MAX)
DECIMALS = st.integers(min_value=0, max_value=255)


@given(RAW, DECIMALS)
def test_an_amount_loses_no_digit(raw: int, decimals: int) -> None:
    assert Fraction(money.amount(raw, decimals)) == Fraction(raw, 10**decimals)


@given(RAW, st.integers(0, 36), st.decimals(min_value="1e-18", max_value="1e12", allow_nan=False, places=18))
def test_a_value_is_the_product_rounded_once(raw: int, decimals: int, price: Decimal) -> None:
    exact = Fraction(raw, 10**decimals) * Fraction(price)
    assert abs(Fraction(money.value(money.amount(raw, decimals), price)) - exact) <= Fraction(1, 2 * 10**18)


@given(st.lists(st.integers(0, 10**60), max_size=50))
def test_a_total_does_not_depend_on_the_order(units: list[int]) -> None:
    values = [Decimal(unit).scaleb(-18, context=money.WIDE) for unit in units]
    assert money.total(values) == money.total(values[::-1])
    assert Fraction(money.total(values)) == Fraction(sum(units), 10**18)


def test_only_positive_finite_numbers_are_prices() -> None:
    assert money.parse_price("0.000000000001") == Decimal("1e-12")
    assert money.parse_price(2) == Decimal(2)
    for nonsense in ("NaN", "Infinity", "-1", "0", "", "abc", "1e", None):
        assert money.parse_price(nonsense) is None  # type: ignore[arg-type]
