"""Ending aiokafka's clients in bounded time: left alone, one whose broker is gone waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

_STOP_S = 1.5
_FORCE_S = 0.5


async def end_producer(producer: AIOKafkaProducer) -> None:
    """Flush and close; what a broker that is gone did not take in time is given up."""
    if not await _within(_STOP_S, producer.stop()):
        # stop() waits for a flush that cannot come; these are the steps behind it.
        await _within(_FORCE_S, producer._sender.close())
        await _within(_FORCE_S, producer.client.close())


async def end_consumer(consumer: AIOKafkaConsumer) -> None:
    """Leave the group and close; a broker that is gone finds out by itself."""
    if not await _within(_STOP_S, consumer.stop()):
        await _within(_FORCE_S, consumer._client.close())


async def _within(seconds: float, work: Coroutine[Any, Any, object]) -> bool:
    """Whether `work` ended in time, whichever way; if not it is cancelled, and has `_FORCE_S` to unwind."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(_look_at)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.cancel()
        await asyncio.wait({task}, timeout=_FORCE_S)
    return bool(done)


def _look_at(task: asyncio.Future[Any]) -> None:
    """Fetch an error that nobody else will, or asyncio complains about it."""
    if not task.cancelled():
        task.exception()
