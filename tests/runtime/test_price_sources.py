"""Every price source in the simulated world, and against servers that misbehave."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest

from moonxd.adapters.chains import TokenList, builtin_tokens
from moonxd.adapters.prices import SourceOptions, build_sources
from moonxd.adapters.rpc import Transport, open_transport
from moonxd.adapters.rpc.errors import Garbage, HttpFailure, KeyRefused, RateLimited
from moonxd.domain.address import NATIVE
from moonxd.domain.chain import CHAINS
from moonxd.domain.token import Price, TokenRef
from moonxd.ports import PriceSource
from tests.services.simulator import SimulatorProcess
from tests.services.tcp import Peer, http, serving

WETH = TokenRef(1, "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2")
USDC = TokenRef(8453, "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913")
COIN = TokenRef(56, NATIVE)
NOWHERE = TokenRef(1, "0x" + "77" * 20)
NAMES = ("coingecko", "dexscreener", "binance", "alchemy")
LISTED = {
    TokenRef(chain_id, address): meta.symbol
    for chain_id in CHAINS
    for address, meta in TokenList(builtin_tokens()).on(chain_id).items()
}


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with open_transport() as opened:
        yield opened


@pytest.fixture
def source(transport: Transport) -> Callable[..., PriceSource]:
    def build(name: str, url: str, **options: Any) -> PriceSource:
        settings = {"timeout_s": 5.0, "api_key": "secret-key-0123456789", "listed": LISTED} | options
        (built,) = build_sources([name], transport, {name: SourceOptions(url, **settings)})
        return built

    return build


def url_of(name: str, simulator: SimulatorProcess) -> str:
    return simulator.env["ALCHEMY_PRICES_URL" if name == "alchemy" else f"{name.upper()}_BASE_URL"]


@pytest.mark.parametrize("name", NAMES)
async def test_what_the_simulated_vendors_know(
    simulator: SimulatorProcess, source: Callable[..., PriceSource], name: str
) -> None:
    (llama,) = build_sources(
        ["defillama"],
        source(name, "http://127.0.0.1:1")._asker._transport,  # type: ignore[attr-defined]
        {"defillama": SourceOptions(simulator.env["DEFILLAMA_COINS_URL"])},
    )
    truth = await llama.prices([WETH, USDC, COIN])
    found = await source(name, url_of(name, simulator)).prices([WETH, USDC, COIN, NOWHERE])
    expected = {"binance": {WETH, COIN}}.get(name, {WETH, USDC})
    assert found.keys() == expected
    for token, price in found.items():
        # A stable coin is paired with itself in that world.
        assert abs(price.usd / truth[token].usd - 1) < Decimal("0.001")
        assert price.source == name
        assert price.confidence >= 0.9
        assert price.at > 1e9


@pytest.mark.parametrize("name", NAMES)
async def test_nothing_to_ask_is_asked_nothing(source: Callable[..., PriceSource], name: str) -> None:
    assert await source(name, "http://127.0.0.1:1").prices([]) == {}
    assert await source(name, "http://127.0.0.1:1").prices([TokenRef(999, WETH.address)]) == {}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (http(b"<html>"), Garbage),
        (http(b"17"), Garbage),
        (http(b"", status="429 Too Many Requests", headers="Retry-After: 7\r\n"), RateLimited),
        (http(b"", status="418 I'm a teapot"), RateLimited),
        (http(b"", status="401 Unauthorized"), KeyRefused),
        (http(b"", status="503 Service Unavailable"), HttpFailure),
    ],
)
async def test_failures_are_ours_and_name_the_host_only(
    source: Callable[..., PriceSource], name: str, answer: bytes, error: type[Exception]
) -> None:
    async def once(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(answer)

    async with serving(once) as server:
        with pytest.raises(error, match=r"127\.0\.0\.1") as caught:
            await source(name, server.url).prices([WETH])
    assert "secret" not in str(caught.value)
    if answer.startswith(b"HTTP/1.1 429"):
        assert caught.value.retry_after == 7  # type: ignore[attr-defined]


def answering(value: Any) -> Callable[[Peer], Any]:
    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(http(json.dumps(value).encode()))

    return handler


def pair(base: str, usd: Any, pool: Any, chain: str = "ethereum", quote: str = "0x01") -> dict[str, Any]:
    return {
        "chainId": chain, "baseToken": {"address": base}, "quoteToken": {"address": quote},
        "priceUsd": usd, "liquidity": {"usd": pool},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pairs", "price"),
    [
        ([pair(WETH.address, "10", 60_000), pair(WETH.address, "12", 70_000)], ("12", 0.9)),
        ([pair(WETH.address.upper().replace("X", "x"), "10", 49_000)], ("10", 0.5)),
        ([pair(WETH.address, "10", 4_999)], None),
        ([pair("0x01", "10", 1e9, quote=WETH.address)], None),
        ([pair(WETH.address, "10", 1e9, chain="base")], None),
        ([pair(WETH.address, "NaN", 1e9), pair(WETH.address, None, 1e9), {}, None, 3, {"baseToken": 1}], None),
        ([{**pair(WETH.address, "10", 1e9), "liquidity": None}], None),
    ],
)
async def test_dexscreener_takes_the_deepest_pool_of_the_token_itself(
    source: Callable[..., PriceSource], pairs: list[Any], price: tuple[str, float] | None
) -> None:
    async with serving(answering(pairs)) as server:
        found = await source("dexscreener", server.url + "/latest").prices([WETH])
    got = {token: (str(one.usd), one.confidence) for token, one in found.items()}
    assert got == ({} if price is None else {WETH: price})
    assert b"GET /tokens/v1/ethereum/" in server.requests[0][0]


async def test_dexscreener_asks_for_thirty_at_a_time(source: Callable[..., PriceSource]) -> None:
    tokens = [TokenRef(1, f"0x{number:040x}") for number in range(1, 71)]
    async with serving(answering([])) as server:
        assert await source("dexscreener", server.url).prices(tokens) == {}
    assert [head.split(b" ")[1].count(b"0x") for head, _ in server.requests] == [30, 30, 10]


async def test_coingecko_finds_out_how_many_it_may_ask_for(source: Callable[..., PriceSource]) -> None:
    tokens = [TokenRef(1, f"0x{number:040x}") for number in range(1, 6)]

    async def one_only(peer: Peer) -> None:
        while True:
            head, _ = await peer.request()
            if head.split(b" ")[1].count(b"0x") > 1:
                await peer.send(http(b'{"error_code":10012}', status="400 Bad Request"))
            else:
                address = head.split(b"contract_addresses=")[1][:42].decode()
                await peer.send(http(json.dumps({address.upper().replace("X", "x"): {"usd": 2.5}}).encode()))

    async with serving(one_only) as server:
        asking = source("coingecko", server.url)
        assert {token: price.usd for token, price in (await asking.prices(tokens)).items()} == dict.fromkeys(
            tokens, Decimal("2.5")
        )
        before = len(server.requests)
        await asking.prices(tokens)
        assert len(server.requests) - before == len(tokens), "the second time it knows"
        assert b"x-cg-demo-api-key: secret" in server.requests[0][0]
        with pytest.raises(RateLimited, match="too many at once"):
            await asking.prices([TokenRef(1, f"0x{number:040x}") for number in range(1, 200)])


async def test_binance_leaves_out_the_market_that_it_does_not_have(source: Callable[..., PriceSource]) -> None:
    async def no_bnb(peer: Peer) -> None:
        while True:
            head, _ = await peer.request()
            if b"BNBUSDT" in head:
                await peer.send(http(b'{"code":-1121}', status="400 Bad Request"))
            else:
                await peer.send(http(b'[{"symbol":"ETHUSDT","price":"2000.5"}]'))

    async with serving(no_bnb) as server:
        asking = source("binance", server.url)
        for _ in range(2):
            found = await asking.prices([WETH, COIN, NOWHERE])
            assert {token: price.usd for token, price in found.items()} == {WETH: Decimal("2000.5")}
    assert len(server.requests) == 4


async def test_alchemy_takes_recorded_answers(source: Callable[..., PriceSource]) -> None:
    rows = [
        {"network": "eth-mainnet", "address": WETH.address.upper().replace("X", "x"),
         "prices": [{"currency": "usd", "value": "2000.1", "lastUpdatedAt": "2026-11-22T10:00:00Z"}]},
        {"network": "base-mainnet", "address": USDC.address, "prices": [], "error": {"message": "Token not found"}},
        {"network": "moon", "address": "0x1", "prices": []}, None, {"network": "eth-mainnet"},
    ]  # fmt: skip
    async with serving(answering({"data": rows})) as server:
        found = await source("alchemy", server.url).prices([WETH, USDC, COIN])
    assert found == {WETH: Price(Decimal("2000.1"), "alchemy", 0.9, 1795341600.0)}
    (request,) = server.requests
    assert json.loads(request[1])["addresses"][0] == {"network": "eth-mainnet", "address": WETH.address}


@pytest.mark.parametrize(("name", "requests"), [("coingecko", 20), ("dexscreener", 20), ("alchemy", 4)])
async def test_as_many_tokens_as_a_source_takes_cost_no_more_requests_than_it_grants(
    source: Callable[..., PriceSource], name: str, requests: int
) -> None:
    """The worst spread over the chains: each leaves a request that is not full."""
    empty: dict[str, Any] = {"coingecko": {}, "dexscreener": [], "alchemy": {"data": []}}
    async with serving(answering(empty[name])) as server:
        asking = source(name, server.url)
        assert asking.most is not None
        chains = list(CHAINS)
        spread = [TokenRef(chain_id, f"0x{number:040x}") for number, chain_id in enumerate(chains[1:], 1)]
        rest = [TokenRef(chains[0], f"0x{number:040x}") for number in range(100, 100 + asking.most - len(spread))]
        assert await asking.prices(spread + rest) == {}
    assert 1 < len(server.requests) <= requests


async def test_a_source_without_its_key_is_left_out(transport: Transport) -> None:
    assert build_sources(["alchemy"], transport, {"alchemy": SourceOptions("https://a.example")}) == ()
