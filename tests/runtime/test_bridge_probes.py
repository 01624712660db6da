"""The bridge probes against the simulated providers, against servers that misbehave, and against nobody."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest
import trio

from moonxd.adapters.bridges import ProviderOptions, build_probes
from moonxd.adapters.rpc import Transport, open_transport
from moonxd.domain.breakers import Breakers
from moonxd.domain.bridge import Sight
from moonxd.domain.stats import Probe
from moonxd.ports import BridgeProbe
from tests.services.redis import until
from tests.services.simulator import SimulatorProcess
from tests.services.tcp import Peer, http, serving

ROUTE = "base:USDC->arbitrum:USDC"
KEY = "secret-key-0123456789"
NAMES = ("lifi", "relay", "oneinch", "across")
URLS = {
    "lifi": "LIFI_API_URL",
    "relay": "RELAY_API_URL",
    "oneinch": "MOONXD_STATS__ONEINCH__BASE_URL",
    "across": "MOONXD_STATS__ACROSS__BASE_URL",
}
Build = Callable[..., BridgeProbe]


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with open_transport() as opened:
        yield opened


@pytest.fixture
def build(transport: Transport) -> Build:
    def make(name: str, url: str, *, timeout_s: float = 5.0, route: str = ROUTE, key: str | None = KEY) -> BridgeProbe:
        options = ProviderOptions(url, [route], timeout_s, key)
        (probe,) = build_probes(transport, Breakers(trio.current_time), {name: options})
        return probe

    return make


async def ask(probe: BridgeProbe) -> Sight:
    return await probe.quote(probe.routes[0])


@pytest.mark.parametrize("name", NAMES)
async def test_a_quote_has_a_latency_and_says_how_long_the_transfer_takes(
    simulator: SimulatorProcess, build: Build, name: str
) -> None:
    simulator.turn({name: {"latency_ms": 80}})
    sight = await ask(build(name, simulator.env[URLS[name]]))
    assert (sight.outcome, sight.error) == (Probe.OK, None)
    assert sight.latency_s is not None
    assert 0.08 <= sight.latency_s < 3
    assert sight.quoted_s == 8


@pytest.mark.parametrize(
    ("knobs", "outcome"),
    [
        ({"no_route": True}, Probe.NO_ROUTE),
        ({"rate_limit_rate": 1, "retry_after_s": 7}, Probe.RATE_LIMITED),
        ({"error_rate": 1, "error_status": 500}, Probe.SERVER_ERROR),
        ({"error_rate": 1, "error_status": 403}, Probe.REFUSED),
        ({"malformed_rate": 1, "malformed_kind": "html"}, Probe.SERVER_ERROR),
        ({"malformed_rate": 1, "malformed_kind": "truncated"}, Probe.SERVER_ERROR),
        ({"malformed_rate": 1, "malformed_kind": "wrong-shape"}, Probe.SERVER_ERROR),
        ({"oversize_rate": 1, "oversize_bytes": 3_000_000}, Probe.SERVER_ERROR),
        ({"hang_rate": 1}, Probe.TIMEOUT),
        ({"drop_rate": 1}, Probe.NETWORK),
        ({"latency_ms": 60_000}, Probe.TIMEOUT),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
@pytest.mark.parametrize("name", NAMES)
async def test_each_trouble_has_its_own_outcome_and_no_latency(
    simulator: SimulatorProcess, build: Build, name: str, knobs: dict[str, object], outcome: Probe
) -> None:
    probe = build(name, simulator.env[URLS[name]], timeout_s=0.5)
    simulator.turn({name: knobs})
    with trio.fail_after(10):
        sight = await ask(probe)
    assert sight.outcome is outcome
    assert sight.error
    assert (sight.latency_s, sight.quoted_s) == (None, None)
    assert KEY not in sight.error


@pytest.mark.parametrize("name", NAMES)
async def test_nobody_there_is_no_fast_answer(build: Build, name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for url in (closed, "http://no-such-bridge.invalid"):
            sight = await ask(build(name, url))
            assert (sight.outcome, sight.latency_s) == (Probe.NETWORK, None)


async def test_a_rest_that_was_asked_for_is_kept(simulator: SimulatorProcess, build: Build) -> None:
    simulator.turn({"across": {"rate_limit_rate": 1, "retry_after_s": 90, "fault_budget": 1}})
    probe = build("across", simulator.env[URLS["across"]])
    assert (await ask(probe)).outcome is Probe.RATE_LIMITED
    for _ in range(3):
        sight = await ask(probe)
        assert (sight.outcome, sight.asked) == (Probe.RATE_LIMITED, False)
        assert sight.error is not None
        assert "left alone for" in sight.error
    assert simulator.stats()["upstreams"]["across"]["requests"] == 1


async def test_the_last_of_a_budget_is_spared(simulator: SimulatorProcess, build: Build) -> None:
    simulator.turn({"lifi": {"granted": 6}})
    probe = build("lifi", simulator.env[URLS["lifi"]])
    assert (await ask(probe)).outcome is Probe.OK
    simulator.turn({"lifi": {"granted": 5}})
    assert [(await ask(probe)).asked for _ in range(3)] == [True, False, False]


async def test_one_bad_answer_is_asked_again_but_not_within_a_deadline_that_is_too_near(
    simulator: SimulatorProcess, build: Build
) -> None:
    simulator.turn({"across": {"error_rate": 1, "fault_budget": 1}})
    probe = build("across", simulator.env[URLS["across"]])
    assert (await ask(probe)).outcome is Probe.OK
    simulator.turn({"across": {"error_rate": 1, "fault_budget": 1}})
    with trio.fail_after(0.3):
        assert (await ask(probe)).outcome is Probe.SERVER_ERROR


async def test_a_surrounding_deadline_is_a_timeout_with_words(simulator: SimulatorProcess, build: Build) -> None:
    simulator.turn({"across": {"hang_rate": 1}})
    probe = build("across", simulator.env[URLS["across"]], timeout_s=60)
    with trio.fail_after(0.5):
        sight = await ask(probe)
    assert sight.outcome is Probe.TIMEOUT


async def test_five_failures_and_it_is_left_alone(simulator: SimulatorProcess, build: Build) -> None:
    simulator.turn({"across": {"error_rate": 1}})
    probe = build("across", simulator.env[URLS["across"]])
    with trio.fail_after(20):
        assert [(await ask(probe)).outcome for _ in range(5)] == [Probe.SERVER_ERROR] * 5
    before = simulator.stats()["upstreams"]["across"]["requests"]
    sight = await ask(probe)
    assert sight.outcome is None
    assert sight.error is not None
    assert "failed too often" in sight.error
    assert simulator.stats()["upstreams"]["across"]["requests"] == before


@pytest.mark.parametrize("name", ["lifi", "relay"])
async def test_the_list_of_chains_is_fetched_once(simulator: SimulatorProcess, build: Build, name: str) -> None:
    probe = build(name, simulator.env[URLS[name]])
    for _ in range(3):
        assert (await ask(probe)).outcome is Probe.OK
    assert simulator.stats()["upstreams"][name]["requests"] == 4


async def test_a_chain_that_is_not_served_costs_no_quote(
    start_simulator: Callable[..., SimulatorProcess], build: Build
) -> None:
    running = start_simulator("--chains", "base,ethereum")
    for name in ("lifi", "relay"):
        sight = await ask(build(name, running.env[URLS[name]]))
        assert sight.outcome is Probe.NO_ROUTE
        assert sight.error is not None
        assert "does not serve arbitrum" in sight.error
        assert running.stats()["upstreams"][name]["requests"] == 1


async def test_oneinch_is_left_out_without_a_key(transport: Transport) -> None:
    options = {name: ProviderOptions("http://127.0.0.1:1", [ROUTE]) for name in NAMES}
    probes = build_probes(transport, Breakers(trio.current_time), options)
    assert [probe.provider for probe in probes] == ["LI.FI", "Relay.link", "Across"]


async def test_what_they_are_asked(build: Build) -> None:
    """The shapes of the providers' documents: paths, names, who asks."""

    async def answer(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(http(b'{"chains":[]}'))

    async with serving(answer) as server:
        for name in NAMES:
            await ask(build(name, server.url))
    heads = [head.decode() for head, _ in server.requests if b"/chains" not in head.split(b"\r\n")[0]]
    first = [head.split("\r\n")[0] for head in heads]
    # An answer that is no quote is asked for again.
    lifi, relay, oneinch, across = first[::2]
    for part in (
        "GET /quote?fromChain=8453&toChain=42161", "fromAmount=100000000", "integrator=moonxd",
        "fromAddress=0x000000000000000000000000000000000000dead",
    ):  # fmt: skip
        assert part in lifi
    assert f"x-lifi-api-key: {KEY}" in heads[0]
    assert relay == "POST /quote/v2 HTTP/1.1"
    question = next(json.loads(body) for head, body in server.requests if head.startswith(b"POST"))
    assert question["tradeType"] == "EXACT_INPUT"
    assert (question["originChainId"], question["amount"]) == (8453, "100000000")
    assert oneinch.startswith("GET /fusion-plus/quoter/v1.0/quote/receive?srcChain=8453&dstChain=42161")
    assert f"Authorization: Bearer {KEY}" in heads[4]
    assert across.startswith("GET /suggested-fees?inputToken=0x833589fcd6edb6e08f4c7c32d4f71b54bda02913")
    assert all("User-Agent: moonxd/" in head for head in heads)


async def test_a_key_in_their_words_is_not_repeated(build: Build) -> None:
    async def answer(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(http(json.dumps({"message": f"bad key {KEY}\n\x1b[31m"}).encode(), status="400 Bad"))

    async with serving(answer) as server:
        sight = await ask(build("lifi", server.url))
    assert sight.outcome is Probe.NO_ROUTE
    assert sight.error == "127.0.0.1 has no quote for this route: bad key *** [31m"


async def test_a_connection_that_is_reset_is_no_answer(build: Build) -> None:
    async def hang_up(peer: Peer) -> None:
        # What was sent is not read: the kernel resets the connection.
        peer.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # type: ignore[attr-defined]

    async with serving(hang_up) as server:
        sight = await ask(build("across", server.url))
    assert (sight.outcome, sight.latency_s) == (Probe.NETWORK, None)


async def test_a_cancelled_quote_leaves_the_breaker_as_it_was(simulator: SimulatorProcess, build: Build) -> None:
    simulator.turn({"across": {"hang_rate": 1}})
    probe = build("across", simulator.env[URLS["across"]], timeout_s=60)
    for _ in range(6):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, probe)
            asked = simulator.stats()["upstreams"]["across"]["requests"]
            await until(lambda asked=asked: simulator.stats()["upstreams"]["across"]["requests"] > asked)  # type: ignore[misc]
            nursery.cancel_scope.cancel()
    simulator.turn({"across": {"hang_rate": 0}})
    assert (await ask(probe)).outcome is Probe.OK
