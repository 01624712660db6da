"""Our worker as a contender of benchmarks/queue.py: JSON commands on stdin, JSON answers on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import trio

from moonxd import garbage
from moonxd.adapters.bullmq.queue import BullQueue
from moonxd.adapters.redis.client import Redis, open_redis, parse_redis_url
from moonxd.agents.stalled import run_stalled_checker
from moonxd.domain.job import Completed, Job, JobOptions, Outcome
from moonxd.worker.consumer import Consumer

_NULL = Completed(b"null")


def answer(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def _nothing(_job: Job, _outcome: Outcome | None, _seconds: float) -> None:
    return None


async def drain(redis: Redis, command: dict[str, Any]) -> dict[str, Any]:
    left, done = command["jobs"], trio.Event()

    async def handler(_job: Job) -> Outcome:
        return _NULL

    def settled(_job: Job, _outcome: Outcome | None, _seconds: float) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            done.set()

    began, spent = time.perf_counter(), time.process_time()
    await work(redis, command, handler, settled, done)
    return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - spent}


async def pickup(redis: Redis, command: dict[str, Any]) -> dict[str, Any]:
    latencies: list[float] = []
    done = trio.Event()

    async def handler(job: Job) -> Outcome:
        latencies.append(time.time() * 1000 - msgspec.json.decode(job.data)["sent"])
        if len(latencies) == command["jobs"]:
            done.set()
        return _NULL

    await work(redis, command, handler, _nothing, done, lambda: answer({"ready": True}))
    return {"latencies": latencies}


async def work(
    redis: Redis,
    command: dict[str, Any],
    handler: Callable[[Job], Any],
    settled: Callable[[Job, Outcome | None, float], None],
    done: trio.Event,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Everything that the daemon runs around a queue: consumer, lock renewal, stalled check."""
    queue = BullQueue(redis, command["queue"], worker_name="moonxd", defaults=JobOptions(attempts=1))
    consumer = Consumer(queue, handler, slots=command["concurrency"], on_settled=settled)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(consumer.run, ready)
        nursery.start_soon(run_stalled_checker, queue)
        await done.wait()
        await consumer.drain(5)
        nursery.cancel_scope.cancel()


async def main(url: str) -> None:
    async with open_redis(parse_redis_url(url)) as redis:
        await redis.wait_connected()
        garbage.settle()  # as the daemon does
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            command = json.loads(line)
            answer(await {"drain": drain, "pickup": pickup}[command["do"]](redis, command))


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
