"""A read against nodes that lag, lie, refuse and come back: it ends with the truth or with an error, never empty."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from moonxd.adapters.chains import PUBLIC_ENDPOINTS, MulticallReader, TokenList, build_reader
from moonxd.adapters.chains.reading import Endpoints, together
from moonxd.adapters.rpc import Endpoint, RpcClient, Transport, open_transport
from moonxd.adapters.rpc.errors import Garbage, RateLimited, Refused, TimedOut, TooLarge, Unreachable
from moonxd.domain.address import NATIVE
from moonxd.domain.chain import CHAINS
from moonxd.domain.errors import ConfigError, Permanent, Transient
from moonxd.ports import ChainReader
from tests.services.tcp import Peer, http, serving
from tests.services.tcp_node import FakeNode, RpcFault

BASE = CHAINS[8453]
WALLET = "0x" + "5a" * 20
TOKENS = ["0x" + f"{number:040x}" for number in range(1, 9)]


class NoCache:
    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        return {}

    async def put_many(self, entries: Mapping[str, bytes], ttl_s: float) -> None:
        return None


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with open_transport() as opened:
        yield opened


@pytest.fixture
def reader(transport: Transport) -> Callable[..., ChainReader]:
    def build(*urls: str, **options: Any) -> ChainReader:
        settings = {"retries": 0, "timeout_s": 2.0, "retry_delay_s": 0.01} | options
        return build_reader(BASE, transport, TokenList([]), NoCache(), urls=urls, **settings)

    return build


def raising(*faults: Exception | None, then: Any) -> Callable[[list[Any]], Any]:
    """Faults one after the other (None: no fault), then `then` for ever."""
    pending = list(faults)

    def answer(params: list[Any]) -> Any:
        fault = pending.pop(0) if pending else None
        if fault is not None:
            raise fault
        return then(params) if callable(then) else then

    return answer


# ---- whole chains that cannot be read ----


async def silent(peer: Peer) -> None:
    await peer.request()
    await trio.sleep_forever()


async def ten_megabytes(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.send(http(b"x" * 10_000_000))


async def test_a_wrong_chain_id_names_both(reader: Callable[..., ChainReader]) -> None:
    node = FakeNode(56)
    node.balances = dict.fromkeys(TOKENS, 5)
    async with serving(node) as server:
        for _ in range(2):
            with pytest.raises(Permanent, match=r"127\.0\.0\.1 serves chain 56, .* base \(chain 8453\)"):
                await reader(server.url + "/v2/secret").read(WALLET, TOKENS)


async def test_the_chain_id_is_checked_once_and_again_later(transport: Transport) -> None:
    node = FakeNode(8453)
    async with serving(node) as server:
        client = RpcClient(transport, Endpoint(server.url))
        seldom = Endpoints(BASE, [client], recheck_s=600)
        await seldom.verify(client)
        await seldom.verify(client)
        assert node.methods() == ["eth_chainId"]
        always = Endpoints(BASE, [client], recheck_s=0)
        await always.verify(client)
        node.answers["eth_chainId"] = "0x1"
        with pytest.raises(Refused, match="serves chain 1"):
            await always.verify(client)


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (silent, TimedOut),
        (ten_megabytes, TooLarge),
        (FakeNode(8453, eth_getBlockByNumber=None), Garbage),
        (FakeNode(8453, eth_getBlockByNumber={"number": "latest"}), Garbage),
        (FakeNode(8453, eth_chainId="base"), Garbage),
        (FakeNode(8453, eth_call="0x"), Garbage),
        (FakeNode(8453, eth_call="0xzz"), Garbage),
        (FakeNode(8453, eth_call="0x1234"), Garbage),
        (FakeNode(8453, eth_call="0x" + "0" * 64), Garbage),
        (FakeNode(8453, eth_call=http(b"<html>")), Garbage),
        (FakeNode(8453, eth_call=http(b"x" * 10_000_000)), TooLarge),
        (FakeNode(8453, eth_call=http(b"", status="413 Too Large")), TooLarge),
        (FakeNode(8453, eth_call=http(b"", status="403 Forbidden")), Refused),
    ],
)
async def test_no_failure_is_an_empty_wallet(
    reader: Callable[..., ChainReader], handler: Any, error: type[Exception]
) -> None:
    async with serving(handler) as server:
        with pytest.raises(error, match=r"127\.0\.0\.1"):
            await reader(server.url, timeout_s=1.0).read(WALLET, TOKENS)


async def test_an_endpoint_out_of_gas_at_any_size_is_found_out_quickly(reader: Callable[..., ChainReader]) -> None:
    node = FakeNode(8453, eth_call=raising(*[RpcFault(-32000, "out of gas")] * 1000, then="0x"))
    async with serving(node) as server:
        with pytest.raises(Transient, match="out of gas"):
            await reader(server.url).read(WALLET, [f"0x{number:040x}" for number in range(1, 250)])
    assert node.methods().count("eth_call") < 12


async def test_a_call_that_cannot_fail_but_does(reader: Callable[..., ChainReader]) -> None:
    node = FakeNode(8453)
    node._inner = lambda _to, _data: b""  # type: ignore[method-assign]
    async with serving(node) as server:
        with pytest.raises(Garbage, match="a call that cannot fail did"):
            await reader(server.url).read(WALLET, TOKENS)


async def test_requests_that_are_too_large_for_them_are_halved(reader: Callable[..., ChainReader]) -> None:
    node = FakeNode(8453)
    node.balances = {f"0x{number:040x}": number for number in range(1, 101)}

    def small_only(params: list[Any]) -> Any:
        if len(params[0]["data"]) > 15_000:
            return http(b"", status="413 Payload Too Large")
        return node.aggregate3(params)

    node.answers["eth_call"] = small_only
    async with serving(node) as server:
        snapshot = await reader(server.url).read(WALLET, list(node.balances))
    assert {balance.token.address: balance.raw for balance in snapshot.balances[1:]} == node.balances
    assert snapshot.quarantined == {}


async def test_a_quarantine_ends(transport: Transport) -> None:
    node, poison = FakeNode(8453), "0x" + "de" * 20
    tokens = [*TOKENS, poison]
    node.balances = dict.fromkeys(tokens, 3)

    def poisoned(params: list[Any]) -> Any:
        if poison[2:] in params[0]["data"]:
            raise RpcFault(-32000, "out of gas")
        return node.aggregate3(params)

    async with serving(node) as server:
        for quarantine_s, asked_again in ((3600.0, False), (0.0, True)):
            node.answers["eth_call"] = poisoned
            where = Endpoints(BASE, [RpcClient(transport, Endpoint(server.url))], retries=0)
            reader = MulticallReader(BASE, where, TokenList([]), NoCache(), quarantine_s=quarantine_s)
            first = await reader.read(WALLET, tokens)
            assert first.quarantined == {poison: "balanceOf fails: out of gas"}
            assert len(first.balances) == len(tokens)
            node.answers["eth_call"] = node.aggregate3
            second = await reader.read(WALLET, tokens)
            assert (poison in second.quarantined) != asked_again


# ---- nodes that lag ----


async def test_a_lagging_neighbour_costs_a_fresh_head(reader: Callable[..., ChainReader]) -> None:
    node = FakeNode(8453)
    node.balances = {TOKENS[0]: 7}

    def lag(_params: list[Any]) -> Any:
        node.height += 1
        node.answers["eth_call"] = node.aggregate3
        raise RpcFault(-32000, "header not found")

    node.answers["eth_call"] = lag
    async with serving(node) as server:
        snapshot = await reader(server.url).read(WALLET, TOKENS[:1])
    assert (snapshot.block_low, snapshot.block_high) == (101, 101)
    assert [balance.raw for balance in snapshot.balances] == [1, 7]
    assert [params[1] for method, params in node.asked if method == "eth_call"] == ["0x64", "0x65", "0x65"]


async def test_a_node_that_lags_for_ever_fails_the_read(reader: Callable[..., ChainReader]) -> None:
    node = FakeNode(8453, eth_call=raising(*[RpcFault(-32000, "missing trie node")] * 9, then=None))
    async with serving(node) as server:
        with pytest.raises(Transient, match="missing trie node"):
            await reader(server.url).read(WALLET, TOKENS)
    assert node.methods().count("eth_call") == 2


# ---- trying again ----


async def test_a_failed_read_is_tried_again(reader: Callable[..., ChainReader]) -> None:
    node = FakeNode(8453)
    node.answers["eth_call"] = raising(RpcFault(-32603, "oops"), RpcFault(-32603, "oops"), then=node.aggregate3)
    async with serving(node) as server:
        snapshot = await reader(server.url, retries=2).read(WALLET, [])
        assert [balance.token.address for balance in snapshot.balances] == [NATIVE]
        node.answers["eth_call"] = raising(*[RpcFault(-32603, "oops")] * 3, then=node.aggregate3)
        with pytest.raises(Transient, match="oops"):
            await reader(server.url, retries=2).read(WALLET, [])


async def test_a_rate_limit_is_waited_out(reader: Callable[..., ChainReader]) -> None:
    node = FakeNode(8453)
    slow = http(b"", status="429 Too Many Requests", headers="Retry-After: 0\r\n")
    answers = [slow, slow]
    node.answers["eth_call"] = lambda params: answers.pop() if answers else node.aggregate3(params)
    async with serving(node) as server:
        assert len((await reader(server.url, retries=2).read(WALLET, [])).balances) == 1


async def test_what_cannot_help_is_not_tried_again(reader: Callable[..., ChainReader]) -> None:
    node = FakeNode(8453, eth_call=http(b"", status="401 Unauthorized"))
    async with serving(node) as server:
        with pytest.raises(Refused):
            await reader(server.url, retries=5).read(WALLET, [])
    assert node.methods().count("eth_call") == 1


def endpoints(transport: Transport, count: int = 1, **options: Any) -> tuple[Endpoints, list[RpcClient]]:
    clients = [RpcClient(transport, Endpoint(f"http://node{number}.example")) for number in range(count)]
    return Endpoints(BASE, clients, rand=lambda: 0.0, **options), clients


async def test_delays_grow_and_retry_after_is_respected(transport: Transport, autojump_clock: object) -> None:
    where, _ = endpoints(transport, retries=4, retry_delay_s=1.0)
    times: list[float] = []
    errors = [Unreachable("a"), Garbage("b"), RateLimited("c", retry_after=9.0), RateLimited("d", retry_after=2.0)]

    async def attempt(_client: RpcClient) -> str:
        times.append(trio.current_time())
        if errors:
            raise errors.pop(0)
        return "read"

    assert await where.run(attempt) == "read"
    assert [round(b - a, 3) for a, b in pairwise(times)] == [1.0, 2.0, 9.0, 8.0]


@pytest.mark.parametrize(("retry_after", "within"), [(60.0, 1e9), (5.0, 4.0)])
async def test_long_waits_are_the_queues(
    transport: Transport, autojump_clock: object, retry_after: float, within: float
) -> None:
    where, _ = endpoints(transport, retries=4)
    asked = 0

    async def attempt(_client: RpcClient) -> str:
        nonlocal asked
        asked += 1
        raise RateLimited("slow down", retry_after=retry_after)

    with trio.fail_after(within), pytest.raises(RateLimited) as caught:
        await where.run(attempt)
    assert (asked, caught.value.retry_after) == (1, retry_after)


async def test_the_next_endpoint_answers_and_the_failed_one_is_asked_last(
    transport: Transport, autojump_clock: MockClock
) -> None:
    where, clients = endpoints(transport, 3)
    asked: list[int] = []
    broken = {0}

    async def attempt(client: RpcClient) -> int:
        asked.append(clients.index(client))
        if asked[-1] in broken:
            raise Unreachable("gone")
        return asked[-1]

    assert [await where.run(attempt) for _ in range(3)] == [1, 1, 1]
    assert asked == [0, 1, 1, 1]
    broken.clear()
    autojump_clock.jump(31)
    assert await where.run(attempt) == 0


async def test_with_one_endpoint_to_hope_for_the_failure_is_transient(
    transport: Transport, autojump_clock: object
) -> None:
    where, clients = endpoints(transport, 2, retries=0)

    async def attempt(client: RpcClient) -> None:
        raise Refused("no key") if client is clients[0] else Unreachable("gone")

    with pytest.raises(Unreachable):
        await where.run(attempt)

    async def refused(_client: RpcClient) -> None:
        raise Refused("no key")

    with pytest.raises(Refused):
        await where.run(refused)


async def test_together_raises_one_failure_alone_and_cancels_the_rest() -> None:
    ended: list[str] = []

    async def hang() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("hang")

    async def fail() -> None:
        raise Garbage("first")

    with pytest.raises(Garbage, match="first"):
        await together(hang, fail)
    assert ended == ["hang"]

    async def bug() -> None:
        raise KeyError("ours")

    with pytest.raises(ExceptionGroup):
        await together(hang, bug)


# ---- building ----


def test_every_chain_has_public_endpoints() -> None:
    assert PUBLIC_ENDPOINTS.keys() == CHAINS.keys()
    for urls in PUBLIC_ENDPOINTS.values():
        assert len(urls) >= 2
        assert all(url.startswith("https://") and Endpoint(url) for url in urls)


async def test_an_unusable_url_is_a_configuration_error(reader: Callable[..., ChainReader]) -> None:
    with pytest.raises(ConfigError):
        reader("not-a-url/secretsecretsecret")


async def test_readers_know_their_chain(transport: Transport) -> None:
    for chain in CHAINS.values():
        assert build_reader(chain, transport, TokenList([]), NoCache()).chain is chain
        url = "https://x.example/v2/key"
        assert build_reader(chain, transport, TokenList([]), NoCache(), alchemy_url=url).chain is chain
