"""What a consumer hands out, as ours."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import ConsumerStoppedError, KafkaError

from ....domain.message import Received
from .errors import mapped


async def poll(consumer: AIOKafkaConsumer, timeout: float, most: int, where: str) -> tuple[Received, ...]:
    """Up to `most` messages, in order per partition; none after `timeout` seconds. Cancelled, it took none."""
    try:
        # aiokafka's own timeout does not count waiting for our share of the partitions.
        async with asyncio.timeout(timeout):
            pages = await consumer.getmany(timeout_ms=int(timeout * 1000) + 1000, max_records=most)
    except TimeoutError:
        return ()
    except (KafkaError, OSError, ConsumerStoppedError) as error:
        raise mapped(error, where) from error
    return tuple(received(record) for page in pages.values() for record in page)


def received(record: Any) -> Received:
    return Received(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp / 1000,
        key=None if record.key is None else record.key.decode("utf-8", "replace"),
        value=record.value,
        headers=tuple((name, (value or b"").decode("utf-8", "replace")) for name, value in record.headers),
    )
