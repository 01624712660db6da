"""One reader over several endpoints: what each failure does to an endpoint's breaker, and who is asked instead."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from moonxd.adapters.chains import Guards, TokenList, build_reader
from moonxd.adapters.memory.quota import MemoryQuota
from moonxd.adapters.rpc import Transport, open_transport
from moonxd.adapters.rpc.errors import KeyRefused, RateLimited
from moonxd.domain.breaker import Policy
from moonxd.domain.breakers import Breakers
from moonxd.domain.chain import CHAINS
from moonxd.domain.errors import Permanent, Transient
from moonxd.ports import ChainReader
from tests.services.tcp import TcpServer, http, serving
from tests.services.tcp_node import FakeNode, RpcFault

BASE = CHAINS[8453]
WALLET = "0x" + "5a" * 20
TOKENS = ["0x" + f"{number:040x}" for number in range(1, 9)]
POLICY = Policy(streak=3, open_s=30.0, closes_after=1)
LIMITED = http(b"", status="429 Too Many Requests", headers="Retry-After: 60\r\n")


class NoCache:
    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        return {}

    async def put_many(self, entries: Mapping[str, bytes], ttl_s: float) -> None:
        return None


class Time:
    """The breakers' clock, moved by the test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Pool:
    """A reader over fake nodes."""

    def __init__(self, transport: Transport, nodes: Sequence[FakeNode], servers: Sequence[TcpServer], **guards: Any):
        self.nodes = nodes
        self.time = Time()
        self.opened: list[str] = []
        self.breakers = Breakers(self.time, on_open=lambda name, reason: self.opened.append(reason))
        self.reader: ChainReader = build_reader(
            BASE, transport, TokenList([]), NoCache(),
            urls=[server.url for server in servers], retries=0, timeout_s=2.0,
            guards=Guards(breakers=self.breakers, policy=POLICY, **guards),
        )  # fmt: skip
        self.names = [f"base/127.0.0.1:{server.url.rpartition(':')[2]}" for server in servers]

    async def read(self) -> int:
        """Read once; the node's number whose balance it was."""
        with trio.fail_after(20):
            snapshot = await self.reader.read(WALLET, TOKENS[:1])
        return snapshot.balances[-1].raw

    def modes(self) -> list[str]:
        return [self.breakers.mode(name) for name in self.names]

    def asked(self, place: int) -> int:
        return len(self.nodes[place].asked)


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with open_transport() as opened:
        yield opened


def nodes(count: int, **answers: Any) -> list[FakeNode]:
    """Nodes whose token balance is their number, from 1; `answers` are the first one's."""
    made = [FakeNode(8453, **(answers if number == 0 else {})) for number in range(count)]
    for number, node in enumerate(made, 1):
        node.balances = {TOKENS[0]: number}
    return made


def failing(_params: list[Any]) -> Any:
    raise RpcFault(-32603, "oops")


async def test_an_endpoint_that_keeps_failing_is_left_alone_and_probed_later(transport: Transport) -> None:
    (node,) = nodes(1, eth_call=failing)
    async with serving(node) as server:
        pool = Pool(transport, [node], [server])
        for _ in range(3):
            with pytest.raises(Transient, match="oops"):
                await pool.read()
        assert pool.modes() == ["open"]
        before = pool.asked(0)
        with pytest.raises(Transient, match=r"no endpoint of base may be asked now: .* is open") as caught:
            await pool.read()
        assert caught.value.retry_after == 30.0
        assert pool.asked(0) == before
        node.answers["eth_call"] = node.aggregate3
        pool.time.now += 31
        assert await pool.read() == 1
        assert pool.modes() == ["closed"]


async def test_failover_within_the_same_read(transport: Transport) -> None:
    made = nodes(2, eth_call=failing)
    async with serving(made[0]) as first, serving(made[1]) as second:
        pool = Pool(transport, made, [first, second])
        assert [await pool.read() for _ in range(3)] == [2, 2, 2]
        assert pool.asked(0) <= 3, "the failed one is asked last"


async def test_a_cordoned_endpoint_is_not_asked(transport: Transport) -> None:
    made = nodes(2)
    async with serving(made[0]) as first, serving(made[1]) as second:
        pool = Pool(transport, made, [first, second])
        pool.breakers.cordon(pool.names[0], "maintenance", 60.0)
        assert await pool.read() == 2
        assert pool.asked(0) == 0
        pool.time.now += 61
        assert pool.modes() == ["half-open", "closed"]


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_a_refused_key_opens_for_long_and_alerts(transport: Transport, status: str) -> None:
    made = nodes(2, eth_getBlockByNumber=http(b"", status=status))
    async with serving(made[0]) as first, serving(made[1]) as second:
        pool = Pool(transport, made, [first, second])
        assert await pool.read() == 2
        assert pool.modes() == ["open", "closed"]
        assert pool.breakers.wait_s(pool.names[0]) == 900.0
        assert len(pool.opened) == 1
        assert status[:3] in pool.opened[0]


