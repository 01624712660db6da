"""Brings back jobs whose worker stopped renewing their locks: it crashed, was killed, or hangs."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

import trio

from ..domain.errors import MoonxdError
from ..domain.job import StalledSweep
from ..ports import Queue

log = logging.getLogger("moonxd.stalled")


async def run_stalled_checker(
    queue: Queue,
    *,
    interval_s: float = 30.0,
    ready: Callable[[], None] = lambda: None,
    on_sweep: Callable[[StalledSweep], None] = lambda sweep: None,
    rand: Callable[[], float] = random.random,
) -> None:
    """Check every `interval_s` until cancelled; all workers of a queue share the interval, whoever comes first.

    The first check follows at once: after a restart the jobs of the crashed process are waiting. Two checks are needed
    to find a job stalled, so it comes back between one and two intervals after its lock ran out.
    """
    ready()
    while True:
        try:
            sweep = await queue.recover_stalled()
        except MoonxdError as error:
            log.warning("stalled jobs were not looked for: %s", error)
        else:
            _report(sweep)
            on_sweep(sweep)
        # Spread, so that many workers do not all ask in the same instant.
        await trio.sleep(interval_s * (1.0 + 0.05 * rand()))


def _report(sweep: StalledSweep) -> None:
    for job_id in sweep.recovered:
        log.warning("job %s had stalled and waits again", job_id, extra={"job_id": job_id})
    for job_id in sweep.failed:
        log.error("job %s stalled too often: it will fail", job_id, extra={"job_id": job_id})
