"""DefiLlama's statistics: what is read, kept, and made of their absence; and the collectors that probe nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from decimal import Decimal

import msgspec
import pytest
import trio

from moonxd.adapters.figures import LlamaFigures
from moonxd.adapters.rpc import Transport, open_transport
from moonxd.agents.markets import Markets
from moonxd.domain.breakers import Breakers
from moonxd.domain.chain import CHAINS
from moonxd.domain.service_health import of_answer
from moonxd.domain.stats import BridgeStats, ChainStats, Health, Overview, Probe
from moonxd.stats.overview import OverviewOf
from moonxd.stats.service_health import ServiceHealthOf
from tests.services.redis import until
from tests.services.simulator import SimulatorProcess
from tests.services.tcp import Peer, http, serving

Build = Callable[..., LlamaFigures]


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with open_transport() as opened:
        yield opened


@pytest.fixture
def build(transport: Transport) -> Build:
    def make(url: str, *, ttl_s: float = 1800.0, timeout_s: float = 5.0) -> LlamaFigures:
        breakers = Breakers(trio.current_time)
        return LlamaFigures(transport, breakers, base_url=url, ttl_s=ttl_s, timeout_s=timeout_s, now=lambda: 1.8e9)

    return make


async def test_volume_and_tvl_of_every_chain_by_its_id(simulator: SimulatorProcess, build: Build) -> None:
    llama = build(simulator.env["DEFILLAMA_API_URL"])
    found = await llama.figures([*CHAINS, 999])
    assert found.keys() == CHAINS.keys()
    truth = {row["chainId"]: row["tvl"] for row in simulator.http.get("/llama/api/v2/chains").json()}
    for chain_id, figures in found.items():
        assert figures.tvl_usd == truth[chain_id]
        assert figures.volume_24h_usd == truth[chain_id] // 20
        assert figures.at_ms == 1_800_000_000_000
    assert llama.error is None


async def test_what_was_fetched_is_kept(simulator: SimulatorProcess, build: Build) -> None:
    llama = build(simulator.env["DEFILLAMA_API_URL"])
    first = await llama.figures([1, 10])
    for _ in range(5):
        assert await llama.figures([1, 10]) == first
    assert simulator.stats()["upstreams"]["llama-stats"]["requests"] == 3


async def test_an_outage_leaves_the_last_known_and_is_not_asked_into(simulator: SimulatorProcess, build: Build) -> None:
    llama = build(simulator.env["DEFILLAMA_API_URL"], ttl_s=0.0)
    first = await llama.figures([1, 10])
    simulator.turn({"llama-stats": {"error_rate": 1}})
    assert await llama.figures([1, 10]) == first
    assert llama.error
    assert "500" in llama.error or "503" in llama.error
    fresh = build(simulator.env["DEFILLAMA_API_URL"])
    assert await fresh.figures([1]) == {}
    asked = simulator.stats()["upstreams"]["llama-stats"]["requests"]
    assert await fresh.figures([1]) == {}
    assert simulator.stats()["upstreams"]["llama-stats"]["requests"] == asked


@pytest.mark.parametrize(
    ("dexes", "volume"),
    [
        (b'{"total24h":1234.5,"protocols":[]}', Decimal("1234.5")),
        (b'{"total24h":null}', None),
        (b'{"protocols":[],"totalDataChart":[]}', None),
        (b'{"total24h":0}', Decimal(0)),
        (b'{"total24h":-5}', None),
        (b'{"total24h":1e40}', None),
        (b'{"total24h":"x"}', None),
        (b"<html>", None),
    ],
)
async def test_missing_is_unknown_never_nothing(build: Build, dexes: bytes, volume: Decimal | None) -> None:
    async def answer(peer: Peer) -> None:
        while True:
            head, _ = await peer.request()
            rows = b'[{"name":"Foo","chainId":10,"tvl":7.5},{"name":"OP","tvl":1},{"name":"E","chainId":"1"}]'
            await peer.send(http(rows if b"/v2/chains" in head else dexes))

    async with serving(answer) as server:
        found = await build(server.url).figures([10, 1])
    assert found[10].volume_24h_usd == volume
    assert found[10].tvl_usd == Decimal("7.5")
    assert 1 not in found or found[1].tvl_usd is None


async def test_a_chain_that_they_renamed_is_asked_for_by_their_name(build: Build) -> None:
    async def answer(peer: Peer) -> None:
        while True:
            head, _ = await peer.request()
            if b"/v2/chains" in head:
                await peer.send(http(b'[{"name":"OP Mainnet","chainId":10,"tvl":7}]'))
            elif b"/overview/dexs/OP%20Mainnet?excludeTotalDataChart=true&excludeTotalDataChartBreakdown=true" in head:
                await peer.send(http(b'{"total24h":3}'))
            else:
                await peer.send(http(b'{"message":"not found"}', status="404 Not Found"))

    async with serving(answer) as server:
        found = await build(server.url).figures([10])
    assert (found[10].volume_24h_usd, found[10].tvl_usd) == (Decimal(3), Decimal(7))


async def test_a_silent_one_is_given_up_and_left_in_peace(simulator: SimulatorProcess, build: Build) -> None:
    simulator.turn({"llama-stats": {"hang_rate": 1}})
    llama = build(simulator.env["DEFILLAMA_API_URL"], timeout_s=0.3)
    with trio.fail_after(5):
        assert await llama.figures(list(CHAINS)) == {}
    with trio.fail_after(0.2):
        assert await llama.figures(list(CHAINS)) == {}


async def test_a_round_reads_them_without_waiting(simulator: SimulatorProcess, build: Build) -> None:
    now = 1.8e9
    markets = Markets(build(simulator.env["DEFILLAMA_API_URL"]), [1, 56], now=lambda: now)
    assert markets() == {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(markets.run, lambda: None)
        await until(lambda: bool(markets()))
        nursery.cancel_scope.cancel()
    assert markets().keys() == {1, 56}
    assert all(volume and tvl for volume, tvl in markets().values())
    now += 7 * 3600
    assert markets() == {}


CHAIN = ChainStats(
    chain_id=1, name="Ethereum", slug="ethereum", llama="ethereum", at_ms=1_000, measured_at_ms=1, status=Health.HEALTHY
)
BRIDGE = BridgeStats(
    provider="LI.FI", route="r", from_chain=1, to_chain=10, at_ms=1_000, measured_at_ms=1, status=Health.DEGRADED,
    outcome=Probe.OK,
)  # fmt: skip


async def test_the_overview_is_what_is_known_already() -> None:
    async def chains() -> list[ChainStats]:
        return [CHAIN]

    async def bridges() -> list[BridgeStats]:
        return [BRIDGE]

    found = await OverviewOf(chains, bridges).collect(2_000)
    assert found.overview == Overview(at_ms=2_000, status=Health.DEGRADED, chains=(CHAIN,), bridges=(BRIDGE,))
    old = await OverviewOf(chains, bridges, stale_s=10).collect(60_000)
    assert old.overview is not None
    assert old.overview.status is Health.UNKNOWN
    assert msgspec.json.decode(msgspec.json.encode(old), type=type(old)) == old


async def test_service_health_follows_its_parts_with_a_look_of_delay() -> None:
    redis_answers = True
    collector = ServiceHealthOf([lambda _now: [of_answer("redis", redis_answers, critical=True)], lambda _now: []])

    async def status() -> Health:
        service = (await collector.collect(1)).service
        assert service is not None
        return service.status

    assert await status() is Health.HEALTHY
    redis_answers = False
    assert [await status() for _ in range(2)] == [Health.HEALTHY, Health.UNHEALTHY]
    redis_answers = True
    assert [await status() for _ in range(2)] == [Health.UNHEALTHY, Health.HEALTHY]
