"""Kafka as the configuration describes it; what runs on it runs as long as the process's asyncio island lives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TypeVar

from ..adapters.island.kafka.feed import open_kafka_feed
from ..adapters.island.kafka.settings import KafkaSettings
from ..adapters.island.kafka.sink import open_kafka_sink
from ..adapters.island.kafka.topic import open_kafka_topic
from ..adapters.island.loop import Island
from ..adapters.island.shared import SharedIsland
from ..config import Config
from ..ports import Feed, Sink, Topic

T = TypeVar("T")
#: Runs work with a maker of clients.
With = Callable[[Callable[[Callable[[], AbstractAsyncContextManager[T]]], Awaitable[None]]], Awaitable[None]]


def sinks(config: Config, island: SharedIsland) -> With[Sink]:
    return lambda work: island.alongside(lambda current: work(partial(open_sink, config, current)))


def feeds(config: Config, island: SharedIsland) -> With[Feed]:
    return lambda work: island.alongside(lambda current: work(partial(open_feed, config, current)))


def kafka_settings(config: Config) -> KafkaSettings:
    kafka = config.kafka
    return KafkaSettings(
        brokers=kafka.brokers,
        client_id=kafka.client_id,
        mechanism=kafka.sasl_mechanism,
        username=kafka.username,
        password=kafka.password.reveal() if kafka.password is not None else None,
        tls=kafka.tls,
        tls_ca=str(kafka.tls_ca) if kafka.tls_ca else None,
        tls_cert=str(kafka.tls_cert) if kafka.tls_cert else None,
        tls_key=str(kafka.tls_key) if kafka.tls_key else None,
        connect_timeout_s=kafka.connect_timeout_s,
        request_timeout_s=kafka.request_timeout_s,
        compression=kafka.compression,
    )


def open_sink(config: Config, island: Island) -> AbstractAsyncContextManager[Sink]:
    """A producer as long as the block. Raises Transient while no broker answers, ConfigError when one refuses us."""
    return open_kafka_sink(island, kafka_settings(config))


def open_feed(config: Config, island: Island) -> AbstractAsyncContextManager[Feed]:
    """User activities, shared with the other daemons of kafka.group. Raises like `open_sink`."""
    kafka = config.kafka
    return open_kafka_feed(island, kafka_settings(config), (kafka.topics.user_activities,), kafka.group)


def open_topic(
    config: Config, island: Island, topic: str, *, since: float | None = None
) -> AbstractAsyncContextManager[Topic]:
    """What a topic holds, from its beginning or from the moment `since`. Raises like `open_sink`, and Permanent when
    there is no such topic."""
    return open_kafka_topic(island, kafka_settings(config), topic, since=since)
