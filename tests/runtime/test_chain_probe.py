"""Looks at single endpoints: what is asked and how often, what each failure is called, and what a refusal changes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
import trio

from moonxd.adapters.chains import Guards, Meter, build_probes
from moonxd.adapters.memory.quota import MemoryQuota
from moonxd.adapters.rpc import Transport, open_transport
from moonxd.domain.breakers import Breakers
from moonxd.domain.chain import CHAINS
from moonxd.domain.looks import Look, Want
from moonxd.domain.stats import Probe
from moonxd.ports import ChainProbe
from moonxd.sim import SimSettings, open_simulator
from tests.services.anvil import AnvilChain
from tests.services.tcp import Handler, Peer, http, serving

ETHEREUM, BASE, BSC, ARBITRUM = CHAINS[1], CHAINS[8453], CHAINS[56], CHAINS[42161]
FIRST = Want(older=None, back=60)
NEXT = Want(older=100, back=60)
KEY = "0123456789abcdef0123"


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with open_transport() as opened:
        yield opened


async def seen(probe: ChainProbe, want: Want = FIRST) -> Look:
    look = await probe.look(want)
    assert look is not None
    return look


def block(number: int, **fields: str) -> dict[str, str]:
    return {"number": hex(number), "hash": f"0x{number:064x}", "parentHash": f"0x{number - 1:064x}",
            "timestamp": hex(1_700_000_000 + 2 * number), **fields}  # fmt: skip


class Node:
    """A node whose answers are given by method; `asked` has the methods of each request."""

    def __init__(self, chain_id: int = BASE.id, batch_max: int = 100, **answers: Any) -> None:
        self.batch_max = batch_max
        self.asked: list[list[str]] = []
        self.answers: dict[str, Any] = {
            "eth_chainId": hex(chain_id),
            "eth_blockNumber": "0xc8",
            "eth_gasPrice": "0x7",
            "eth_feeHistory": {"baseFeePerGas": ["0x1", "0x64"], "reward": [["0x5"], ["0x1"], ["0x9"]]},
            "eth_getBlockByNumber": self.block_at,
            **answers,
        }

    def block_at(self, params: list[Any]) -> Any:
        heights = {"latest": 200, "finalized": 180}
        return block(heights[params[0]] if params[0] in heights else int(params[0], 16))

    async def __call__(self, peer: Peer) -> None:
        while True:
            asked = await peer.question()
            calls = asked if isinstance(asked, list) else [asked]
            self.asked.append([call["method"] for call in calls])
            if len(calls) > self.batch_max:
                await peer.send(http(b'{"id":null,"error":{"code":-32600,"message":"batches are not allowed"}}'))
                continue
            answers = [self.answer(call) for call in calls]
            whole = next((answer for answer in answers if isinstance(answer, bytes)), None)
            body = answers if isinstance(asked, list) else answers[0]
            await peer.send(http(msgspec.json.encode(body)) if whole is None else whole)

    def answer(self, call: Any) -> Any:
        value = self.answers[call["method"]]
        value = value(call["params"]) if callable(value) else value
        if isinstance(value, bytes):
            return value
        is_error = isinstance(value, dict) and "code" in value
        return {"id": call["id"], "error" if is_error else "result": value}


def probe_of(transport: Transport, url: str, chain: Any = BASE, **options: Any) -> ChainProbe:
    (probe,) = build_probes(chain, transport, urls=[url], **options)
    return probe


# ---- what is asked --------------------------------------------------------------------------------------------------


async def test_a_look_and_what_it_asks(transport: Transport) -> None:
    node = Node()
    async with serving(node) as server:
        probe = probe_of(transport, server.url)
        first, second = await seen(probe), await seen(probe, NEXT)
    latency = [["eth_blockNumber"]] * 5
    assert node.asked == [
        ["eth_chainId"], ["eth_getBlockByNumber"] * 2, ["eth_getBlockByNumber"], ["eth_feeHistory"], *latency,
        # The chain's id is known, the older block comes with the head: in one request.
        ["eth_getBlockByNumber"] * 3, ["eth_feeHistory"], *latency,
    ]  # fmt: skip
    assert server.connections == 1
    for look, older in ((first, 140), (second, 100)):
        assert look.outcome is Probe.OK
        assert look.host == f"127.0.0.1:{server.port}"
        assert look.head is not None
        assert look.head.number == 200
        assert look.older is not None
        assert look.older.number == older
        assert look.finalized == 180
        # The next block's base fee and the median tip.
        assert look.gas_price_wei == 105
        assert len(look.latencies) == 5


async def test_an_endpoint_that_takes_no_batches_is_asked_one_by_one_from_then_on(transport: Transport) -> None:
    node = Node(batch_max=1)
    async with serving(node) as server:
        probe = probe_of(transport, server.url)
        for _ in range(2):
            look = await seen(probe, NEXT)
            assert (look.outcome, look.finalized) == (Probe.OK, 180)
    assert [len(methods) for methods in node.asked].count(3) == 1


@pytest.mark.parametrize(
    ("chain", "answers", "wei"),
    [
        (BASE, {}, 105),
        (ARBITRUM, {}, 100),
        (BSC, {}, 7),
        (BASE, {"eth_feeHistory": {"code": -32601, "message": "no such method"}}, 7),
        (BASE, {"eth_feeHistory": {"baseFeePerGas": []}}, 7),
        (BASE, {"eth_feeHistory": {"code": -32000, "message": "no"}, "eth_gasPrice": "x"}, None),
    ],
)
async def test_gas(transport: Transport, chain: Any, answers: dict[str, Any], wei: int | None) -> None:
    async with serving(Node(chain.id, **answers)) as server:
        look = await seen(probe_of(transport, server.url, chain))
    assert (look.outcome, look.gas_price_wei) == (Probe.OK, wei)


async def test_what_a_node_does_not_keep_is_unknown_and_no_failure(transport: Transport) -> None:
    node = Node()
    node.answers["eth_getBlockByNumber"] = lambda params: (
        block(200) if params[0] == "latest" else None if params[0] == "0x64" else {"code": -32000, "message": "no tag"}
    )
    async with serving(node) as server:
        look = await seen(probe_of(transport, server.url), NEXT)
    assert (look.outcome, look.older, look.finalized) == (Probe.OK, None, None)


async def test_bscs_milliseconds_are_read(transport: Transport) -> None:
    stamped = block(200, milliTimestamp=hex((1_700_000_000 + 400) * 1000 + 450))
    async with serving(Node(BSC.id, eth_getBlockByNumber=stamped)) as server:
        look = await seen(probe_of(transport, server.url, BSC))
    assert look.head is not None
    assert look.head.at == 1_700_000_400.45


async def test_one_url_is_one_probe(transport: Transport) -> None:
    url = "http://a.example/x"
    assert len(build_probes(BASE, transport, urls=[url, url], metered=[])) == 1
    hosts = [probe.host for probe in build_probes(BASE, transport, urls=[url, "http://a.example/y"])]
    assert hosts == ["a.example", "a.example#2"]


# ---- how it may fail ------------------------------------------------------------------------------------------------


def answering(answer: bytes) -> Handler:
    async def handle(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(answer)

    return handle


async def hanging(peer: Peer) -> None:
    await peer.request()
    await trio.sleep_forever()


async def hanging_up(peer: Peer) -> None:
    await peer.request()


ERROR = '{{"id":1,"error":{{"code":{},"message":"{}"}}}}'


@pytest.mark.parametrize(
    ("handler", "outcome"),
    [
        (answering(http(b"", status="429 Too Many Requests")), Probe.RATE_LIMITED),
        (answering(http(ERROR.format(-32005, "slow down").encode())), Probe.RATE_LIMITED),
        (answering(http(b"", status="503 Service Unavailable")), Probe.SERVER_ERROR),
        (answering(http(b"<html>")), Probe.SERVER_ERROR),
        (answering(http(ERROR.format(-32000, "broken").encode())), Probe.SERVER_ERROR),
        (answering(http(b"", status="403 Forbidden")), Probe.REFUSED),
        (answering(http(b"", status="404 Not Found")), Probe.REFUSED),
        (answering(http(b'{"id":1,"result":"0x2105"}', status="200 OK").replace(b"2105", b"0001")), Probe.WRONG_CHAIN),
        (hanging, Probe.TIMEOUT),
        (hanging_up, Probe.NETWORK),
    ],
)
async def test_each_failure_has_its_name(transport: Transport, handler: Handler, outcome: Probe) -> None:
    async with serving(handler) as server:
        look = await seen(probe_of(transport, f"{server.url}/v2/{KEY}", timeout_s=0.3))
    assert look.outcome is outcome
    assert look.error
    assert KEY not in look.error
    assert look.latencies == ()


async def test_nobody_there_is_the_network(transport: Transport) -> None:
    async with serving(hanging) as server:
        url = server.url
    look = await seen(probe_of(transport, url))
    assert look.outcome is Probe.NETWORK


async def test_an_endpoint_that_hangs_half_way_has_no_latency(transport: Transport) -> None:
    async with serving(Node(eth_blockNumber=b"")) as server:
        look = await seen(probe_of(transport, server.url, timeout_s=0.3))
    assert (look.outcome, look.latencies) == (Probe.TIMEOUT, ())


async def test_a_limit_that_is_reached_half_way_leaves_fewer_samples(transport: Transport) -> None:
    limited = http(b"", status="429 Too Many Requests")
    answers = iter(["0xc8", "0xc8", limited])
    async with serving(Node(eth_blockNumber=lambda _: next(answers))) as server:
        look = await seen(probe_of(transport, server.url))
    assert (look.outcome, len(look.latencies)) == (Probe.OK, 2)


# ---- what holds it back ---------------------------------------------------------------------------------------------


async def test_a_dead_endpoint_is_left_alone_for_a_while(transport: Transport) -> None:
    now = 1000.0
    breakers = Breakers(lambda: now)
    async with serving(answering(http(b"", status="503 Service Unavailable"))) as server:
        probe = probe_of(transport, server.url, guards=Guards(breakers=breakers))
        for _ in range(5):
            await seen(probe)
        asked = len(server.requests)
        assert await probe.look(FIRST) is None
        assert len(server.requests) == asked
        now += 31
        await seen(probe)
        assert len(server.requests) == asked + 1


async def test_an_operator_may_take_an_endpoint_out(transport: Transport) -> None:
    breakers = Breakers(lambda: 0.0)
    async with serving(Node()) as server:
        probe = probe_of(transport, server.url, guards=Guards(breakers=breakers))
        await seen(probe)
        breakers.cordon(f"stats/base/127.0.0.1:{server.port}", "moving house")
        look = await seen(probe)
    assert look.outcome is Probe.REFUSED
    assert "moving house" in str(look.error)


async def test_a_limit_of_ours_is_paid_for_the_whole_look_before_anything_is_sent(transport: Transport) -> None:
    guards = Guards(breakers=Breakers(lambda: 0.0), quota=MemoryQuota(), rpm=12)
    node = Node()
    async with serving(node) as server:
        probe = probe_of(transport, server.url, guards=guards)
        assert (await seen(probe)).outcome is Probe.OK
        asked = len(node.asked)
        assert (await seen(probe)).outcome is Probe.RATE_LIMITED
        assert len(node.asked) == asked


async def test_a_rest_that_the_endpoint_asked_for_is_kept(transport: Transport) -> None:
    limited = http(b"", status="429 Too Many Requests", headers="Retry-After: 60\r\n")
    async with serving(answering(limited)) as server:
        probe = probe_of(transport, server.url)
        for _ in range(2):
            assert (await seen(probe)).outcome is Probe.RATE_LIMITED
        assert len(server.requests) == 1


async def test_a_metered_endpoint_is_looked_at_in_its_turn_only_and_leanly(transport: Transport) -> None:
    node = Node()
    async with serving(node) as server:
        url = f"{server.url}/v2/{KEY}"
        meter = Meter(every_s=600.0, units_per_day=1000)
        guards = Guards(breakers=Breakers(lambda: 0.0), quota=MemoryQuota())
        (probe,) = build_probes(BASE, transport, urls=[], metered=[url], meter=meter, guards=guards)
        look = await seen(probe, NEXT)
        assert look.outcome is Probe.OK
        assert await probe.look(NEXT) is None
    assert [method for methods in node.asked for method in methods] == [
        "eth_chainId", "eth_getBlockByNumber", "eth_getBlockByNumber", "eth_feeHistory", "eth_blockNumber",
    ]  # fmt: skip


async def test_the_budget_of_a_day_holds_over_restarts(transport: Transport) -> None:
    quota = MemoryQuota()
    outcomes = []
    async with serving(Node()) as server:
        for _ in range(3):
            guards = Guards(breakers=Breakers(lambda: 0.0), quota=quota)
            meter = Meter(every_s=600.0, units_per_day=130)
            url = f"{server.url}/v2/{KEY}"
            (probe,) = build_probes(BASE, transport, urls=[], metered=[url], meter=meter, guards=guards)
            outcomes.append((await seen(probe)).outcome)
    # A look costs 60 units.
    assert outcomes == [Probe.OK, Probe.OK, Probe.RATE_LIMITED]


# ---- real and simulated nodes ---------------------------------------------------------------------------------------


async def test_no_endpoint_is_asked_the_same_thing_twice_for_one_purpose(transport: Transport) -> None:
    async with open_simulator(SimSettings(chains=(BASE,))) as simulator:
        probe = probe_of(transport, simulator.env()["BASE_RPC_URL"])
        head = (await seen(probe)).head
        assert head is not None
        node = simulator.world.upstreams["base"]
        before = dict(node.methods)
        await seen(probe, Want(older=head.number - 60, back=60))
        asked = {method: count - before.get(method, 0) for method, count in node.methods.items()}
    assert asked == {"eth_chainId": 0, "eth_getBlockByNumber": 3, "eth_feeHistory": 1, "eth_blockNumber": 5}


@pytest.mark.anvil
async def test_a_real_node(transport: Transport, start_anvil: Callable[..., AnvilChain]) -> None:
    node = start_anvil(BASE, "--slots-in-an-epoch", "4")
    node.mine_spaced(100, 2)
    look = await seen(probe_of(transport, node.url))
    assert look.outcome is Probe.OK
    assert look.head is not None
    assert look.older is not None
    assert (look.head.number, look.older.number, look.finalized) == (100, 40, 92)
    assert look.head.at - look.older.at == 120.0
    assert look.gas_price_wei is not None
