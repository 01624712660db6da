"""Where a daemon's statistics go: a real MongoDB, also one that is killed, and a real Kafka."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from tests.runtime.test_publishing_daemon import published
from tests.runtime.test_statistics_daemon import CHAINS, FAST, chain, is_complete, metrics, rounds, told
from tests.services.daemon import DaemonProcess, StartDaemon, until
from tests.services.event_schemas import assert_valid
from tests.services.kafka import KafkaServer
from tests.services.mongo import MongoServer
from tests.services.simulator import SimulatorProcess

pytestmark = pytest.mark.slow

Client = MongoClient[dict[str, Any]]


def waiting(daemon: DaemonProcess) -> float:
    return metrics(daemon)["moonxd_stats_samples_waiting",]


@pytest.mark.mongo
def test_readers_find_their_documents(
    start_daemon: StartDaemon, simulator: SimulatorProcess, mongo_uri: str, mongo_client: Client
) -> None:
    daemon = start_daemon({**simulator.env, **FAST, "MONGODB_URI": mongo_uri})
    until(lambda: is_complete(daemon), "everything is measured", 60, lambda: daemon.log()[-3000:])
    found = mongo_client.get_default_database()
    until(
        lambda: found["statsoverviews"].find_one({"isLatest": True, "healthStatus": "healthy"}), "the overview is there"
    )
    chains = {row["chainSlug"]: row for row in found["chainstats"].find()}
    assert sorted(chains) == CHAINS
    assert chains["ethereum"]["chainId"] == 1
    assert chains["ethereum"]["blockTime"]["current"] == pytest.approx(12, rel=0.01)
    assert {row["status"] for row in chains.values()} == {"healthy"}
    assert {row["provider"] for row in found["bridgestats"].find()} == {"LI.FI", "Relay.link", "1inch"}
    until(lambda: found["chainstats_history"].count_documents({}) >= 2 * len(CHAINS), "there is a history")
    for name in ("chainstats_history", "bridgestats_history", "statsoverviews"):
        assert any("expireAfterSeconds" in index for index in found[name].index_information().values()), name
    assert not (daemon.state / "statistics.db").exists()


def test_without_mongodb_they_are_in_a_file(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    daemon = start_daemon({**simulator.env, **FAST})
    until(lambda: rounds(daemon, "chain_performance") >= 2, "something was measured", 60)
    assert Path(daemon.state / "statistics.db").exists()


@pytest.mark.mongo
@pytest.mark.chaos
@pytest.mark.timeout(300)
def test_a_mongodb_that_is_killed_stops_nothing_and_gets_what_it_missed(
    start_daemon: StartDaemon, simulator: SimulatorProcess, start_mongo: Callable[..., MongoServer]
) -> None:
    server = start_mongo("--sync-on-commit")
    daemon = start_daemon({**simulator.env, **FAST, "MONGODB_URI": f"{server.uri()}?connectTimeoutMS=500"})
    until(lambda: is_complete(daemon), "everything is measured", 60)
    server.kill()
    before, head = rounds(daemon, "chain_performance"), chain(daemon, "bsc").head
    assert head is not None
    until(lambda: rounds(daemon, "chain_performance") >= before + 3, "collecting goes on", 60)
    until(lambda: waiting(daemon) >= 2 * len(CHAINS), "samples wait", 60)
    assert (chain(daemon, "bsc").head or 0) > head, "operators see what was measured meanwhile"
    server.start()
    until(lambda: waiting(daemon) == 0, "what waited is written", 90)
    snapshot = daemon.snapshot()
    assert snapshot is not None
    assert {child.name: child.restarts for child in snapshot.children if child.restarts} == {}
    assert daemon.terminate() == 0
    with Client(server.uri()) as client:
        history = client.get_default_database()["chainstats_history"]
        looks = history.count_documents({"chainId": 56})
        assert looks >= before + 3
        assert history.count_documents({}) == looks * len(CHAINS)


@pytest.mark.kafka
def test_events_reach_their_topic_and_the_websocket_services(
    start_daemon: StartDaemon, simulator: SimulatorProcess, kafka_server: KafkaServer
) -> None:
    environ = {
        "KAFKA_BROKERS": kafka_server.address(),
        "MOONXD_KAFKA__TOPICS__STATS_EVENTS": "statistics.told",
        "MOONXD_KAFKA__WEBSOCKET_TOPIC": "statistics.shown",
    }
    daemon = start_daemon({**simulator.env, **FAST, **environ})
    until(lambda: is_complete(daemon), "everything is measured", 60, lambda: daemon.log()[-3000:])
    simulator.turn({"lifi": {"error_rate": 1.0}})
    until(
        lambda: any("unhealthy" in json.dumps(one["data"]) for one in told(daemon, "stats.bridge_latency_updated")),
        "a change is told", 60,
    )  # fmt: skip
    committed = told(daemon)
    assert daemon.terminate() == 0

    events = published(kafka_server, "statistics.told")
    for event in events:
        assert_valid(event)
    assert {one["metadata"]["eventId"] for one in committed} <= {one["metadata"]["eventId"] for one in events}
    assert {
        "stats.chain_performance_updated", "stats.bridge_latency_updated", "stats.overview_updated",
        "stats.collection_started", "stats.collection_completed",
    } <= {one["type"] for one in events}  # fmt: skip
    assert {one["userId"] for one in events} == {"system"}

    shown = published(kafka_server, "statistics.shown")
    assert {one["type"] for one in shown} == {"moonx.ws.chain_stats", "moonx.ws.bridge_stats"}
    ethereum = next(one for one in shown if one.get("chainId") == 1)
    assert set(ethereum) == {"type", "chainId", "chainName", "stats", "timestamp"}
    assert ethereum["stats"]["blockTime"]["current"] is None or ethereum["stats"]["blockTime"]["current"] > 0
    fallen = [one["stats"]["status"] for one in shown if one.get("provider") == "LI.FI"]
    assert fallen[0] == "healthy"
    assert fallen[-1] == "unhealthy"
