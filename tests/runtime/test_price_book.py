"""The price book: who is asked for what, who is left alone, and which price stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import pytest
import trio
from trio.testing import MockClock

from moonxd.adapters.memory.cache import MemoryCache
from moonxd.domain.errors import Permanent, Transient
from moonxd.domain.token import Price, TokenRef
from moonxd.worker.pricing import PriceBook

A, B, C = (TokenRef(1, f"0x{number:040x}") for number in range(1, 4))


class Market:
    """A price source as the test wants it."""

    def __init__(self, name: str, **prices: tuple[int, float]) -> None:
        self.name = name
        self.prices_of = {{"a": A, "b": B, "c": C}[token]: price for token, price in prices.items()}
        self.failure: Exception | None = None
        self.asked: list[set[TokenRef]] = []
        self.most: int | None = None

    async def prices(self, tokens: Sequence[TokenRef]) -> Mapping[TokenRef, Price]:
        self.asked.append(set(tokens))
        if self.failure is not None:
            raise self.failure
        found = {token: self.prices_of[token] for token in tokens if token in self.prices_of}
        return {token: Price(Decimal(usd), self.name, sure, 0.0) for token, (usd, sure) in found.items()}


def book(*sources: Market) -> PriceBook:
    return PriceBook(sources, MemoryCache(), ttl_s=60.0)


async def test_each_source_is_asked_once_for_what_is_not_settled(autojump_clock: MockClock) -> None:
    first = Market("defillama", a=(10, 0.99), b=(20, 0.5))
    second = Market("coingecko", b=(21, 0.95), c=(30, 0.95))
    third = Market("dexscreener")
    prices = book(first, second, third)
    found = (await prices.lookup([A, B, C, A])).found
    assert {token: (price.usd, price.source) for token, price in found.items()} == {
        A: (10, "defillama"), B: (21, "coingecko"), C: (30, "coingecko"),
    }  # fmt: skip
    assert (first.asked, second.asked, third.asked) == ([{A, B, C}], [{B, C}], [])
    assert (await prices.lookup([A, B, C])).found == found
    assert len(first.asked) == 1, "the cache knows"


async def test_tokens_that_a_source_takes_no_more_of_were_not_asked_about(autojump_clock: MockClock) -> None:
    only = Market("dexscreener", a=(10, 0.9), c=(30, 0.9))
    only.most = 2
    prices = book(only)
    lookup = await prices.lookup([A, B, C])
    assert (set(lookup.found), lookup.unavailable) == ({A}, {C}), "B is unknown: it was asked about"
    await trio.sleep(31)
    lookup = await prices.lookup([A, B, C])
    assert (set(lookup.found), lookup.unavailable) == ({A, C}, frozenset()), "its turn comes"
    assert only.asked == [{A, B}, {C}]


async def test_a_token_that_nobody_knows_is_unknown_and_one_that_nobody_told_is_unavailable(
    autojump_clock: MockClock,
) -> None:
    first, second = Market("defillama", a=(10, 0.5)), Market("coingecko")
    prices = book(first, second)
    lookup = await prices.lookup([A, B])
    assert (lookup.found, lookup.unavailable) == ({}, frozenset())
    second.failure = Transient("down")
    lookup = await prices.lookup([C])
    assert (lookup.found, lookup.unavailable) == ({}, {C})
    again = await prices.lookup([C])
    assert (again.unavailable, len(first.asked)) == ({C}, 2), "not asked again at once"
    second.failure = None
    autojump_clock.jump(31)
    assert (await prices.lookup([C])).unavailable == frozenset()


async def test_five_failures_in_a_row_are_half_an_hour_without(autojump_clock: MockClock) -> None:
    bad, good = Market("coingecko"), Market("defillama", a=(10, 0.99))
    bad.failure = Transient("down")
    prices = book(bad, good)
    for _ in range(8):
        assert (await prices.lookup([A])).found[A].usd == 10
        autojump_clock.jump(61)
    assert len(bad.asked) == 5
    bad.failure = None
    autojump_clock.jump(1800)
    await prices.lookup([A])
    assert len(bad.asked) == 6


async def test_a_rate_limit_is_a_rest_and_no_failure(autojump_clock: MockClock) -> None:
    limited = Market("coingecko", a=(10, 0.99))
    limited.failure = Transient("slow down", retry_after=100.0)
    prices = book(limited)
    for _ in range(20):
        assert (await prices.lookup([A])).unavailable == {A}
        autojump_clock.jump(31)
    assert 5 <= len(limited.asked) <= 7
    limited.failure = None
    autojump_clock.jump(200)
    assert (await prices.lookup([A])).found[A].usd == 10


async def test_a_refused_key_is_half_an_hour_without(autojump_clock: MockClock) -> None:
    refused = Market("coingecko")
    refused.failure = Permanent("HTTP 401")
    prices = book(refused)
    for _ in range(5):
        assert (await prices.lookup([A])).unavailable == {A}
        autojump_clock.jump(31)
    assert len(refused.asked) == 1


@pytest.mark.parametrize(("second", "expected"), [(None, 10), (29, 30), (55, 10)])
async def test_a_jump_needs_a_second_source(autojump_clock: MockClock, second: int | None, expected: int) -> None:
    first, other = Market("defillama", a=(10, 0.99)), Market("coingecko")
    prices = book(first, other)
    assert (await prices.lookup([A])).found[A].usd == 10
    first.prices_of[A] = (30, 0.99)
    if second is not None:
        other.prices_of[A] = (second, 0.95)
    for _ in range(3):
        autojump_clock.jump(61)
        assert (await prices.lookup([A])).found[A].usd == expected
    autojump_clock.jump(901)
    if second is None:
        assert (await prices.lookup([A])).found[A].usd == 30, "after a quarter of an hour it is no jump any more"


async def test_without_sources_everything_is_unavailable(autojump_clock: MockClock) -> None:
    assert (await book().lookup([A])).unavailable == {A}
    assert (await book().lookup([])).found == {}
