"""ports.Topic: what a topic holds, read without a group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from ....domain.errors import Permanent, Transient
from ....domain.message import Received
from ..loop import Island
from .ending import end_consumer
from .errors import mapped
from .reach import reach
from .received import poll
from .settings import KafkaSettings

_PAGE = 1000


class KafkaTopic:
    """ports.Topic. Opened by `open_kafka_topic`."""

    def __init__(
        self, island: Island, consumer: AIOKafkaConsumer, settings: KafkaSettings, topic: str, ends: dict[int, int]
    ) -> None:
        self._island = island
        self._consumer = consumer
        self._settings = settings
        self._where = f"{settings.where}, topic {topic}"
        #: Partition -> the offset behind what was there when reading began; those that are read so far are gone.
        self._ends = ends
        #: What `page` met behind those ends.
        self._later: list[Received] = []

    async def page(self) -> tuple[Received, ...]:
        return await self._island.call(self._bounded) if self._ends else ()

    async def next(self, timeout: float) -> tuple[Received, ...]:
        if self._later:
            await trio.lowlevel.checkpoint()
            later, self._later = tuple(self._later), []
            return later
        return await self._island.call(poll, self._consumer, timeout, _PAGE, self._where)

    async def _bounded(self) -> tuple[Received, ...]:
        """The next page of what was there: one partition may be past its end while another is not."""
        deadline = asyncio.get_running_loop().time() + self._settings.answer_s
        while self._ends:
            ends = dict(self._ends)
            page = await poll(self._consumer, min(0.2, self._settings.answer_s), _PAGE, self._where)
            await self._forget_read()
            wanted = tuple(one for one in page if one.offset < ends.get(one.partition, 0))
            self._later += [one for one in page if one.offset >= ends.get(one.partition, 0)]
            if wanted:
                return wanted
            if asyncio.get_running_loop().time() > deadline:
                raise Transient(f"{self._where} stopped answering before its end: partitions {sorted(self._ends)}")
        return ()

    async def _forget_read(self) -> None:
        # By position, not by message: behind the last one there may be marks of transactions.
        for where in self._consumer.assignment():
            if await self._consumer.position(where) >= self._ends.get(where.partition, 0):
                self._ends.pop(where.partition, None)


@asynccontextmanager
async def open_kafka_topic(
    island: Island, settings: KafkaSettings, topic: str, *, since: float | None = None
) -> AsyncIterator[KafkaTopic]:
    """`topic` from its beginning, or from what was written at `since` (seconds since the epoch) or later.

    Raises Permanent when there is no such topic, Transient or ConfigError when the cluster cannot be reached.
    """
    options = await settings.client_options()
    ends: dict[int, int] = {}

    async def start(consumer: AIOKafkaConsumer) -> None:
        await consumer.start()
        ends.update(await _begin(consumer, topic, since, f"{settings.where}, topic {topic}"))

    def make() -> AIOKafkaConsumer:
        return AIOKafkaConsumer(**options, enable_auto_commit=False, auto_offset_reset="earliest")

    consumer: AIOKafkaConsumer = await island.call(reach, make, start, end_consumer, settings, options)
    try:
        yield KafkaTopic(island, consumer, settings, topic, ends)
    finally:
        with trio.CancelScope(shield=True), suppress(Transient):
            await island.call(end_consumer, consumer)


async def _begin(consumer: AIOKafkaConsumer, topic: str, since: float | None, where: str) -> dict[int, int]:
    """Take all partitions and go to the first message wanted; the end of each that has any."""
    try:
        # Asked for by name it would be created.
        if topic not in await consumer.topics():
            raise Permanent(f"{where}: there is no such topic")
        consumer.subscribe([topic])
        while not (assigned := consumer.assignment()):  # noqa: ASYNC110 (aiokafka tells nobody)
            await asyncio.sleep(0.005)
        ends: dict[TopicPartition, int] = await consumer.end_offsets(assigned)
        starts: dict[TopicPartition, int] = await consumer.beginning_offsets(assigned)
        if since is not None:
            found = await consumer.offsets_for_times(dict.fromkeys(assigned, round(since * 1000)))
            starts = {one: found[one].offset if found.get(one) else ends[one] for one in assigned}
        for one in assigned:
            consumer.seek(one, starts[one])
    except KafkaError as error:
        raise mapped(error, where) from error
    return {one.partition: end for one, end in ends.items() if starts[one] < end}
