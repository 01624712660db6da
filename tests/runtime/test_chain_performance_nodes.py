"""The collector of chain statistics on real and simulated nodes: paused, frozen, wrong, lagging, hanging ones."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import pytest
import trio

from moonxd.adapters.chains import Guards, build_probes
from moonxd.adapters.memory.quota import MemoryQuota
from moonxd.adapters.rpc import Transport, open_transport
from moonxd.agents.heads import HeadsWatch
from moonxd.config import load_config
from moonxd.domain.breakers import Breakers
from moonxd.domain.chain import CHAINS, Chain, parse_chain
from moonxd.domain.stats import ChainStats, Health, Probe
from moonxd.sim import SimSettings, open_simulator
from moonxd.stats.chain_performance import ChainPerformance
from moonxd.telemetry import Telemetry
from moonxd.wiring.chainstats import chain_heads, chain_probes, cost_statement
from tests.services.anvil import AnvilChain
from tests.services.kept import Archive
from tests.services.redis import until
from tests.services.simulator import SimulatorProcess

ETHEREUM, BASE, BSC = CHAINS[1], CHAINS[8453], CHAINS[56]
MINUTE_MS = 60_000


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with open_transport() as opened:
        yield opened


def on(transport: Transport, nodes: Mapping[Chain, Sequence[str]], **options: Any) -> ChainPerformance:
    # No breaker opens within the few rounds of a test: their clock stands still, and so do their windows.
    guards = Guards(breakers=Breakers(lambda: 0.0))
    probes = {
        chain.id: build_probes(chain, transport, urls=urls, guards=guards, **options) for chain, urls in nodes.items()
    }
    return ChainPerformance(probes, Archive())


def head_ms(node: AnvilChain) -> int:
    return 1000 * node.head_at


async def round_(stats: ChainPerformance, now_ms: int) -> dict[str, ChainStats]:
    return {row.slug: row for row in (await stats.collect(now_ms)).chains}


@pytest.mark.anvil
@pytest.mark.parametrize(("slug", "spacing"), [("ethereum", 12), ("polygon", 2), ("base", 2), ("base", 3)])
async def test_the_block_time_of_a_real_chain_is_measured_within_a_percent(
    transport: Transport, start_anvil: Callable[..., AnvilChain], slug: str, spacing: int
) -> None:
    chain = next(chain for chain in CHAINS.values() if chain.slug == slug)
    node = start_anvil(chain)
    node.mine_spaced(150, spacing)
    stats = on(transport, {chain: [node.url]})
    first = (await round_(stats, head_ms(node)))[slug]
    node.mine_spaced(60 // spacing, spacing)
    second = (await round_(stats, head_ms(node)))[slug]
    for row in (first, second):
        assert row.block_time_s == pytest.approx(spacing, rel=0.01)
        assert row.head_age_s == 0.0
    assert second.head == node.height


async def test_blocks_faster_than_a_second_are_measured_within_a_percent(transport: Transport) -> None:
    now = 1_800_000_000.0
    async with open_simulator(SimSettings(chains=(BSC,)), now=lambda: now) as simulator:
        row = (await round_(on(transport, {BSC: [simulator.env()["BSC_RPC_URL"]]}), round(now * 1000)))["bsc"]
    assert row.block_time_s == pytest.approx(BSC.block_time, rel=0.01)


@pytest.mark.anvil
async def test_a_chain_that_stands_still_is_degraded_then_unhealthy_and_recovers(
    transport: Transport, start_anvil: Callable[..., AnvilChain]
) -> None:
    node = start_anvil(BASE)
    node.mine_spaced(150, 2)
    stats, stopped_ms = on(transport, {BASE: [node.url]}), head_ms(node)
    seen = [(await round_(stats, stopped_ms + 1000 * late))["base"] for late in (0, 20, 30, 50, 60, 120)]
    assert [str(row.status) for row in seen] == [
        "healthy", "healthy", "degraded", "degraded", "unhealthy", "unhealthy",
    ]  # fmt: skip
    assert seen[-1].reason == "no new block for 120 s"
    # It goes on: what was missed is not made up for, so its block time is over the usual for a while too.
    node.mine_spaced(300, 2)
    seen = [(await round_(stats, head_ms(node)))["base"] for _ in range(3)]
    assert [str(row.status) for row in seen] == ["unhealthy", "unhealthy", "healthy"]


@pytest.mark.anvil
@pytest.mark.slow
async def test_a_node_that_is_frozen_is_degraded_then_unhealthy_and_recovers(
    transport: Transport, start_anvil: Callable[..., AnvilChain]
) -> None:
    frozen, other = start_anvil(BASE), start_anvil(ETHEREUM)
    for node in (frozen, other):
        node.mine_spaced(150, int(node.chain.block_time))
    stats = on(transport, {BASE: [frozen.url], ETHEREUM: [other.url]}, timeout_s=0.5)
    start_ms = head_ms(frozen)
    assert (await round_(stats, start_ms))["base"].status is Health.HEALTHY
    os.kill(frozen.pid, signal.SIGSTOP)
    try:
        rounds = [await round_(stats, start_ms + turn * MINUTE_MS) for turn in range(1, 4)]
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
    assert [str(one["base"].status) for one in rounds] == ["healthy", "degraded", "unhealthy"]
    assert rounds[-1]["base"].endpoints[0].outcome is Probe.TIMEOUT
    assert rounds[-1]["base"].block_time_s == pytest.approx(2.0)
    # The other one was measured in the same rounds.
    assert {one["ethereum"].endpoints[0].outcome for one in rounds} == {Probe.OK}
    frozen.mine_spaced(150, 2)
    rounds = [await round_(stats, head_ms(frozen)) for _ in range(3)]
    assert str(rounds[-1]["base"].status) == "healthy"


@pytest.mark.anvil
async def test_an_endpoint_of_another_chain_is_unhealthy_and_the_chain_is_not(
    transport: Transport, start_anvil: Callable[..., AnvilChain]
) -> None:
    node, wrong = start_anvil(BASE), start_anvil(ETHEREUM)
    node.mine_spaced(150, 2)
    stats = on(transport, {BASE: [node.url, wrong.url]})
    row = (await round_(stats, head_ms(node)))["base"]
    assert row.status is Health.HEALTHY
    assert [(one.outcome, one.status) for one in row.endpoints] == [
        (Probe.OK, Health.HEALTHY), (Probe.WRONG_CHAIN, Health.UNHEALTHY),
    ]  # fmt: skip
    assert "serves chain 1" in str(row.error)


async def test_a_hanging_endpoint_does_not_delay_the_others(transport: Transport) -> None:
    knobs = {"ethereum": {"hang_rate": 1.0}, "base": {"halted": False}}
    async with open_simulator(SimSettings(knobs=knobs)) as simulator:
        urls = {chain: [simulator.env()[f"{chain.slug.upper()}_RPC_URL"]] for chain in CHAINS.values()}
        stats = on(transport, urls, timeout_s=0.5)
        found = await round_(stats, round(simulator.world.now() * 1000))
    assert found["ethereum"].endpoints[0].outcome is Probe.TIMEOUT
    assert {row.endpoints[0].outcome for slug, row in found.items() if slug != "ethereum"} == {Probe.OK}
    assert {str(row.status) for slug, row in found.items() if slug != "ethereum"} == {"healthy"}


async def test_an_endpoint_that_lags_behind_the_other_is_said(transport: Transport) -> None:
    knobs = {"base": {"lag_blocks": 30}}
    now = 1_800_000_000.0
    async with (
        open_simulator(SimSettings(chains=(BASE,)), now=lambda: now) as ahead,
        open_simulator(SimSettings(chains=(BASE,), knobs=knobs), now=lambda: now) as behind,
    ):
        urls = [ahead.env()["BASE_RPC_URL"], behind.env()["BASE_RPC_URL"]]
        stats = on(transport, {BASE: urls})
        rows = [(await round_(stats, round(now * 1000)))["base"] for _ in range(2)]
    assert [one.lag for one in rows[0].endpoints] == [0, 30]
    assert [str(one.status) for one in rows[0].endpoints] == ["healthy", "degraded"]
    assert "is 30 blocks behind" in str(rows[1].reason)


async def test_as_configured_six_chains_are_measured_and_the_slow_ones_announce_their_heads(
    simulator: SimulatorProcess,
) -> None:
    config = load_config(None, {"HOME": "/nonexistent", **simulator.env}).config
    breakers, telemetry = Breakers(trio.current_time), Telemetry()
    async with open_transport() as transport, trio.open_nursery() as nursery:
        probes = chain_probes(config, transport, breakers, MemoryQuota(), telemetry)
        stats = ChainPerformance(probes, Archive(), heads=lambda chain_id: heads.seen(chain_id))
        heads = HeadsWatch(chain_heads(config, transport), stats.usual_block_time)
        nursery.start_soon(heads.run, lambda: None)
        await until(lambda: all((seen := heads.seen(chain)) is not None and seen.is_connected for chain in (8453, 10)))
        rows = await round_(stats, round(time.time() * 1000))
        await until(lambda: all((seen := heads.seen(chain)) is not None and seen.heads for chain in (8453, 10)))
        nursery.cancel_scope.cancel()
    assert {slug: str(row.status) for slug, row in rows.items()} == {c.slug: "healthy" for c in CHAINS.values()}
    for slug, row in rows.items():
        assert row.block_time_s == pytest.approx(parse_chain(slug).block_time, rel=0.01)
        assert None not in (row.head, row.head_age_s, row.finality_lag, row.gas_price_wei, row.endpoints[0].p50_s)
    assert [heads.seen(chain) is None for chain in (42161, 56)] == [True, True]
    assert cost_statement(config) == ()
    assert {view.name.partition("/")[0] for view in breakers.views()} == {"stats"}
