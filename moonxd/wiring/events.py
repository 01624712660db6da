"""Kafka as the configuration describes it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

from ..adapters.island.kafka.settings import KafkaSettings
from ..adapters.island.kafka.sink import open_kafka_sink
from ..adapters.island.loop import Island
from ..adapters.island.shared import SharedIsland
from ..config import Config
from ..ports import Sink


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
    """A producer for as long as the block. Raises Transient while no broker answers, ConfigError when one refuses."""
    return open_kafka_sink(island, kafka_settings(config))


__all__ = ["SharedIsland", "kafka_settings", "open_sink", "sinks"]

OpenSink = Callable[[], AbstractAsyncContextManager[Sink]]


def sinks(config: Config, island: SharedIsland) -> Callable[[Callable[[OpenSink], Awaitable[None]]], Awaitable[None]]:
    """Runs work with a maker of producers, as long as `island` lives."""

    async def run(work: Callable[[OpenSink], Awaitable[None]]) -> None:
        await island.alongside(lambda current: work(partial(open_sink, config, current)))

    return run
