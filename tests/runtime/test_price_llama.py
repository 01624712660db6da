"""DefiLlama's prices: exact, positive, with their confidence; what is not known is absent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal

import pytest

from moonxd.adapters.prices import SOURCES, LlamaPrices, SourceOptions, build_sources
from moonxd.adapters.rpc import Transport, open_transport
from moonxd.adapters.rpc.errors import EndpointError, Garbage, HttpFailure, RateLimited, TooLarge, Unreachable
from moonxd.domain.address import NATIVE
from moonxd.domain.errors import ConfigError, Transient
from moonxd.domain.token import Price, TokenRef
from tests.services.tcp import Peer, http, serving

ARB = TokenRef(42161, "0x912ce59144191c1204e64559fe8253a0e49e6548")
Handler = Callable[[Peer], Awaitable[None]]


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with open_transport() as opened:
        yield opened


def answering(*bodies: bytes) -> Handler:
    async def handle(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(bodies[min(len(peer.server.requests), len(bodies)) - 1])

    return handle


def coins(entry: bytes) -> bytes:
    return http(b'{"coins":{"arbitrum:' + ARB.address.encode() + b'":' + entry + b"}}")


def tokens(count: int) -> list[TokenRef]:
    return [TokenRef(1, f"0x{number:040x}") for number in range(1, count + 1)]


async def pricing(peer: Peer) -> None:
    """Prices everything at 1 in batches of up to 100, refuses larger ones."""
    while True:
        head, _ = await peer.request()
        asked = head.split(b" ")[1].split(b"/")[-1].split(b"?")[0].split(b",")
        if len(asked) > 100:
            await peer.send(http(b"too long", status="414 URI Too Long"))
        else:
            entries = b",".join(b'"' + coin + b'":{"price":1,"timestamp":5,"confidence":0.9}' for coin in asked)
            await peer.send(http(b'{"coins":{' + entries + b"}}"))


async def test_the_recorded_shape(transport: Transport) -> None:
    body = (
        b'{"coins":{"arbitrum:0x912CE59144191C1204E64559FE8253a0e49E6548":{"decimals":18,"symbol":"ARB",'
        b'"price":0.41548812345678901234567890,"timestamp":1741276623,"confidence":0.99},'
        b'"ethereum:0x0000000000000000000000000000000000000000":{"price":1e-12,"timestamp":1,"confidence":0.5}}}'
    )
    async with serving(answering(http(body))) as server:
        source = LlamaPrices(transport, base_url=server.url)
        eth, unknown = TokenRef(1, NATIVE), TokenRef(56, "0x" + "11" * 20)
        found = await source.prices([ARB, eth, unknown])
    assert found == {
        ARB: Price(Decimal("0.41548812345678901234567890"), "defillama", 0.99, 1741276623.0),
        eth: Price(Decimal("1e-12"), "defillama", 0.5, 1.0),
    }
    assert source.name == "defillama"
    (target,) = [head.split(b" ")[1] for head, _ in server.requests]
    asked = f"arbitrum:{ARB.address},bsc:{unknown.address},ethereum:{NATIVE}"
    assert target == f"/prices/current/{asked}?searchWidth=4h".encode()


@pytest.mark.parametrize(
    "entry",
    [
        b'{"price":0,"timestamp":1,"confidence":0.9}',
        b'{"price":-1,"timestamp":1,"confidence":0.9}',
        b'{"price":NaN,"timestamp":1,"confidence":0.9}',
        b'{"price":Infinity,"timestamp":1,"confidence":0.9}',
        b'{"price":1e400,"timestamp":1,"confidence":0.9}',
        b'{"price":1e-400,"timestamp":1,"confidence":0.9}',
        b'{"price":0.' + b"1" * 200 + b',"timestamp":1,"confidence":0.9}',
        b'{"price":true,"timestamp":1,"confidence":0.9}',
        b'{"price":null,"timestamp":1,"confidence":0.9}',
        b'{"price":"cheap","timestamp":1,"confidence":0.9}',
        b'{"price":[1],"timestamp":1,"confidence":0.9}',
        b'{"timestamp":1,"confidence":0.9}',
        b'{"price":1,"timestamp":1,"confidence":0.19}',
        b'{"price":1,"timestamp":1,"confidence":1e999}',
        b'{"price":1,"timestamp":1,"confidence":NaN}',
        b"null",
        b"7",
    ],
)
async def test_what_is_no_price_is_absent(transport: Transport, entry: bytes) -> None:
    async with serving(answering(coins(entry))) as server:
        assert await LlamaPrices(transport, base_url=server.url).prices([ARB]) == {}


async def test_confidence_is_kept_and_its_bound_configured(transport: Transport) -> None:
    async with serving(answering(coins(b'{"price":"2.50","timestamp":1e999,"confidence":0.3}'))) as server:
        found = await LlamaPrices(transport, base_url=server.url).prices([ARB])
        assert found[ARB].usd == Decimal("2.50")
        assert found[ARB].confidence == 0.3
        assert await LlamaPrices(transport, base_url=server.url, min_confidence=0.5).prices([ARB]) == {}
    async with serving(answering(coins(b'{"price":3}'))) as server:
        assert (await LlamaPrices(transport, base_url=server.url).prices([ARB]))[ARB].confidence == 0.5


async def test_nothing_is_asked_for_nothing(transport: Transport) -> None:
    async with serving(answering(http(b"{}"))) as server:
        source = LlamaPrices(transport, base_url=server.url)
        assert await source.prices([]) == {}
        assert await source.prices([TokenRef(999, NATIVE)]) == {}
        assert server.requests == []


async def test_batches_and_their_halving(transport: Transport) -> None:
    async with serving(pricing) as server:
        found = await LlamaPrices(transport, base_url=server.url).prices(tokens(310))
    assert set(found) == set(tokens(310))
    # 150 + 150 + 10, and each 150 refused once and then halved.
    assert len(server.requests) == 7


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (http(b"", status="429 Slow", headers="Retry-After: 9\r\n"), RateLimited),
        (http(b"", status="429 Slow"), RateLimited),
        (http(b"", status="414 URI Too Long"), TooLarge),
        (http(b"", status="500 Oops"), HttpFailure),
        (http(b"", status="404 Not Found"), HttpFailure),
        (http(b"", status="301 Moved", headers="Location: /x\r\n"), HttpFailure),
        (http(b"<html>"), Garbage),
        (http(b"[]"), Garbage),
        (http(b"{}"), Garbage),
        (http(b'{"coins":[]}'), Garbage),
        (http(b'{"coins":{"a":' + b"[" * 100_000), Garbage),
        (http(b'{"coins":{"a":{"price":' + b"1" * 5000 + b"}}}"), Garbage),
        (http(b"x" * 5_000_000), TooLarge),
    ],
)
async def test_a_source_that_fails_says_so(transport: Transport, answer: bytes, error: type[EndpointError]) -> None:
    async with serving(answering(answer)) as server:
        with pytest.raises(error, match=r"127\.0\.0\.1") as caught:
            await LlamaPrices(transport, base_url=server.url, timeout_s=2).prices(tokens(40))
    assert isinstance(caught.value, Transient)
    if b"Retry-After" in answer:
        assert caught.value.retry_after == 9.0
        assert len(server.requests) == 1


async def test_half_an_answer_is_none(transport: Transport) -> None:
    good = http(b'{"coins":{"ethereum:0x0000000000000000000000000000000000000001":{"price":1,"timestamp":1}}}')
    async with serving(answering(good, http(b"", status="500 Oops"))) as server:
        with pytest.raises(HttpFailure):
            await LlamaPrices(transport, base_url=server.url).prices(tokens(200))


async def test_an_absent_source(transport: Transport) -> None:
    with pytest.raises(Unreachable):
        await LlamaPrices(transport, base_url="http://127.0.0.1:1").prices([ARB])


async def test_sources_are_built_by_name(transport: Transport) -> None:
    options = {"defillama": SourceOptions("https://coins.example", 3.0, 0.5)}
    (source,) = build_sources(["coingecko", "defillama"], transport, options)
    assert source.name == "defillama"
    assert set(SOURCES) == {"defillama", "alchemy", "coingecko", "dexscreener", "binance"}
    with pytest.raises(ConfigError):
        build_sources(["defillama"], transport, {"defillama": SourceOptions("nonsense")})
