"""Which price is believed: tables of what sources said."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonxd.domain.pricing import Rules, Verdict, decide, liquidity_confidence, settled
from moonxd.domain.token import Price

RULES = Rules()


def price(usd: str | int, source: str = "defillama", confidence: float = 0.99) -> Price:
    return Price(Decimal(usd), source, confidence, 0.0)


SURE, DOUBTFUL = price(100), price(100, confidence=0.5)
CLOSE, FAR = price(109, "coingecko", 0.95), price(150, "coingecko", 0.95)
THIN = price(100, "dexscreener", 0.5)


@pytest.mark.parametrize(
    ("said", "last", "others", "verdict"),
    [
        # One source.
        ([SURE], None, True, Verdict(SURE)),
        ([DOUBTFUL], None, True, Verdict(None)),
        ([DOUBTFUL], None, False, Verdict(DOUBTFUL)),
        ([price(100, confidence=0.3)], None, False, Verdict(None)),
        ([THIN], None, True, Verdict(THIN)),
        ([price(100, "dexscreener", 0.1)], None, True, Verdict(None)),
        ([], None, True, Verdict(None)),
        # Two sources.
        ([DOUBTFUL, CLOSE], None, True, Verdict(CLOSE)),
        ([DOUBTFUL, price(100, "dexscreener", 0.5)], None, True, Verdict(DOUBTFUL)),
        ([DOUBTFUL, FAR], None, True, Verdict(FAR)),
        ([DOUBTFUL, price(150, "dexscreener", 0.5)], None, True, Verdict(None)),
        # Against the last stored price.
        ([SURE], price(160), True, Verdict(SURE)),
        ([SURE], price(210), True, Verdict(price(210), held=True)),
        ([SURE], price(40), True, Verdict(price(40), held=True)),
        ([SURE, CLOSE], price(40), True, Verdict(SURE)),
        ([SURE], price(40), False, Verdict(price(40), held=True)),
        ([], price(40), True, Verdict(None)),
        ([price(100), price(300, "coingecko", 0.95)], price(90), True, Verdict(price(100))),
    ],
)
def test_what_is_believed(said: list[Price], last: Price | None, others: bool, verdict: Verdict) -> None:
    assert decide(said, last, RULES, others=others) == verdict


def test_one_source_twice_confirms_nothing() -> None:
    assert settled([DOUBTFUL, DOUBTFUL], None, RULES) is None


@given(
    st.lists(st.tuples(st.decimals("1e-9", "1e9"), st.sampled_from("abc"), st.floats(0, 1)), max_size=4),
    st.one_of(st.none(), st.decimals("1e-9", "1e9")),
    st.booleans(),
)
def test_nothing_is_invented(said: list[tuple[Decimal, str, float]], before: Decimal | None, others: bool) -> None:
    prices = [Price(usd, source, confidence, 0.0) for usd, source, confidence in said]
    last = None if before is None else Price(before, "last", 1.0, 0.0)
    verdict = decide(prices, last, RULES, others=others)
    assert verdict.price is None or verdict.price in [*prices, last]
    stands = settled(prices, last, RULES)
    assert stands is None or verdict.price == stands


def test_liquidity() -> None:
    assert [liquidity_confidence(usd) for usd in (0, 4_999, 5_000, 49_999, 50_000, 1e12)] == [
        None, None, 0.5, 0.5, 0.9, 0.9,
    ]  # fmt: skip
