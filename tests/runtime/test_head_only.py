"""Of a daemon with worker processes only the head publishes, listens, collects, serves lists and browsers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from moonxd.api import calls
from moonxd.api.client import Client
from tests.control.live_harness import SECRET
from tests.services import free_port
from tests.services.daemon import StartDaemon, until
from tests.services.kafka import KafkaServer
from tests.services.redis import RedisServer
from tests.services.simulator import SimulatorProcess

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.redis]

ONCE_FOR_ALL = {"publisher", "outbox", "activities", "core-service", "island", "scheduler"}
WALLETS = [f"0x{number * 104_729:040x}" for number in range(1, 21)]
PREFIX = "moonx:sync-proxy:"


def parts(socket: Path) -> set[str]:
    with Client(socket) as client:
        return {child.name for child in client.call(calls.status()).children}


def asked_for_browsers(socket: Path) -> int:
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://moonxd") as client:
        return client.get("/v1/ws", headers=headers | {"Sec-WebSocket-Key": "x" * 22 + "=="}).status_code


def members(kafka: KafkaServer, group: str) -> int:
    async def ask(admin: Any) -> int:
        (answer,) = await admin.describe_consumer_groups([group])
        return len(answer.groups[0][5])

    return int(kafka.ask(ask))


def test_what_happens_once_for_all_happens_in_the_head(
    start_daemon: StartDaemon,
    simulator: SimulatorProcess,
    kafka_server: KafkaServer,
    redis_server: RedisServer,
    redis_url: str,
) -> None:
    group, topic = f"group-{uuid4()}", f"syncs-{uuid4()}"
    environ = {
        "REDIS_URL": redis_url,
        "KAFKA_BROKERS": kafka_server.address(),
        "KAFKA_TOPIC_SYNC_EVENTS": topic,
        "MOONXD_KAFKA__GROUP": group,
        "MOONXD_CORE_SERVICE__ENABLED": "true",
        "MOONXD_LIVE__HS256_SECRET": SECRET,
        "CHAIN_PERFORMANCE_INTERVAL": "*/2 * * * * *",
        "PORT": str(free_port()),
        "WORKER_STATS_INTERVAL": "500",
        "MOONXD_DAEMON__WORKER_NAME": "box",
    }
    daemon = start_daemon({**simulator.env, **environ}, "--workers", "2")
    workers = [daemon.state / "workers" / f"{number}.sock" for number in (1, 2)]
    until(lambda: all(socket.exists() for socket in workers), "both workers listen")
    assert parts(daemon.socket) >= ONCE_FOR_ALL
    collecting = {name for name in parts(daemon.socket) if name.startswith(("stats", "chain", "bridge"))} - {"chains"}
    for socket in workers:
        assert parts(socket) & (ONCE_FOR_ALL | collecting) == set()
        assert "consumer" in parts(socket)
        assert asked_for_browsers(socket) == 503, "browsers come to the head"

    for job in [daemon.enqueue(wallet) for wallet in WALLETS]:
        assert daemon.wait(job).state == "completed"
    request = {"type": "sync_status", "data": {"userId": "u1", "walletAddress": WALLETS[0]}, "timestamp": 1,
               "responseQueue": "sync:responses:1"}  # fmt: skip
    redis_server.command("LPUSH", f"{PREFIX}sync:status", json.dumps(request))
    reply = f"{PREFIX}sync:responses:1"
    until(lambda: redis_server.command("LLEN", reply), "the list is served")
    assert json.loads(redis_server.command("LINDEX", reply, 0))["syncStatus"] == "current"
    assert redis_server.command("ZCARD", f"{PREFIX}sync:owners") == 1
    until(lambda: members(kafka_server, group) == 1, "one member reads user.activities", 60)

    def samples(name: str) -> dict[str, float]:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(daemon.socket)), base_url="http://moonxd") as client:
            page = client.get("/metrics").text
        return {
            line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
            for line in page.splitlines()
            if line.startswith(name)
        }

    until(lambda: any(samples("moonxd_stats_collections_total").values()), "statistics are collected", 60)
    until(lambda: any(samples("kafka_events_published_total").values()), "events are published", 60)
    for name in (
        "kafka_events_published_total",
        "moonxd_stats_collections_total",
        "moonxd_core_service_requests_total",
    ):
        assert all('worker="box-' not in sample for sample in samples(name)), samples(name)
    until(
        lambda: [value for value in samples("moonxd_publisher_holding").values() if value] == [1.0],
        "one publishes, and says so at its next look",
    )
