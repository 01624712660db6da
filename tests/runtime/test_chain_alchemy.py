"""Alchemy's token index: every page, every error told, nothing guessed. Shapes as its documents and recordings show."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import pytest

from moonxd.adapters.chains import TokenList, build_reader
from moonxd.adapters.rpc import Transport, open_transport
from moonxd.adapters.rpc.errors import Garbage, RateLimited, Refused
from moonxd.domain.address import NATIVE
from moonxd.domain.chain import CHAINS
from moonxd.domain.errors import Permanent
from moonxd.domain.token import TokenMeta
from moonxd.domain.tokenlist import ListedToken
from moonxd.ports import ChainReader
from tests.services.tcp import http, serving
from tests.services.tcp_node import FakeNode, RpcFault

ETHEREUM = CHAINS[1]
WALLET = "0x" + "5a" * 20
A, B, C, D = ("0x" + f"{number:02x}" * 20 for number in (0xA1, 0xB2, 0xC3, 0xD4))
KEY = "k3yk3yk3yk3yk3yk3yk3y"


class DictCache:
    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}

    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        return {key: self.entries[key] for key in keys if key in self.entries}

    async def put_many(self, entries: Mapping[str, bytes], ttl_s: float) -> None:
        self.entries.update(entries)


def word(number: int) -> str:
    return f"0x{number:064x}"


def page(*tokens: dict[str, Any], key: str | None = None) -> dict[str, Any]:
    return {"address": WALLET, "tokenBalances": list(tokens)} | ({"pageKey": key} if key else {})


def token(address: str, balance: str | None, error: Any = None) -> dict[str, Any]:
    return {"contractAddress": address, "tokenBalance": balance} | ({"error": error} if error else {})


def described(params: list[Any]) -> dict[str, Any]:
    number = params[0][2:4]
    return {"name": f"Token {number}", "symbol": f"T{number}", "decimals": 9, "logo": "https://logos.example/a.png"}


def alchemy(*pages: dict[str, Any], **answers: Any) -> FakeNode:
    by_key = dict(zip([None, *(one.get("pageKey") for one in pages)], pages, strict=False))
    balances = {"alchemy_getTokenBalances": lambda params: by_key[params[2]["pageKey"] if len(params) > 2 else None]}
    return FakeNode(1, **(balances | {"alchemy_getTokenMetadata": described} | answers))


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with open_transport() as opened:
        yield opened


@pytest.fixture
def reader(transport: Transport) -> Callable[..., ChainReader]:
    def build(url: str, *, tokens: Sequence[ListedToken] = (), cache: DictCache | None = None) -> ChainReader:
        return build_reader(
            ETHEREUM, transport, TokenList(tokens), cache or DictCache(), alchemy_url=f"{url}/v2/{KEY}", retries=0
        )

    return build


async def test_a_wallet(reader: Callable[..., ChainReader]) -> None:
    node = alchemy(page(token(A, word(7)), token(B, word(0)), token(C, word(2**256 - 1))))
    listed = [ListedToken(1, C, "CCC", "Listed", 6)]
    async with serving(node) as server:
        snapshot = await reader(server.url, tokens=listed).read(WALLET, [D])
    coin, first, second = snapshot.balances
    assert (coin.token.address, coin.raw, coin.meta.symbol, coin.verified) == (NATIVE, 1, "ETH", True)
    assert (first.token.address, first.raw, first.verified) == (A, 7, False)
    assert first.meta == TokenMeta("Ta1", "Token a1", 9, "https://logos.example/a.png")
    assert first.said == {
        "contractAddress": A, "tokenBalance": word(7), "symbol": "Ta1", "name": "Token a1", "decimals": 9
    }  # fmt: skip
    assert (second.raw, second.meta, second.verified) == (2**256 - 1, TokenMeta("CCC", "Listed", 6), True)
    assert (snapshot.source, snapshot.discovers, snapshot.quarantined) == ("alchemy", True, {})
    assert (snapshot.block_low, snapshot.block_high) == (100, 100)
    assert KEY not in repr(snapshot)
    assert node.asked[1:2] != [("alchemy_getTokenMetadata", [C])]


async def test_every_page_is_read(reader: Callable[..., ChainReader]) -> None:
    node = alchemy(page(token(A, word(1)), key="k1"), page(token(B, word(2)), key="k2"), page(token(C, word(3))))
    async with serving(node) as server:
        snapshot = await reader(server.url).read(WALLET, [])
    assert [balance.raw for balance in snapshot.balances] == [1, 1, 2, 3]
    asked = [params for method, params in node.asked if method == "alchemy_getTokenBalances"]
    assert asked == [[WALLET, "erc20"], [WALLET, "erc20", {"pageKey": "k1"}], [WALLET, "erc20", {"pageKey": "k2"}]]


async def test_a_page_that_repeats_is_garbage(reader: Callable[..., ChainReader]) -> None:
    node = alchemy(alchemy_getTokenBalances=page(token(A, word(1)), key="k1"))
    async with serving(node) as server:
        with pytest.raises(Garbage, match="the same page again"):
            await reader(server.url).read(WALLET, [])


async def test_pages_without_end_are_refused_not_cut(reader: Callable[..., ChainReader]) -> None:
    count = iter(range(10_000))
    node = alchemy(alchemy_getTokenBalances=lambda _: page(token(A, word(1)), key=f"k{next(count)}"))
    async with serving(node) as server:
        with pytest.raises(Permanent, match="more than 200 pages"):
            await reader(server.url).read(WALLET, [])


async def test_heights_seen_are_recorded(reader: Callable[..., ChainReader]) -> None:
    node = alchemy(page())

    def moving(_params: list[Any]) -> str:
        node.height += 3
        return hex(node.height)

    node.answers["eth_blockNumber"] = moving
    async with serving(node) as server:
        snapshot = await reader(server.url).read(WALLET, [])
    assert (snapshot.block_low, snapshot.block_high) == (103, 106)


async def test_tokens_in_error_are_set_aside(reader: Callable[..., ChainReader]) -> None:
    broken = [token(A, None, "execution\nreverted"), token(B, None), token(C, word(5), {"message": "odd"})]
    node = alchemy(page(*broken, token(D, "0x")))
    async with serving(node) as server:
        snapshot = await reader(server.url).read(WALLET, [])
    assert [balance.token.address for balance in snapshot.balances] == [NATIVE]
    assert snapshot.quarantined == {
        A: "Alchemy: execution reverted",
        B: "Alchemy: no balance was given",
        C: "Alchemy: no balance was given",
    }


@pytest.mark.parametrize(
    "bad",
    [
        page(token("0x1234", word(1))),
        page(token(A, "12")),
        page(token(A, "0xzz")),
        page(token(A, "0x1" + "0" * 64)),
        {"tokenBalances": None},
        {"tokenBalances": [{"tokenBalance": "0x1"}]},
        [],
        None,
    ],
)
async def test_garbage_fails_the_read(reader: Callable[..., ChainReader], bad: Any) -> None:
    async with serving(alchemy(alchemy_getTokenBalances=bad)) as server:
        with pytest.raises(Garbage):
            await reader(server.url).read(WALLET, [])


async def test_metadata_is_cached_and_refreshed(reader: Callable[..., ChainReader]) -> None:
    node, cache = alchemy(page(token(A, word(1)), token(B, word(1)))), DictCache()
    async with serving(node) as server:
        for _ in range(2):
            await reader(server.url, cache=cache).read(WALLET, [])
        assert node.methods().count("alchemy_getTokenMetadata") == 2
        await reader(server.url, cache=cache).read(WALLET, [], refresh_metadata=True)
        assert node.methods().count("alchemy_getTokenMetadata") == 4


async def test_metadata_that_is_missing_or_odd(reader: Callable[..., ChainReader]) -> None:
    def odd(params: list[Any]) -> Any:
        if params[0] == A:
            raise RpcFault(-32602, "not a token contract")
        if params[0] == B:
            return {"name": None, "symbol": None, "decimals": None, "logo": None}
        return {"name": "X\u202e", "symbol": "y" * 99, "decimals": 256, "logo": "javascript:alert(1)"}

    node = alchemy(page(*(token(address, word(1)) for address in (A, B, C))), alchemy_getTokenMetadata=odd)
    async with serving(node) as server:
        _, *rows = (await reader(server.url).read(WALLET, [])).balances
    assert [row.meta for row in rows] == [
        TokenMeta(None, None, None),
        TokenMeta(None, None, None),
        TokenMeta("y" * 32, "X", None, None, True),
    ]


async def test_metadata_learnt_before_a_failure_is_kept(reader: Callable[..., ChainReader]) -> None:
    cache = DictCache()

    def limited(params: list[Any]) -> Any:
        return described(params) if params[0] == A else http(b"", status="429 Slow", headers="Retry-After: 60\r\n")

    node = alchemy(page(token(A, word(1)), token(B, word(1))), alchemy_getTokenMetadata=limited)
    async with serving(node) as server:
        for _ in range(5):
            with pytest.raises(RateLimited) as caught:
                await reader(server.url, cache=cache).read(WALLET, [])
            if cache.entries:
                break
    assert caught.value.retry_after == 60.0
    assert any(A in key for key in cache.entries)


async def test_a_refused_key_is_not_shown(reader: Callable[..., ChainReader]) -> None:
    refused = http(b'{"error":{"code":-32600,"message":"bad key ' + KEY.encode() + b'"}}', status="401 Unauthorized")
    async with serving(alchemy(alchemy_getTokenBalances=refused)) as server:
        with pytest.raises(Refused, match="check the endpoint's") as caught:
            await reader(server.url).read(WALLET, [])
    assert KEY not in str(caught.value)


async def test_an_empty_wallet_is_empty(reader: Callable[..., ChainReader]) -> None:
    async with serving(alchemy(page(), eth_getBalance="0x0")) as server:
        assert (await reader(server.url).read(WALLET, [])).balances == ()
