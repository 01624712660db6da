"""A worker process of ours for tests that need several, or one to kill: python -m tests.interop.our_worker URL [ms].

Prints the id of every job when its handler starts; a job takes [ms] milliseconds. SIGTERM drains for 0.2 s.
"""

from __future__ import annotations

import signal
import sys

import trio

from moonxd.adapters.bullmq.queue import BullQueue
from moonxd.adapters.redis.client import open_redis, parse_redis_url
from moonxd.agents.stalled import run_stalled_checker
from moonxd.domain.job import Completed, Job, JobOptions, Outcome
from moonxd.worker.consumer import Consumer


async def main(url: str, takes_ms: float) -> None:
    async def handler(job: Job) -> Outcome:
        sys.stdout.write(job.id + "\n")
        sys.stdout.flush()
        await trio.sleep(takes_ms / 1000)
        return Completed(b"null")

    async with open_redis(parse_redis_url(url)) as redis:
        queue = BullQueue(
            redis, "q", worker_name="process", lock_ms=400, stalled_interval_ms=200, defaults=JobOptions(attempts=1)
        )
        consumer = Consumer(queue, handler, slots=10, lock_s=0.4)
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(consumer.run)

                async def check() -> None:
                    await run_stalled_checker(queue, interval_s=0.2)

                nursery.start_soon(check)
                async for _ in signals:
                    await consumer.drain(0.2)
                    nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
