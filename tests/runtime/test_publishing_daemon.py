"""A whole daemon beside a real Kafka: what it publishes, what a broker's death costs it, what it says about it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio

from moonxd.adapters.island.kafka.settings import KafkaSettings
from moonxd.adapters.island.kafka.topic import open_kafka_topic
from moonxd.adapters.island.loop import open_island
from moonxd.api import calls
from moonxd.api.schema import Child, Outbox
from moonxd.domain.message import Received
from moonxd.domain.partition import partition_of
from tests.chaos.world import assert_verified
from tests.services.daemon import DaemonProcess, StartDaemon, until
from tests.services.kafka import PARTITIONS, KafkaServer
from tests.services.simulator import SimulatorProcess

pytestmark = pytest.mark.slow


def wallet(number: int) -> str:
    return f"0x{0xFEED0000 + number:040x}"


async def _read(broker: str, topic: str) -> list[Received]:
    found: list[Received] = []
    settings = KafkaSettings(brokers=(broker,), request_timeout_s=15.0)
    async with open_island() as island, open_kafka_topic(island, settings, topic) as opened:
        while page := await opened.page():
            found += page
    return found


def records(kafka: KafkaServer, topic: str) -> list[Received]:
    return trio.run(_read, kafka.address(), topic)


def published(kafka: KafkaServer, topic: str) -> list[dict[str, Any]]:
    return [msgspec.json.decode(one.value) for one in records(kafka, topic) if one.value is not None]


def assert_in_the_contracts_form(record: Received) -> None:
    """Key, partition and headers say the same as the value."""
    value = msgspec.json.decode(record.value or b"")
    metadata = value["metadata"]
    assert record.key == value["userId"] == metadata["userId"]
    assert record.partition == metadata["partition"] == partition_of(record.key or "", PARTITIONS)
    assert dict(record.headers) == {
        "content-type": "application/json",
        "event-type": value["type"],
        "event-id": metadata["eventId"],
        "correlation-id": metadata["correlationId"],
        "source": "moonxd",
    }
    assert (metadata["eventType"], metadata["source"], metadata["dataClassification"]) == (
        value["type"], "moonxd", "internal",
    )  # fmt: skip
    assert {"eventVersion", "timestamp", "sourceVersion", "sequence"} <= set(metadata)


def outbox(daemon: DaemonProcess) -> Outbox | None:
    snapshot = daemon.snapshot()
    return snapshot.outbox if snapshot else None


def part(daemon: DaemonProcess, name: str) -> Child | None:
    snapshot = daemon.snapshot()
    return next((child for child in snapshot.children if child.name == name), None) if snapshot else None


def environ(kafka: KafkaServer, topic: str) -> dict[str, str]:
    return {"KAFKA_BROKERS": kafka.address(), "KAFKA_TOPIC_SYNC_EVENTS": topic, "MOONXD_KAFKA__LAG_ALERT_S": "3"}


@pytest.mark.parametrize("part", ["embedded", pytest.param("external", marks=pytest.mark.postgres)])
def test_what_the_last_job_told_leaves_with_the_daemon(
    start_daemon: StartDaemon,
    simulator: SimulatorProcess,
    kafka_server: KafkaServer,
    request: pytest.FixtureRequest,
    part: str,
) -> None:
    stores = {"DATABASE_URL": request.getfixturevalue("postgres_dsn")} if part == "external" else {}
    daemon = start_daemon({**simulator.env, **stores, **environ(kafka_server, f"syncs.{part}")})
    jobs = [daemon.enqueue(wallet(number)) for number in range(5)]
    for job in jobs:
        assert daemon.wait(job).state == "completed"
    assert daemon.terminate() == 0
    events = published(kafka_server, f"syncs.{part}")
    assert {one["walletAddress"] for one in events if one["type"] == "sync.completed"} == set(map(wallet, range(5)))
    for record in records(kafka_server, f"syncs.{part}"):
        assert_in_the_contracts_form(record)
    assert "publishing failed" not in daemon.log()


@pytest.mark.chaos
def test_jobs_go_on_without_a_broker_and_it_is_said(
    start_daemon: StartDaemon, simulator: SimulatorProcess, start_kafka: Callable[..., KafkaServer]
) -> None:
    kafka = start_kafka()
    daemon = start_daemon({**simulator.env, **environ(kafka, "syncs")})
    assert daemon.wait(daemon.enqueue(wallet(0))).state == "completed"
    until(lambda: (found := outbox(daemon)) and found.relay == "holding", "the relay works")
    kafka.kill()
    for number in range(1, 6):
        assert daemon.wait(daemon.enqueue(wallet(number))).state == "completed"

    def failing() -> bool:
        child, standing = part(daemon, "publisher"), outbox(daemon)
        return bool(child and child.state == "failing" and standing and standing.trouble and standing.unpublished)

    until(failing, "the publisher is shown as failing", 60)
    shown = subprocess.run(
        [sys.executable, "-m", "moonxd", "status", "--socket", str(daemon.socket)],
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    assert "events published here" in shown
    assert "Kafka at" in shown
    with daemon.client() as client:
        assert b'moonxd_child_up{child="publisher"} 0.0' in _metrics(daemon)

        def alerts() -> list[tuple[str, bool]]:
            page = client.call(calls.events(limit=1000))
            told = [msgspec.json.decode(bytes(one.body))["data"] for one in page.events if one.type == "system.alert"]
            return [(one["alertType"], one["metadata"]["raised"]) for one in told if "raised" in one["metadata"]]

        until(lambda: {("kafka_failing", True), ("outbox_lag", True)} <= set(alerts()), "both alerts are told", 30)
        kafka.start()
        until(lambda: {("kafka_failing", False), ("outbox_lag", False)} <= set(alerts()), "both are over", 60)
        until(lambda: client.call(calls.events(limit=1)).backlog == 0, "the outbox is empty")
    child = part(daemon, "publisher")
    assert child is not None
    assert child.state == "running"
    assert b'kafka_events_published_total{topic="syncs"}' in _metrics(daemon)
    wallets = {one["walletAddress"] for one in published(kafka, "syncs") if one["type"] == "sync.completed"}
    assert wallets == set(map(wallet, range(6)))
    assert [one["data"]["alertType"] for one in published(kafka, "system.alerts")].count("kafka_failing") == 2
    for record in records(kafka, "system.alerts"):
        assert record.key == "system"
        assert_in_the_contracts_form(record)
    assert_verified(daemon)


def _metrics(daemon: DaemonProcess) -> bytes:
    import httpx

    with httpx.Client(transport=httpx.HTTPTransport(uds=str(daemon.socket)), base_url="http://moonxd") as client:
        return client.get("/metrics").content


def test_workers_leave_publishing_to_the_head(
    start_daemon: StartDaemon, simulator: SimulatorProcess, kafka_server: KafkaServer
) -> None:
    daemon = start_daemon({**simulator.env, **environ(kafka_server, "syncs.workers")}, "--workers", "2")
    for job in [daemon.enqueue(wallet(number)) for number in range(20)]:
        assert daemon.wait(job).state == "completed"

    def done() -> bool:
        events = published(kafka_server, "syncs.workers")
        return {one["walletAddress"] for one in events if one["type"] == "sync.completed"} == set(
            map(wallet, range(20))
        )

    until(done, "all events are on the topic")
    snapshot = daemon.snapshot()
    assert snapshot is not None
    assert [child.name for child in snapshot.children if child.name.endswith("publisher")] == ["publisher"]
