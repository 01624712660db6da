"""ports.Sink on one idempotent producer: every message acknowledged by all replicas, in order per key.

The producer tries for ever, which is what keeps its sequence whole. So a send that ran out of time leaves its messages
with it: they are remembered, and sending them again waits for those instead of queueing copies. Nothing piles up while
a broker is away, and a batch that was only late arrives once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import trio
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError

from ....domain.errors import SinkBroken, Transient, Undeliverable
from ....domain.message import Message
from ....domain.partition import partition_of
from ..loop import Island
from .ending import end_producer
from .errors import TOO_LARGE, mapped
from .reach import reach
from .settings import KafkaSettings

#: How long a count of partitions is believed.
_COUNT_S = 60.0
#: A batch that the broker owes us for this long is taken as lost with its producer.
_STUCK_S = 120.0
_LINGER_MS = 2
#: Far below a broker's usual limit (1 MB), so that a batch that is too large for it holds one message only.
_BATCH_BYTES = 64 * 1024
#: The largest request that a broker reads; the limit of a single message is the broker's affair.
_REQUEST_BYTES = 32 * 1024 * 1024

_Delivery = asyncio.Future[object]


class KafkaSink:
    """ports.Sink. Opened by `open_kafka_sink`."""

    def __init__(self, island: Island, producer: AIOKafkaProducer, settings: KafkaSettings) -> None:
        self._island = island
        self._producer = producer
        self._settings = settings
        self._turn = trio.Lock()
        self._counts: dict[str, tuple[float, int]] = {}
        # Below: the loop's.
        self._owed: dict[Message, _Delivery] = {}
        self._owed_since: float | None = None
        self._broken: str | None = None

    async def partition(self, topic: str, key: str) -> int:
        known = self._counts.get(topic)
        if known is None or known[0] <= trio.current_time():
            count = await self._island.call(self._count, topic)
            known = self._counts[topic] = trio.current_time() + _COUNT_S, count
        return partition_of(key, known[1])

    async def send(self, messages: Sequence[Message]) -> None:
        if messages:
            async with self._turn:
                try:
                    await self._island.call(self._send, tuple(messages))
                except Transient:
                    self._counts.clear()  # the topic may have been made anew
                    raise

    # ---- on the loop

    async def _count(self, topic: str) -> int:
        try:
            async with asyncio.timeout(self._settings.answer_s):
                return len(await self._producer.partitions_for(topic))
        except (KafkaError, OSError) as error:
            raise mapped(error, f"{self._settings.where}, topic {topic}") from error

    async def _send(self, messages: tuple[Message, ...]) -> None:
        if self._broken is not None:
            raise SinkBroken(self._broken)
        deliveries: list[_Delivery] = []
        try:
            async with asyncio.timeout(self._settings.answer_s):
                for message in messages:  # not all at once: out of time, what was handed over is in the list
                    deliveries.append(self._owed.get(message) or await self._hand_over(message))  # noqa: PERF401
                await asyncio.wait(deliveries)
        except (TimeoutError, KafkaTimeoutError) as error:
            self._judge(messages, deliveries)
            raise self._overdue(messages, deliveries) from error
        except KafkaError as error:
            raise self._refused(error) from error
        self._judge(messages, deliveries)
        for message in messages:
            self._owed.pop(message, None)
        # Whoever never came back for a message that has arrived meanwhile will not.
        self._owed = {message: one for message, one in self._owed.items() if not one.done()}
        self._owed_since = None

    async def _hand_over(self, message: Message) -> _Delivery:
        headers = [(name, value.encode()) for name, value in message.headers]
        try:
            delivery: _Delivery = await self._producer.send(
                message.topic, message.value, message.key.encode(), message.partition, headers=headers
            )
        except AssertionError as error:
            place = f"{self._settings.where}: topic {message.topic}"
            raise Transient(f"{place} has no partition {message.partition} (any more)") from error
        delivery.add_done_callback(_retrieved)
        self._owed[message] = delivery
        return delivery

    def _judge(self, messages: tuple[Message, ...], deliveries: list[_Delivery]) -> None:
        """Raise what the failed ones among the settled deliveries mean."""
        failed = {n: error for n, one in enumerate(deliveries) if one.done() and (error := one.exception())}
        if not failed:
            return
        # A batch that failed leaves a hole in the sequence of its partition: the next one would be out of order.
        first = next(iter(failed.values()))
        self._broken = str(mapped(first, f"{self._settings.where}, topic {messages[next(iter(failed))].topic}"))
        too_large = [n for n, error in failed.items() if isinstance(error, TOO_LARGE)]
        if not too_large:
            raise SinkBroken(self._broken) from first
        raise self._too_large(messages, too_large) from first

    def _too_large(self, messages: tuple[Message, ...], failed: list[int]) -> Exception:
        topic, place = messages[failed[0]].topic, self._settings.where
        # Brokers judge batches. One this large holds a single message; a smaller one may hold many that are innocent.
        alone = tuple(n for n in failed if len(messages[n].value) > _BATCH_BYTES)
        if not alone:
            return SinkBroken(
                f"{place}: topic {topic} takes less than {_BATCH_BYTES} bytes: raise its max.message.bytes"
            )
        sizes = ", ".join(str(len(messages[n].value)) for n in alone)
        return Undeliverable(
            f"{place} does not take a message of {sizes} bytes for topic {topic}: raise its max.message.bytes",
            positions=alone,
        )

    def _refused(self, error: KafkaError) -> Exception:
        """It was not even queued: an answer about the topic, or the producer's last word."""
        if type(error) is KafkaError:  # its sending task has died
            self._broken = f"{self._settings.where}: the producer has failed ({error})"
            return SinkBroken(self._broken)
        ours = mapped(error, self._settings.where)
        if isinstance(ours, SinkBroken):
            self._broken = str(ours)
        return ours

    def _overdue(self, messages: tuple[Message, ...], deliveries: list[_Delivery]) -> Exception:
        now = asyncio.get_running_loop().time()
        self._owed_since = self._owed_since or now
        missing = len(messages) - sum(one.done() for one in deliveries)
        what = (
            f"{self._settings.where} has not acknowledged {missing} of {len(messages)} messages "
            f"after {self._settings.answer_s:g} s"
        )
        if now - self._owed_since < _STUCK_S:
            return Transient(what)
        self._broken = what
        return SinkBroken(what)


def _retrieved(delivery: _Delivery) -> None:
    """Look at its error, or asyncio complains about those of which nobody asks any more."""
    if not delivery.cancelled():
        delivery.exception()


@asynccontextmanager
async def open_kafka_sink(island: Island, settings: KafkaSettings) -> AsyncIterator[KafkaSink]:
    """One producer for as long as the block. Raises Transient or ConfigError when it cannot be had."""
    options = await settings.client_options()

    async def start() -> AIOKafkaProducer:
        return await reach(
            lambda: producer_of(settings, options), AIOKafkaProducer.start, end_producer, settings, options
        )

    producer = await island.call(start)
    try:
        yield KafkaSink(island, producer, settings)
    finally:
        with trio.CancelScope(shield=True), suppress(Transient):
            await island.call(end_producer, producer)


def producer_of(settings: KafkaSettings, options: dict[str, object]) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        **options,
        acks="all",
        enable_idempotence=True,
        compression_type=settings.codec,
        linger_ms=_LINGER_MS,
        max_batch_size=_BATCH_BYTES,
        max_request_size=_REQUEST_BYTES,
        metadata_max_age_ms=int(_COUNT_S * 1000),
    )
