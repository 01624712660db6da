"""Statistics of whole daemons: collected, kept, shown, told on change only, by one daemon of a fleet."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from moonxd.api import calls
from moonxd.api import stats as stats_calls
from moonxd.api.stats import BridgeView, ChainView, CollectorView, OverviewReply
from moonxd.domain.chain import CHAINS as CHAINS_BY_ID
from tests.cli.test_serve import cli
from tests.services.anvil import AnvilChain
from tests.services.daemon import DaemonProcess, StartDaemon, until
from tests.services.event_schemas import assert_valid
from tests.services.redis import RedisServer
from tests.services.simulator import SimulatorProcess

pytestmark = pytest.mark.slow

CHAINS = ["arbitrum", "base", "bsc", "ethereum", "optimism", "polygon"]
#: As fast as jitter lets them be.
FAST = {
    "CHAIN_PERFORMANCE_INTERVAL": "*/3 * * * * *",
    "BRIDGE_LATENCY_INTERVAL": "*/3 * * * * *",
    "STATS_COLLECTION_INTERVAL": "*/3 * * * * *",
    "ONEINCH_API_KEY": "key-of-the-tests",
}
UPDATED = ("stats.chain_performance_updated", "stats.bridge_latency_updated", "stats.overview_updated")


def overview(daemon: DaemonProcess) -> OverviewReply:
    with daemon.client() as client:
        return client.call(stats_calls.overview())


def collectors(daemon: DaemonProcess) -> dict[str, CollectorView]:
    return {one.name: one for one in overview(daemon).collectors}


def chain(daemon: DaemonProcess, slug: str) -> ChainView:
    return next(row for row in overview(daemon).chains if row.slug == slug)


def bridge(daemon: DaemonProcess, provider: str) -> BridgeView:
    with daemon.client() as client:
        return next(row for row in client.call(stats_calls.bridges()).bridges if row.provider == provider)


def is_complete(daemon: DaemonProcess) -> bool:
    """Every chain was measured and every provider answered."""
    found = overview(daemon)
    chains = sorted(row.slug for row in found.chains if row.status == "healthy" and row.block_time_s is not None)
    bridges = {row.provider for row in found.bridges if row.status == "healthy" and row.latency_s is not None}
    return chains == CHAINS and bridges == {"LI.FI", "Relay.link", "1inch"}


def told(daemon: DaemonProcess, *types: str) -> list[dict[str, Any]]:
    """Bodies of committed events, oldest first."""
    found: list[dict[str, Any]] = []
    after = 0
    with daemon.client() as client:
        while True:
            page = client.call(calls.events(after=after, limit=1000, types=types or ("stats.*",)))
            found += [json.loads(bytes(one.body)) for one in page.events]
            if not page.more:
                return found
            after = page.next


def metrics(daemon: DaemonProcess) -> dict[tuple[str, ...], float]:
    """Samples by name and label values."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(daemon.socket)), base_url="http://moonxd") as client:
        text = client.get("/metrics").text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def rounds(daemon: DaemonProcess, name: str) -> int:
    return collectors(daemon)[name].rounds


