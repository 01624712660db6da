"""Two endpoints, one of them slow or lying: the read takes the faster answer and believes nobody who ignores a pin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from moonxd.adapters.rpc import Transport, open_transport
from tests.runtime.test_chain_failover import TOKENS, Pool, failing, nodes
from tests.services.tcp import Peer, TcpServer, serving
from tests.services.tcp_node import FakeNode

GET_BLOCK_TIME = bytes.fromhex("0f28c97d")


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with open_transport() as opened:
        yield opened


class Slow:
    """A node that answers some methods only after `release` is set."""

    def __init__(self, node: FakeNode, *methods: str) -> None:
        self.node = node
        self.methods = methods
        self.release = trio.Event()

    async def __call__(self, peer: Peer) -> None:
        question = peer.question

        async def hold_back() -> Any:
            asked = await question()
            if asked["method"] in self.methods:
                await self.release.wait()
            return asked

        peer.question = hold_back  # type: ignore[method-assign]
        await self.node(peer)


async def known(pool: Pool, fast_s: float = 0.01) -> None:
    """Both endpoints' chain is checked, and the first one is known to be fast; then hedges are affordable."""
    providers = pool.reader._endpoints.providers  # type: ignore[attr-defined]
    where = pool.reader._endpoints  # type: ignore[attr-defined]
    for provider in providers:
        await where.verify(provider.client)
        provider.head_at = trio.current_time()
    for _ in range(30):
        providers[0].latency.add(fast_s, trio.current_time())
    for _ in range(30):
        where.hedges.earn()


@pytest.mark.parametrize("method", ["eth_call", "eth_getBlockByNumber"])
async def test_a_slow_request_is_sent_to_a_second_endpoint(transport: Transport, method: str) -> None:
    made = nodes(2)
    slow = Slow(made[0], method)
    async with serving(slow) as first, serving(made[1]) as second:
        pool = Pool(transport, made, [first, second])
        await known(pool)
        assert await pool.read() == 2
        assert method in made[1].methods()
        assert pool.modes() == ["closed", "closed"]
        slow.release.set()


async def test_the_rest_of_the_read_goes_to_whoever_told_the_head(transport: Transport) -> None:
    made = nodes(2)
    made[1].height = 104
    slow = Slow(made[0], "eth_getBlockByNumber")
    async with serving(slow) as first, serving(made[1]) as second:
        pool = Pool(transport, made, [first, second])
        await known(pool)
        snapshot = await pool.reader.read("0x" + "5a" * 20, TOKENS[:1])
        assert snapshot.block_low == 104
        assert "eth_call" not in made[0].methods()
        slow.release.set()


async def test_without_budget_nothing_is_sent_twice(transport: Transport) -> None:
    made = nodes(2)
    slow = Slow(made[0], "eth_call")
    async with serving(slow) as first, serving(made[1]) as second:
        pool = Pool(transport, made, [first, second], hedge_share=0.0)
        await known(pool)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.read)
            await _until_asked(first, b"eth_call")
            slow.release.set()
        assert "eth_call" not in made[1].methods()


async def _until_asked(server: TcpServer, what: bytes) -> None:
    with trio.fail_after(10):
        while not any(what in body for _, body in server.requests):  # noqa: ASYNC110 (the server tells nobody)
            await trio.sleep(0.01)


async def test_a_second_endpoint_that_fails_leaves_it_to_the_first(transport: Transport) -> None:
    made = nodes(2)
    made[1].answers["eth_call"] = failing
    slow = Slow(made[0], "eth_call")
    async with serving(slow) as first, serving(made[1]) as second:
        pool = Pool(transport, made, [first, second])
        await known(pool)
        got: list[int] = []

        async def read() -> None:
            got.append(await pool.read())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await _until_asked(second, b"eth_call")
            slow.release.set()
        assert got == [1]
        assert pool.modes() == ["closed", "closed"]


async def test_when_both_fail_the_first_ones_failure_counts(transport: Transport) -> None:
    made = nodes(2, eth_call=failing)
    made[1].answers["eth_call"] = failing
    async with serving(made[0]) as first, serving(made[1]) as second:
        pool = Pool(transport, made, [first, second])
        await known(pool)
        with pytest.raises(Exception, match="oops"):
            await pool.read()


def stamped(node: FakeNode, said: int, answered: int) -> None:
    """A node whose head says one time, and whose calls are executed at another one."""
    node.answers["eth_getBlockByNumber"] = lambda _: {"number": hex(node.height), "timestamp": hex(said)}
    inner = node._inner
    node._inner = lambda to, data: (  # type: ignore[method-assign]
        answered.to_bytes(32, "big") if data == GET_BLOCK_TIME else inner(to, data)
    )


async def test_an_endpoint_that_ignores_the_pin_is_cordoned(transport: Transport) -> None:
    made = nodes(2)
    stamped(made[0], 1000, 1002)
    stamped(made[1], 1000, 1000)
    async with serving(made[0]) as first, serving(made[1]) as second:
        pool = Pool(transport, made, [first, second])
        await known(pool)
        assert await pool.read() == 2
        assert pool.modes() == ["cordoned", "closed"]
        assert "another block than the one asked for" in pool.opened[0]


async def test_the_only_endpoint_is_believed_all_the_same(
    transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    made = nodes(1)
    stamped(made[0], 1000, 1002)
    async with serving(made[0]) as server:
        pool = Pool(transport, made, [server])
        assert await pool.read() == 1
        assert "there is no other endpoint" in caplog.text


async def test_endpoints_that_are_not_asked_are_looked_at(transport: Transport) -> None:
    made = nodes(2)
    slow = Slow(made[0], "eth_call")
    async with serving(slow) as first, serving(made[1]) as second:
        pool = Pool(transport, made, [first, second])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.read)
            await _until_asked(second, b"eth_blockNumber")
            slow.release.set()
        assert sorted(made[1].methods()) == ["eth_blockNumber", "eth_chainId"]
        asked = pool.asked(1)
        assert await pool.read() == 1
        assert pool.asked(1) == asked, "once in a while is enough"


async def test_a_probe_beside_a_read_closes_a_breaker(transport: Transport) -> None:
    made = nodes(2)
    slow = Slow(made[0], "eth_call")
    async with serving(slow) as first, serving(made[1]) as second:
        pool = Pool(transport, made, [first, second])
        pool.breakers.trip(pool.names[1], "down", 10.0)
        pool.time.now += 11
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.read)
            with trio.fail_after(10):
                while pool.modes()[1] != "closed":  # noqa: ASYNC110 (a breaker tells nobody)
                    await trio.sleep(0.01)
            slow.release.set()
