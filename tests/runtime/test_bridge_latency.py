"""Rounds of the bridge collector against the simulated providers."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
import pytest
import trio

from moonxd.adapters.bridges import ProviderOptions, build_probes
from moonxd.adapters.rpc import Transport, open_transport
from moonxd.config import load_config
from moonxd.domain.breakers import Breakers
from moonxd.domain.errors import Permanent, Transient
from moonxd.domain.stats import BridgeStats, Health, Probe, Round
from moonxd.stats.bridge_latency import BridgeLatency
from moonxd.wiring.bridges import bridge_probes, market_figures
from tests.services.simulator import SimulatorProcess

ROUTES = ("base:USDC->arbitrum:USDC", "ethereum:USDC->base:USDC")
KEYS = {"LI.FI": "lifi", "Relay.link": "relay", "1inch": "oneinch", "Across": "across"}
Collect = Callable[..., BridgeLatency]
NOW = 1_800_000_000_000


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with open_transport() as opened:
        yield opened


async def nothing() -> Sequence[BridgeStats]:
    return ()


@pytest.fixture
def collector(transport: Transport, simulator: SimulatorProcess) -> Collect:
    urls = {
        "lifi": simulator.env["LIFI_API_URL"],
        "relay": simulator.env["RELAY_API_URL"],
        "oneinch": simulator.env["MOONXD_STATS__ONEINCH__BASE_URL"],
        "across": simulator.env["MOONXD_STATS__ACROSS__BASE_URL"],
    }

    def make(
        *names: str,
        latest: Callable[[], object] = nothing,
        timeout_s: float = 30.0,
        one_s: float = 5.0,
        at: dict[str, str] | None = None,
        routes: Sequence[str] = ROUTES[:1],
    ) -> BridgeLatency:
        where = urls | (at or {})
        options = {name: ProviderOptions(where[name], routes, one_s, "key") for name in names or urls}
        probes = build_probes(transport, Breakers(trio.current_time), options)
        return BridgeLatency(probes, latest, timeout_s=timeout_s)  # type: ignore[arg-type]

    return make


def by_provider(found: Round) -> dict[str, BridgeStats]:
    return {KEYS[row.provider]: row for row in found.bridges}


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


async def test_a_round_asks_every_provider_on_every_route(collector: Collect) -> None:
    found = await collector(routes=ROUTES).collect(NOW)
    assert found.failed == ()
    assert {(KEYS[row.provider], row.route) for row in found.bridges} == {
        (name, route) for name in KEYS.values() for route in ROUTES
    }
    for row in found.bridges:
        assert (row.status, row.outcome, row.error, row.reason) == (Health.HEALTHY, Probe.OK, None, None)
        assert (row.at_ms, row.measured_at_ms) == (NOW, NOW)
        assert row.latency_s
        assert row.latency_s < 5
        assert row.quoted_s
    assert {(row.from_chain, row.to_chain) for row in found.bridges} == {(8453, 42161), (1, 8453)}


async def test_one_bad_provider_keeps_its_last_good_values_and_holds_nobody_up(
    simulator: SimulatorProcess, collector: Collect
) -> None:
    bridges = collector(one_s=0.5)
    good = by_provider(await bridges.collect(NOW))
    simulator.turn({"relay": {"hang_rate": 1}, "across": {"error_rate": 1}})
    for turn in range(1, 4):
        found = await bridges.collect(NOW + turn)
        rows = by_provider(found)
        assert rows["lifi"].outcome is Probe.OK
        assert {"Relay.link", "Across"} == {said.partition(" ")[0] for said in found.failed}
        for name, outcome in (("relay", Probe.TIMEOUT), ("across", Probe.SERVER_ERROR)):
            row = rows[name]
            assert (row.outcome, row.at_ms, row.measured_at_ms) == (outcome, NOW + turn, NOW)
            assert (row.latency_s, row.quoted_s) == (good[name].latency_s, good[name].quoted_s)
            assert row.error
            assert row.status is (Health.HEALTHY if turn < 3 else Health.UNHEALTHY)
    simulator.turn({"relay": {"hang_rate": 0}, "across": {"error_rate": 0}})
    assert by_provider(await bridges.collect(NOW + 4))["relay"].status is Health.UNHEALTHY
    back = by_provider(await bridges.collect(NOW + 5))["relay"]
    assert (back.status, back.error, back.reason, back.measured_at_ms) == (Health.HEALTHY, None, None, NOW + 5)


async def test_a_round_takes_as_long_as_its_slowest_quote(simulator: SimulatorProcess, collector: Collect) -> None:
    bridges = collector(routes=ROUTES)
    await bridges.collect(NOW)
    simulator.turn({name: {"latency_ms": 500} for name in KEYS.values()} | {"across": {"latency_ms": 1500}})
    ratios = []
    for _ in range(2):
        began = trio.current_time()
        found = await bridges.collect(NOW)
        took = trio.current_time() - began
        assert all(row.outcome is Probe.OK for row in found.bridges)
        ratios.append(took / max(row.latency_s or 0 for row in found.bridges))
    # The better of two: the machine has other work.
    assert min(ratios) <= 1.2


@pytest.mark.slow
async def test_our_own_network_down_is_nobodys_fault(collector: Collect) -> None:
    nowhere = dict.fromkeys(KEYS.values(), closed_port()) | {"relay": "http://no-such-bridge.invalid"}
    bridges = collector(at=nowhere)
    # More often than a breaker would bear.
    for _ in range(6):
        found = await bridges.collect(NOW)
        assert {row.outcome for row in found.bridges} == {Probe.NETWORK}
        assert {row.status for row in found.bridges} == {Health.UNKNOWN}
        assert {row.latency_s for row in found.bridges} == {None}
        assert all("our own network" in (row.reason or "") for row in found.bridges)


async def test_one_that_cannot_be_connected_to_is_down_while_others_can(collector: Collect) -> None:
    bridges = collector("lifi", "across", at={"across": closed_port()})
    statuses = [by_provider(await bridges.collect(NOW))["across"].status for _ in range(3)]
    assert statuses == [Health.UNKNOWN, Health.UNKNOWN, Health.UNHEALTHY]


async def test_limits_and_refused_keys_end_in_unknown(simulator: SimulatorProcess, collector: Collect) -> None:
    bridges = collector("lifi", "oneinch")
    await bridges.collect(NOW)
    simulator.turn(
        {"lifi": {"rate_limit_rate": 1, "retry_after_s": 600}, "oneinch": {"error_rate": 1, "error_status": 401}}
    )
    rows = {}
    for turn in range(1, 6):
        rows = by_provider(await bridges.collect(NOW + turn))
        expected = Health.HEALTHY if turn < 3 else Health.UNKNOWN
        assert {row.status for row in rows.values()} == {expected}
    assert (rows["lifi"].outcome, rows["oneinch"].outcome) == (Probe.RATE_LIMITED, Probe.REFUSED)
    assert all(row.latency_s and row.measured_at_ms == NOW for row in rows.values())


async def test_the_rounds_deadline_is_kept(simulator: SimulatorProcess, collector: Collect) -> None:
    simulator.turn({"across": {"hang_rate": 1}})
    with trio.fail_after(3):
        found = await collector("lifi", "across", timeout_s=1.0, one_s=60).collect(NOW)
    assert {name: row.outcome for name, row in by_provider(found).items()} == {
        "lifi": Probe.OK,
        "across": Probe.TIMEOUT,
    }


async def test_after_a_restart_the_last_good_values_stand(simulator: SimulatorProcess, collector: Collect) -> None:
    (before,) = (await collector("across").collect(NOW)).bridges
    simulator.turn({"across": {"error_rate": 1}})

    async def latest() -> Sequence[BridgeStats]:
        gone = msgspec.structs.replace(before, provider="Gone")
        return before, gone

    found = await collector("across", latest=latest).collect(NOW + 60_000)
    (row,) = found.bridges
    assert (row.status, row.latency_s, row.measured_at_ms) == (Health.HEALTHY, before.latency_s, NOW)
    (row,) = (await collector("across", latest=latest).collect(NOW + 3_600_000)).bridges
    assert (row.status, row.latency_s) == (Health.UNKNOWN, before.latency_s)


async def test_an_archive_that_is_away_is_asked_again(collector: Collect) -> None:
    asked = 0

    async def latest() -> Sequence[BridgeStats]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise Transient("the archive is away")
        return ()

    bridges = collector("across", latest=latest)
    for _ in range(3):
        assert (await bridges.collect(NOW)).failed == ()
    assert asked == 2


async def test_left_alone_by_its_breaker_it_stays_unhealthy_and_is_not_shown_as_looked_at(
    simulator: SimulatorProcess, collector: Collect
) -> None:
    simulator.turn({"across": {"error_rate": 1}})
    bridges = collector("across", "relay", one_s=1.0)
    for turn in range(5):
        assert "across" in by_provider(await bridges.collect(NOW + turn))
    shown = []
    for turn in range(5, 9):
        found = await bridges.collect(NOW + turn)
        assert "left alone" in found.failed[0]
        shown += [row.status for name, row in by_provider(found).items() if name == "across"]
    assert shown == []


async def test_nobody_to_ask_is_said() -> None:
    with pytest.raises(Permanent, match=r"stats\.lifi\.routes"):
        await BridgeLatency([], nothing, timeout_s=1.0).collect(NOW)


async def test_the_configuration_says_who_is_asked(simulator: SimulatorProcess, transport: Transport) -> None:
    breakers = Breakers(trio.current_time)

    def providers(**variables: str) -> list[str]:
        config = load_config(None, {**simulator.env, **variables}).config
        return [probe.provider for probe in bridge_probes(config, transport, breakers)]

    assert providers() == ["LI.FI", "Relay.link"]
    assert providers(ONEINCH_API_KEY="k", MOONXD_STATS__ACROSS__ENABLED="true") == [
        "LI.FI", "Relay.link", "1inch", "Across",
    ]  # fmt: skip
    assert providers(MOONXD_STATS__LIFI__ROUTES="[]") == ["Relay.link"]
    config = load_config(None, simulator.env).config
    found = await BridgeLatency(bridge_probes(config, transport, breakers), nothing, timeout_s=30).collect(NOW)
    assert (len(found.bridges), found.failed) == (4, ())
    assert (await market_figures(config, transport, breakers).figures([1])).keys() == {1}
