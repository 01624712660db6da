"""Messages through the sink beside plain aiokafka, interleaved in one run against one Apache Kafka.

    python -m benchmarks.kafka [--messages 20000] [--rounds 5] [--batch 500] [--size 700] [--json]

Both send the same batches one after the other, each once the one before it is acknowledged, with the same idempotent
producer. Printed: messages/s and CPU of this process per message, and the ratio of the sink to the plain producer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import trio
from aiokafka import AIOKafkaProducer

from benchmarks.stats import ratios, spread
from moonxd.adapters.island.kafka.settings import KafkaSettings
from moonxd.adapters.island.kafka.sink import open_kafka_sink, producer_of
from moonxd.adapters.island.loop import open_island
from moonxd.domain.message import Message
from tests.services.kafka import KafkaServer

#: Batches before anything is measured.
_WARM_UP = 4


class Run(NamedTuple):
    """One measurement."""

    per_second: float
    cpu_us: float


class Clock:
    """Wall and CPU time since it was made, per message."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self, messages: int) -> Run:
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        return Run(messages / wall, cpu / messages * 1e6)


def batches(topic: str, messages: int, batch: int, size: int) -> list[list[Message]]:
    value = json.dumps({"type": "sync.completed", "data": "x" * size}).encode()[:size]
    names = (("content-type", "application/json"), ("event-type", "sync.completed"), ("source", "moonxd"))

    def page(first: int) -> Iterator[Message]:
        for number in range(first, min(first + batch, messages)):
            headers = (*names, ("event-id", str(number)))
            yield Message(topic=topic, key=f"user-{number % 1000}", value=value, headers=headers)

    return [list(page(first)) for first in range(0, messages, batch)]


async def plain(settings: KafkaSettings, pages: Sequence[Sequence[Message]]) -> Run:
    options = {
        "bootstrap_servers": list(settings.brokers),
        "client_id": settings.client_id,
        "request_timeout_ms": int(settings.request_timeout_s * 1000),
    }
    producer: AIOKafkaProducer = producer_of(settings, options)
    await producer.start()
    try:
        for page in pages[:_WARM_UP]:
            await _send(producer, page)
        clock = Clock()
        for page in pages:
            await _send(producer, page)
        return clock.read(sum(map(len, pages)))
    finally:
        await producer.stop()


async def _send(producer: AIOKafkaProducer, page: Sequence[Message]) -> None:
    deliveries = []
    for one in page:
        headers = [(name, value.encode()) for name, value in one.headers]
        deliveries.append(await producer.send(one.topic, one.value, one.key.encode(), headers=headers))
    await asyncio.gather(*deliveries)


async def ours(settings: KafkaSettings, pages: Sequence[Sequence[Message]]) -> Run:
    async with open_island() as island, open_kafka_sink(island, settings) as sink:
        for page in pages[:_WARM_UP]:
            await sink.send(page)
        clock = Clock()
        for page in pages:
            await sink.send(page)
        return clock.read(sum(map(len, pages)))


def measure(messages: int, rounds: int, batch: int, size: int) -> dict[str, Any]:
    found: dict[str, list[Run]] = {"sink": [], "aiokafka": []}
    with tempfile.TemporaryDirectory() as directory:
        server = KafkaServer(Path(directory))
        settings = KafkaSettings(brokers=(server.address(),), connect_timeout_s=10.0, request_timeout_s=20.0)
        try:
            for number in range(rounds):
                topic = f"bench-{uuid.uuid4()}"
                server.create_topic(topic)
                pages = batches(topic, messages, batch, size)
                # Whoever is second finds a warmer broker: they take turns.
                for kind in ("sink", "aiokafka") if number % 2 else ("aiokafka", "sink"):
                    run = trio.run(ours, settings, pages) if kind == "sink" else asyncio.run(plain(settings, pages))
                    found[kind].append(run)
        finally:
            server.kill()
    report: dict[str, Any] = {
        kind: {"per_s": spread((r.per_second for r in runs), 0), "cpu_us": spread((r.cpu_us for r in runs), 1)}
        for kind, runs in found.items()
    }
    pairs = [[r.per_second for r in found[kind]] for kind in ("sink", "aiokafka")]
    return {**report, "ratio": ratios(*pairs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--size", type=int, default=700)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    report = measure(given.messages, given.rounds, given.batch, given.size)
    if given.json:
        print(json.dumps(report, default=str))
        return
    for kind in ("sink", "aiokafka"):
        print(f"{kind:<10}{report[kind]['per_s']} messages/s, {report[kind]['cpu_us']} us CPU each")
    print(f"{'ratio':<10}{report['ratio']}")


if __name__ == "__main__":
    main()