async def test_alone_a_refused_key_is_permanent_at_first(transport: Transport) -> None:
    (node,) = nodes(1, eth_getBlockByNumber=http(b"", status="401 Unauthorized"))
    async with serving(node) as server:
        pool = Pool(transport, [node], [server])
        with pytest.raises(KeyRefused):
            await pool.read()
        with pytest.raises(Transient, match="the plan or our address is refused"):
            await pool.read()


async def test_a_wrong_chain_is_cordoned_and_comes_back_by_probe(transport: Transport) -> None:
    made = nodes(2, eth_chainId="0x38")
    async with serving(made[0]) as first, serving(made[1]) as second:
        pool = Pool(transport, made, [first, second])
        assert await pool.read() == 2
        assert pool.modes() == ["cordoned", "closed"]
        assert "serves chain 56" in pool.opened[0]
        pool.breakers.cordon(pool.names[1], "so that the first is asked")
        pool.time.now += 31
        with pytest.raises(Permanent, match="serves chain 56"):
            await pool.read()
        made[0].answers["eth_chainId"] = "0x2105"
        pool.time.now += 61
        assert await pool.read() == 1
        assert pool.modes() == ["closed", "cordoned"]


async def test_a_rate_limit_is_no_failure_and_is_kept_to(transport: Transport) -> None:
    (node,) = nodes(1, eth_getBlockByNumber=LIMITED)
    async with serving(node) as server:
        pool = Pool(transport, [node], [server])
        for _ in range(5):
            with pytest.raises(RateLimited) as caught:
                await pool.read()
            assert caught.value.retry_after is not None
            assert 55 < caught.value.retry_after <= 60
        assert pool.modes() == ["closed"]
        assert node.methods().count("eth_getBlockByNumber") == 1, "after it nothing is sent until the time is over"


async def test_an_endpoint_that_lags_is_cordoned(transport: Transport, caplog: pytest.LogCaptureFixture) -> None:
    made = nodes(2)
    made[1].height = 1000
    async with serving(made[0]) as first, serving(made[1]) as second:
        pool = Pool(transport, made, [first, second])
        assert await pool.read() == 1, "nothing is known of the other one's head"
        pool.breakers.cordon(pool.names[0], "so that the second is asked")
        assert await pool.read() == 2
        pool.breakers.reset(pool.names[0])
        with caplog.at_level(logging.WARNING):
            assert await pool.read() == 2
        assert pool.modes() == ["cordoned", "closed"]
        assert "900 blocks behind" in pool.opened[-1]
        pool.breakers.cordon(pool.names[1], "nobody is left to lag behind")
        made[0].height = 1001
        pool.time.now += 31
        assert await pool.read() == 1
        assert pool.modes() == ["closed", "cordoned"]


async def test_the_only_endpoint_is_never_cordoned_for_lagging(transport: Transport) -> None:
    (node,) = nodes(1)
    async with serving(node) as server:
        pool = Pool(transport, [node], [server])
        assert await pool.read() == 1
        node.height = 1
        assert await pool.read() == 1


async def test_our_own_limit_holds_requests_back(transport: Transport) -> None:
    (node,) = nodes(1)
    async with serving(node) as server:
        pool = Pool(transport, [node], [server], quota=MemoryQuota(), rpm=6)
        assert await pool.read() == 1
        assert await pool.read() == 1
        with pytest.raises(RateLimited, match="its limit is used up"):
            await pool.read()
        assert pool.asked(0) == 6
        assert pool.modes() == ["closed"]


async def test_a_cancelled_read_frees_the_probe(transport: Transport) -> None:
    (node,) = nodes(1)

    async def silent(peer: Any) -> None:
        await peer.request()
        await trio.sleep_forever()

    async with serving(silent) as server:
        pool = Pool(transport, [node], [server])
        pool.breakers.trip(pool.names[0], "down", 1.0)
        pool.time.now += 2
        for _ in range(3):
            with trio.move_on_after(0.05) as scope:
                await pool.reader.read(WALLET, [])
            assert scope.cancelled_caught
        assert pool.breakers.admit(pool.names[0]) is not None


async def test_a_slow_endpoint_is_asked_after_a_fast_one(transport: Transport, autojump_clock: MockClock) -> None:
    made = nodes(2)
    async with serving(made[0]) as first, serving(made[1]) as second:
        pool = Pool(transport, made, [first, second])
        where = pool.reader._endpoints  # type: ignore[attr-defined]
        slow, fast = where.providers
        assert where.in_order() == [slow, fast]
        for _ in range(8):
            slow.latency.add(0.5, trio.current_time())
        assert where.in_order() == [fast, slow]
        autojump_clock.jump(301)
        assert where.in_order() == [slow, fast], "what was measured long ago says nothing"


async def test_breakers_are_named_by_chain_and_host(transport: Transport) -> None:
    breakers = Breakers(lambda: 0.0)
    build_reader(
        BASE, transport, TokenList([]), NoCache(), guards=Guards(breakers=breakers),
        urls=["https://a.example/key", "https://a.example/key2", "http://a.example:8545", "https://b.example"],
    )  # fmt: skip
    assert [view.name for view in breakers.views()] == [
        "base/a.example", "base/a.example#2", "base/a.example:8545", "base/b.example",
    ]  # fmt: skip
