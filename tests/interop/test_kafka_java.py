"""Kafka's own Java clients beside ours: equal keys meet in one partition, and each reads what the other wrote."""

from __future__ import annotations

import uuid

import pytest
import trio

from moonxd.adapters.island.kafka.settings import KafkaSettings
from moonxd.adapters.island.kafka.sink import open_kafka_sink
from moonxd.adapters.island.kafka.topic import open_kafka_topic
from moonxd.adapters.island.loop import open_island
from moonxd.domain.message import Message, Received
from tests.services.kafka import KafkaServer

pytestmark = pytest.mark.kafka

PARTITIONS = 7
KEYS = [f"user-{n}" for n in range(80)] + ["système", "0x" + "ab" * 20]


async def test_a_java_producer_puts_each_key_where_we_do(kafka_server: KafkaServer) -> None:
    topic = f"java-{uuid.uuid4()}"
    await trio.to_thread.run_sync(kafka_server.create_topic, topic, PARTITIONS)
    lines = "".join(f"{key}|from java\n" for key in KEYS)
    options = ("--topic", topic, "--property", "parse.key=true", "--property", "key.separator=|")
    await trio.to_thread.run_sync(lambda: kafka_server.java("ConsoleProducer", *options, text=lines))
    settings = KafkaSettings(brokers=(kafka_server.address(),), connect_timeout_s=5.0, request_timeout_s=10.0)
    found: list[Received] = []
    async with open_island() as island, open_kafka_sink(island, settings) as sink:
        ours = {key: await sink.partition(topic, key) for key in KEYS}
        async with open_kafka_topic(island, settings, topic) as reader:
            while page := await reader.page():
                found += page
    assert {one.key: one.partition for one in found} == ours
    assert {one.value for one in found} == {b"from java"}


async def test_a_java_consumer_reads_what_we_wrote(kafka_server: KafkaServer) -> None:
    topic = f"java-{uuid.uuid4()}"
    settings = KafkaSettings(
        brokers=(kafka_server.address(),), connect_timeout_s=5.0, request_timeout_s=10.0, compression="zstd"
    )
    headers = (("content-type", "application/json"), ("event-id", "e-1"))
    async with open_island() as island, open_kafka_sink(island, settings) as sink:
        await sink.send([Message(topic=topic, key=key, value=b'{"a":1}', headers=headers) for key in KEYS])
    options = ["--topic", topic, "--from-beginning", "--max-messages", str(len(KEYS)), "--timeout-ms", "20000"]
    for shown in ("key", "headers"):
        options += ["--property", f"print.{shown}=true"]
    out = await trio.to_thread.run_sync(lambda: kafka_server.java("consumer.ConsoleConsumer", *options))
    told = "content-type:application/json,event-id:e-1"
    assert sorted(out.splitlines()) == sorted(f'{told}\t{key}\t{{"a":1}}' for key in KEYS)
