"""The routes that quotes are asked for, as the configuration writes them."""

from __future__ import annotations

import pytest

from moonxd.adapters.chains import TokenList, builtin_tokens
from moonxd.config.outlets import Stats
from moonxd.domain.address import NATIVE
from moonxd.domain.bridge import BRIDGE_TOKENS, parse_route
from moonxd.domain.chain import CHAINS
from moonxd.domain.errors import Permanent


def test_a_route_by_its_text() -> None:
    route = parse_route(" Base:usdc -> 42161:USDC ")
    assert route.name == "base:USDC->arbitrum:USDC"
    assert parse_route(route.name) == route
    assert (route.sent.chain.id, route.received.chain.id, route.amount) == (8453, 42161, 100 * 10**6)
    native = parse_route("ethereum:ETH->bsc:BNB")
    assert (native.sent.address, native.received.address, native.amount) == (NATIVE, NATIVE, 5 * 10**16)
    assert parse_route("bsc:USDC->polygon:POL").amount == 100 * 10**18


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("base->arbitrum", "write it as"),
        ("base:USDC->base:WETH", "another one"),
        ("base:USDC->mars:USDC", "unknown chain"),
        ("bsc:WETH->base:WETH", "use one of BNB, USDC"),
        ("base:POL->polygon:POL", "use one of ETH, USDC, WETH"),
        ("", "no route"),
    ],
)
def test_what_is_no_route_says_why(text: str, why: str) -> None:
    with pytest.raises(Permanent, match=why):
        parse_route(text)


def test_every_token_is_on_the_shipped_list() -> None:
    listed = TokenList(builtin_tokens())
    for token in BRIDGE_TOKENS:
        if token.address != NATIVE:
            meta = listed.on(token.chain.id)[token.address]
            assert (meta.symbol, meta.decimals) == (token.symbol, token.decimals)
    assert {token.chain.id for token in BRIDGE_TOKENS if token.symbol == "USDC"} == set(CHAINS)


def test_the_default_routes_are_routes_and_within_the_keyless_budget() -> None:
    stats = Stats()
    for provider in (stats.lifi, stats.relay, stats.oneinch, stats.across):
        assert [parse_route(route).name for route in provider.routes] == list(provider.routes)
    # LI.FI grants 200 requests in two hours: a round every two minutes, and its list of chains every hour.
    assert len(stats.lifi.routes) * 60 + 2 <= 180
