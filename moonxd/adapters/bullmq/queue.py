"""One BullMQ queue, 5.x/6.x layout, for workers and operators.

    async with open_redis(parse_redis_url(url)) as redis:
        queue = BullQueue(redis, "sync-jobs", prefix="bull", worker_name="host:pid", lock_ms=30000,
                          stalled_interval_ms=30000, max_stalled_count=1, limiter=None, defaults=JobOptions(...))

It implements ports.Queue, ports.QueueAdmin and ports.QueueUpkeep. Any number of instances, processes and Node programs
may share the queue. `defaults` apply where a producer said nothing, and are written into the jobs added here.
"""

from __future__ import annotations

from collections.abc import Callable

from moonxd.domain.job import Backoff, JobOptions, Keep

from ..redis.client import Redis
from .room import now_ms
from .upkeep import Upkeep
from .worker_side import WorkerSide

#: The contract's defaults (docs: queue options).
DEFAULTS = JobOptions(
    attempts=3,
    backoff=Backoff("exponential", 5000),
    remove_on_complete=Keep(count=100),
    remove_on_fail=Keep(count=50),
    stack_limit=10,
)


class BullQueue(WorkerSide, Upkeep):
    """See the module. `limiter` = (jobs, per ms) bounds this worker's rate unless the queue's own limit is set."""

    def __init__(
        self,
        redis: Redis,
        name: str,
        *,
        worker_name: str,
        prefix: str = "bull",
        lock_ms: int = 30_000,
        stalled_interval_ms: int = 30_000,
        max_stalled_count: int = 1,
        limiter: tuple[int, int] | None = None,
        defaults: JobOptions = DEFAULTS,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        super().__init__(
            redis,
            name,
            prefix=prefix,
            worker_name=worker_name,
            lock_ms=lock_ms,
            stalled_interval_ms=stalled_interval_ms,
            max_stalled_count=max_stalled_count,
            limiter=limiter,
            defaults=defaults,
            clock=clock,
        )
