"""Every kind of event there is, from one daemon on one topic of a real Kafka, each in its published form."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
import trio

from moonxd.adapters.bullmq.queue import BullQueue
from moonxd.adapters.redis.client import open_redis
from moonxd.adapters.redis.settings import parse_redis_url
from moonxd.api import calls
from moonxd.domain.events import EVENT_TYPES
from moonxd.domain.job import NewJob
from moonxd.domain.rebuild import rebuild
from tests.runtime.test_publishing_daemon import assert_in_the_contracts_form, records
from tests.services.daemon import DaemonProcess, StartDaemon, until
from tests.services.event_schemas import assert_valid
from tests.services.kafka import KafkaServer
from tests.services.simulator import SimulatorProcess

pytestmark = [pytest.mark.slow, pytest.mark.kafka]

TOPICS = ("PORTFOLIO_UPDATES", "SYNC_EVENTS", "SYSTEM_ALERTS", "USER_ACTIVITIES", "EVENTS")


def wallet(number: int) -> str:
    return f"0x{0xE0E0 + number:040x}"


def environ(kafka: KafkaServer, topic: str) -> dict[str, str]:
    return {
        "KAFKA_BROKERS": kafka.address(),
        **{f"KAFKA_TOPIC_{name}": topic for name in TOPICS},
        "MOONXD_KAFKA__GROUP": f"group-{uuid4()}",
        "MOONXD_RATE_LIMIT__ENABLED": "true",
        "MOONXD_RATE_LIMIT__ON_LIMIT": "reject",
        "WORKER_RATE_LIMIT_MAX": "2",
        "WORKER_RETRIES": "2",
        "WORKER_RETRY_DELAY": "100",
        "MOONXD_CHAINS__READ_TIMEOUT_S": "1",
        "MOONXD_ALERTS__MIN_JOBS": "1",
        "MOONXD_ALERTS__FAILED_SHARE": "0.05",
        "MOONXD_ALERTS__CLEARED_SHARE": "0.01",
        "CHAIN_PERFORMANCE_INTERVAL": "*/3 * * * * *",
        "BRIDGE_LATENCY_INTERVAL": "*/3 * * * * *",
        "STATS_COLLECTION_INTERVAL": "*/3 * * * * *",
    }


def act(daemon: DaemonProcess, simulator: SimulatorProcess) -> None:
    """What makes syncs end in every way."""
    assert daemon.wait(daemon.enqueue(wallet(1), "u1")).state == "completed"
    with daemon.client() as client:
        called_off = daemon.enqueue(wallet(2), "u2", delay=60_000)
        client.call(calls.cancel(called_off))
    simulator.turn({"ethereum": {"error_rate": 1.0}})
    failed = daemon.enqueue(wallet(3), "u3", chain_ids=(1,))
    assert daemon.wait(failed).state == "failed"
    simulator.turn({"ethereum": {"error_rate": 0.0}})
    limited = [daemon.enqueue(wallet(4 + number), "u4", delay=300) for number in range(2)]
    assert {daemon.wait(job).state for job in limited} == {"completed"}


def test_all_of_them_are_sent(
    start_daemon: StartDaemon,
    simulator: SimulatorProcess,
    kafka_server: KafkaServer,
    redis_url: str,
) -> None:
    topic = f"everything-{uuid4()}"
    daemon = start_daemon({**simulator.env, **environ(kafka_server, topic), "REDIS_URL": redis_url})
    act(daemon, simulator)
    reject(redis_url)
    # A round that gives nothing: its deadline passes.
    simulator.turn({"relay": {"hang_rate": 1.0}, "lifi": {"hang_rate": 1.0}})
    told: Counter[str] = Counter()

    def complete() -> bool:
        told.clear()
        told.update(str(dict(one.headers)["event-type"]) for one in records(kafka_server, topic))
        return set(told) >= set(EVENT_TYPES)

    until(complete, "each kind is on the topic", 90, lambda: f"missing: {set(EVENT_TYPES) - set(told)}")
    found = records(kafka_server, topic)
    decoded: list[dict[str, Any]] = [msgspec.json.decode(one.value or b"") for one in found]
    for record, body in zip(found, decoded, strict=True):
        assert_valid(body)
        assert_in_the_contracts_form(record)
        assert record.key == ("system" if body["type"].startswith(("stats.", "system.")) else body["userId"])
    assert len({one["metadata"]["eventId"] for one in decoded}) == len(decoded), "each once"

    def agrees() -> bool:
        rows = rebuild([one.value or b"" for one in sorted(records(kafka_server, topic), key=_sequence)])
        with daemon.client() as client:
            operations = client.call(calls.operations(limit=500)).operations
        return {str(key): row.status for key, row in rows.items()} == {str(one.id): one.status for one in operations}

    until(agrees, "the table follows from the topic", 30)
    # What we said ourselves of our users is no news to us: only the jobs' own words touched them.
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(daemon.socket)), base_url="http://moonxd") as client:
        page = client.get("/metrics").text
    heard = {line.split('"')[1] for line in page.splitlines() if line.startswith("moonxd_activity_messages_total{")}
    assert heard == {"ignored"}


def _sequence(record: Any) -> int:
    number: int = msgspec.json.decode(record.value)["metadata"]["sequence"]
    return number


def reject(redis_url: str) -> None:
    """A third sync of the user within the window, added by another program: our API refuses it before it is a job."""

    async def add() -> None:
        async with open_redis(parse_redis_url(redis_url)) as redis:
            queue = BullQueue(redis, "sync-jobs", worker_name="producer")
            data = {"userId": "u4", "walletAddress": wallet(9)}
            await queue.add([NewJob(name="sync-job", data=data, timestamp=int(time.time() * 1000))])

    trio.run(add)
