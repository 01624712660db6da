"""Our side of the interop tests: a queue and a consumer whose handler is a few lines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from moonxd.adapters.bullmq.queue import BullQueue
from moonxd.adapters.redis.client import Redis, open_redis, parse_redis_url
from moonxd.domain.job import Completed, Job, JobOptions, Outcome
from moonxd.worker.consumer import Consumer
from tests.services.redis import RedisServer

ONCE = JobOptions(attempts=1)


def bull(redis: Redis, name: str = "q", **options: Any) -> BullQueue:
    return BullQueue(redis, name, **({"worker_name": "ours", "defaults": ONCE} | options))


@asynccontextmanager
async def our_queue(server: RedisServer, name: str = "q", **options: Any) -> AsyncIterator[BullQueue]:
    async with open_redis(parse_redis_url(server.url)) as redis:
        await redis.wait_connected()
        yield bull(redis, name, **options)


async def succeed(job: Job) -> Outcome:
    await trio.lowlevel.checkpoint()
    return Completed(b'{"by":"moonxd","data":' + job.data + b"}")


@asynccontextmanager
async def working(
    queue: BullQueue, handler: Callable[[Job], Awaitable[Outcome]] = succeed, **options: Any
) -> AsyncIterator[tuple[Consumer, list[tuple[str, Outcome | None]]]]:
    """A consumer at work; the list collects (job id, outcome) of settled jobs."""
    told: list[tuple[str, Outcome | None]] = []
    options = {"slots": 10} | options
    consumer = Consumer(queue, handler, on_settled=lambda job, outcome, _: told.append((job.id, outcome)), **options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(consumer.run)
        yield consumer, told
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 (what is waited for happens in other processes)
            await trio.sleep(0.01)


async def until_counts(queue: BullQueue, condition: Callable[[Any], object], seconds: float = 30.0) -> Any:
    with trio.fail_after(seconds):
        while not condition(counts := await queue.counts()):  # noqa: ASYNC110 (as above)
            await trio.sleep(0.02)
    return counts
