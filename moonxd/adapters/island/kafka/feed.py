"""ports.Feed: a member of a consumer group that commits only what it was told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import trio
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError

from ....domain.errors import Transient
from ....domain.message import Received
from ..loop import Island
from .ending import end_consumer
from .errors import mapped
from .reach import reach
from .received import poll
from .settings import KafkaSettings

_PAGE = 500
#: How soon a topic that is created later is noticed.
_METADATA_MS = 5_000


class KafkaFeed:
    """ports.Feed. Opened by `open_kafka_feed`."""

    def __init__(self, island: Island, consumer: AIOKafkaConsumer, settings: KafkaSettings, group: str) -> None:
        self._island = island
        self._consumer = consumer
        self._settings = settings
        self._where = f"{settings.where}, group {group}"
        #: The next offset of each partition of which something was handed out and not committed.
        self._done: dict[TopicPartition, int] = {}

    async def next(self, timeout: float) -> tuple[Received, ...]:
        page = await self._island.call(poll, self._consumer, timeout, _PAGE, self._where)
        for one in page:
            self._done[TopicPartition(one.topic, one.partition)] = one.offset + 1
        return page

    async def commit(self) -> None:
        if self._done:
            done = dict(self._done)
            await self._island.call(self._commit, done)
            # What `next` handed out meanwhile stays.
            self._done = {where: offset for where, offset in self._done.items() if done.get(where) != offset}

    async def _commit(self, done: dict[TopicPartition, int]) -> None:
        # A partition that went to another member is read again there, from what was committed before.
        ours = {where: offset for where, offset in done.items() if where in self._consumer.assignment()}
        try:
            async with asyncio.timeout(self._settings.answer_s):
                if ours:
                    await self._consumer.commit(ours)
        except (KafkaError, OSError, ConsumerStoppedError) as error:
            raise mapped(error, self._where) from error


@asynccontextmanager
async def open_kafka_feed(
    island: Island, settings: KafkaSettings, topics: Sequence[str], group: str
) -> AsyncIterator[KafkaFeed]:
    """A member of `group` for as long as the block; a new group begins with the oldest message. Does not wait for
    its share of the partitions: `next` does. Raises Transient or ConfigError when the cluster cannot be reached."""
    options = await settings.client_options()

    def make() -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            **options,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            metadata_max_age_ms=_METADATA_MS,
        )

    async def start(consumer: AIOKafkaConsumer) -> None:
        await consumer.start()
        consumer.subscribe(topics=list(topics))

    consumer: AIOKafkaConsumer = await island.call(reach, make, start, end_consumer, settings, options)
    try:
        yield KafkaFeed(island, consumer, settings, group)
    finally:
        with trio.CancelScope(shield=True), suppress(Transient):
            await island.call(end_consumer, consumer)