def test_all_of_it_is_collected_kept_shown_and_told(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    daemon = start_daemon({**simulator.env, **FAST})
    until(lambda: is_complete(daemon), "everything is measured", 60, lambda: daemon.log()[-3000:])
    before = rounds(daemon, "chain_performance")
    until(lambda: rounds(daemon, "chain_performance") >= before + 4, "some more rounds")

    shown = json.loads(cli(daemon, "stats", "chains", "--since", "10m", "--step", "1s", "--json").stdout)
    ethereum = next(row for row in shown["chains"] if row["slug"] == "ethereum")
    assert ethereum["blockTimeS"] == pytest.approx(12, rel=0.01)
    assert ethereum["head"] > 0
    assert ethereum["finalityLag"] > 0
    assert ethereum["gasPriceWei"] > 0
    assert ethereum["endpoints"][0]["outcome"] == "ok"
    assert ethereum["volume24hUsd"] is not None
    assert ethereum["tvlUsd"] is not None
    assert {series["key"] for series in shown["history"]} == set(CHAINS)
    assert all(len(series["points"]) >= 4 for series in shown["history"])
    assert "LI.FI" in cli(daemon, "stats", "bridges").stdout
    assert "overview: healthy" in cli(daemon, "stats", "overview").stdout

    counted = metrics(daemon)
    for job in ("chain_performance", "bridge_latency", "overview"):
        assert counted["moonxd_stats_collections_total", job, "ok"] >= 3
        assert counted["moonxd_stats_collection_seconds_count", job] >= 3
    assert counted["moonxd_stats_samples_waiting",] == 0

    assert counted["moonxd_chain_status", "bsc", "healthy"] == 1
    assert counted["moonxd_chain_block_time_seconds", "ethereum"] == pytest.approx(12, rel=0.01)
    assert 0 <= counted["moonxd_chain_head_age_seconds", "polygon"] < 15
    assert any(key[:2] == ("moonxd_bridge_latency_seconds", "LI.FI") for key in counted)

    until(lambda: told(daemon, "stats.health_check"), "the daemon's own health is told", 60)
    events = told(daemon)
    for event in events:
        assert_valid(event)
    (health, *_) = told(daemon, "stats.health_check")
    assert health["data"]["status"] == "healthy"
    count = Counter(event["type"] for event in events)
    assert count["stats.collection_started"] >= 10
    assert count["stats.collection_completed"] >= 10
    # Values of a simulated world hardly move: rounds go by without news.
    first = sum(1 for event in events if event["type"] == UPDATED[0] and len(event["data"]["chains"]) == len(CHAINS))
    assert first <= 2
    assert count["stats.chain_performance_updated"] < rounds(daemon, "chain_performance")
    assert "http" not in json.dumps([event["data"] for event in events])


def test_a_provider_that_fails_is_told_and_comes_back(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    daemon = start_daemon({**simulator.env, **FAST})
    until(lambda: is_complete(daemon), "everything is measured", 60)
    good = bridge(daemon, "Relay.link")
    simulator.turn({"relay": {"error_rate": 1.0}})
    until(lambda: bridge(daemon, "Relay.link").status == "unhealthy", "it is called unhealthy", 60)
    failed = bridge(daemon, "Relay.link")
    assert failed.outcome == "server_error"
    assert failed.error is not None
    assert failed.latency_s is not None
    assert failed.measured_at_ms is not None
    assert good.measured_at_ms is not None
    assert failed.measured_at_ms >= good.measured_at_ms, "the last good values stand beside the error"
    assert failed.measured_at_ms < failed.at_ms
    assert bridge(daemon, "LI.FI").status == "healthy"
    until(lambda: overview(daemon).status != "healthy", "the overview shows it")

    def says(status: str) -> bool:
        rows = [row for event in told(daemon, UPDATED[1]) for row in event["data"]["bridges"]]
        return any(row["provider"] == "Relay.link" and row["status"] == status for row in rows)

    until(lambda: says("unhealthy"), "it is told")
    assert collectors(daemon)["bridge_latency"].outcome == "partial"


@pytest.mark.timeout(300)
def test_a_chain_that_stands_still_is_told_and_recovers(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    environ = {key: value for key, value in simulator.env.items() if not key.endswith("_WS_URL")}
    daemon = start_daemon({**environ, **FAST, "CHAIN_PERFORMANCE_INTERVAL": "*/2 * * * * *"})
    until(lambda: is_complete(daemon), "everything is measured", 60)
    simulator.turn({"bsc": {"halted": True}})
    until(lambda: chain(daemon, "bsc").status == "degraded", "it is degraded first", 60)
    until(lambda: chain(daemon, "bsc").status == "unhealthy", "then unhealthy", 60)
    reason = chain(daemon, "bsc").reason
    assert reason is not None
    assert "no new block for" in reason
    simulator.turn({"bsc": {"halted": False}})
    until(lambda: chain(daemon, "bsc").status == "healthy", "and it recovers", 60)
    rows = [row for event in told(daemon, UPDATED[0]) for row in event["data"]["chains"] if row["chainSlug"] == "bsc"]
    words = [row["status"] for row in rows]
    assert [word for word, last in zip(words, [None, *words], strict=False) if word != last][-4:] == [
        "healthy", "degraded", "unhealthy", "healthy",
    ]  # fmt: skip


@pytest.mark.anvil
@pytest.mark.timeout(400)
def test_a_node_that_is_paused_makes_its_chain_unhealthy_until_it_goes_on(
    start_daemon: StartDaemon, simulator: SimulatorProcess, start_anvil: Callable[..., AnvilChain]
) -> None:
    node = start_anvil(CHAINS_BY_ID[8453], "--timestamp", str(int(time.time()) - 300))
    node.mine_spaced(150, 2)
    node.follow_the_clock(every_s=2)
    environ = {key: value for key, value in simulator.env.items() if not key.endswith("_WS_URL")}
    daemon = start_daemon({**environ, **FAST, "BASE_RPC_URL": node.url, "ALCHEMY_TIMEOUT": "500"})
    until(lambda: is_complete(daemon), "everything is measured", 60)
    assert chain(daemon, "base").block_time_s == pytest.approx(2, rel=0.01)
    os.kill(node.pid, signal.SIGSTOP)
    try:
        until(lambda: chain(daemon, "base").status == "degraded", "it is degraded first", 60)
        assert chain(daemon, "base").endpoints[0].outcome == "timeout"
        assert chain(daemon, "base").block_time_s == pytest.approx(2, rel=0.01), "what was measured stands"
        until(lambda: chain(daemon, "base").status == "unhealthy", "then unhealthy", 90)
        assert {row.status for row in overview(daemon).chains if row.slug != "base"} == {"healthy"}
    finally:
        os.kill(node.pid, signal.SIGCONT)
    until(
        lambda: chain(daemon, "base").status == "healthy", "and it recovers", 200, lambda: repr(chain(daemon, "base"))
    )


def test_what_a_metered_key_costs_is_shown(start_daemon: StartDaemon, start_simulator: Callable[..., Any]) -> None:
    simulator = start_simulator("--alchemy-key", "key-of-the-tests")
    environ = {key: value for key, value in simulator.env.items() if not key.endswith(("_RPC_URL", "_WS_URL"))}
    daemon = start_daemon({**environ, **FAST, "MOONXD_STATS__USE_ALCHEMY": "true"})
    until(lambda: len(overview(daemon).chains) == len(CHAINS), "chains were looked at", 60)
    costs = overview(daemon).costs
    assert len(costs) == len(CHAINS) + 1
    assert "key-of-the-tests" not in json.dumps(costs)
    assert f"cost: {costs[-1]}" in cli(daemon, "stats", "overview").stdout
    spent, budget = (int(word) for word in costs[-1].split() if word.isdigit())
    assert 0 < spent <= budget < 30_000_000 * 0.05 / 30


def test_a_restart_and_a_reload_keep_what_is_known(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    daemon = start_daemon({**simulator.env, **FAST})
    until(lambda: is_complete(daemon), "everything is measured", 60)
    names = {one.name for one in _breakers(daemon)}
    assert {"stats/lifi", "stats/relay", "stats/defillama"} <= names
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: "reloaded" in daemon.log(), "it reloaded")
    assert names <= {one.name for one in _breakers(daemon)}
    reported = len(told(daemon, *UPDATED))

    assert daemon.terminate() == 0
    daemon._environ |= {key: "0 0 0 1 1 *" for key in FAST if key.endswith("_INTERVAL")}
    daemon.start()
    assert rounds(daemon, "chain_performance") == 0
    found = overview(daemon)
    assert sorted(row.slug for row in found.chains if row.status == "healthy") == CHAINS
    assert all(row.block_time_s is not None for row in found.chains)
    assert len(told(daemon, *UPDATED)) == reported


def _breakers(daemon: DaemonProcess) -> Any:
    with daemon.client() as client:
        return client.call(calls.breakers()).breakers


@pytest.mark.redis
@pytest.mark.mongo
@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_one_of_two_daemons_collects_and_the_other_takes_over(
    start_daemon: StartDaemon, simulator: SimulatorProcess, start_redis: Callable[..., RedisServer], mongo_uri: str
) -> None:
    environ = {**simulator.env, **FAST, "REDIS_URL": start_redis().url, "MONGODB_URI": mongo_uri}
    north, south = (start_daemon({**environ, "MOONXD_DAEMON__WORKER_NAME": name}) for name in ("north", "south"))
    until(lambda: rounds(north, "chain_performance") >= 3, "the first one collects")
    assert rounds(south, "chain_performance") == 0
    assert not collectors(south)["chain_performance"].is_ours
    until(lambda: is_complete(south), "it shows what the other one found")
    assert "elsewhere" in cli(south, "stats", "overview").stdout
    north.kill()
    died = time.monotonic()
    until(lambda: rounds(south, "chain_performance") >= 1, "the other one takes over", 60)
    assert time.monotonic() - died < 45
    north.start()
    assert not collectors(north)["chain_performance"].is_ours
    assert south.terminate() == 0
    left = time.monotonic()
    until(lambda: rounds(north, "chain_performance") >= 1, "who stops leaves the office", 60)
    assert time.monotonic() - left < 25


def test_workers_leave_collecting_to_the_head(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    daemon = start_daemon({**simulator.env, **FAST}, "--workers", "2")
    until(lambda: is_complete(daemon), "the head collects", 60)
    snapshot = daemon.snapshot()
    assert snapshot is not None
    names = [child.name for child in snapshot.children]
    assert names.count("stats-chain-performance") == 1
    assert len([event for event in told(daemon, UPDATED[0]) if len(event["data"]["chains"]) == len(CHAINS)]) <= 2
    collecting = [key for key in metrics(daemon) if key[0] == "moonxd_stats_collections_total"]
    assert all(len(key) == 3 for key in collecting), "no worker counts rounds"
