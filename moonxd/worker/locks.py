"""Two watches over all running jobs at once: their locks are renewed, and none runs longer than it may."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from ..domain.errors import MoonxdError
from ..domain.job import Job
from ..ports import Queue
from .slots import Slot, Verdict

log = logging.getLogger("moonxd.consumer")


async def keep_locks(queue: Queue, slots: Sequence[Slot], lock_s: float) -> None:
    """Renew the locks of all held jobs when the oldest has reached half its life; stop jobs whose lock is lost."""
    while True:
        held = [slot.locked for slot in slots if slot.is_locked]
        # Locks taken from now on are younger than any of these.
        due = min(held, default=trio.current_time()) + lock_s / 2
        await trio.sleep_until(due)
        holders = [(slot, slot.job) for slot in slots if slot.job is not None and slot.is_locked]
        if holders and not await _renew(queue, holders):
            _give_up_expired(slots, lock_s)
            await trio.sleep(min(1.0, lock_s / 10))


async def _renew(queue: Queue, holders: Sequence[tuple[Slot, Job]]) -> bool:
    asked = trio.current_time()
    try:
        lost = set(await queue.extend([job for _, job in holders]))
    except MoonxdError as error:
        log.warning("%d locks were not renewed: %s", len(holders), error)
        return False
    for slot, job in holders:
        if slot.job is not job:
            continue  # settled meanwhile
        if job.id not in lost:
            slot.locked = asked
        elif slot.stop(Verdict.LEASE_LOST):
            log.warning("lost the lock of job %s: it is stopped here", job.id, extra={"job_id": job.id})
        else:
            slot.locked = asked  # being settled: whether it was ours is for the queue to say
    return True


def _give_up_expired(slots: Sequence[Slot], lock_s: float) -> None:
    """Without an answer, a lock older than its life must be taken for lost: somebody else may run the job now."""
    now = trio.current_time()
    for slot in slots:
        job = slot.job
        if job is not None and now - slot.locked >= lock_s and slot.stop(Verdict.LEASE_LOST):
            log.warning("the lock of job %s has run out unrenewed", job.id, extra={"job_id": job.id})


async def watch_deadlines(slots: Sequence[Slot], timeout_s: float) -> None:
    """Stop every job that has run for `timeout_s`: one sleeper instead of a deadline per job."""
    while True:
        running = [slot.started for slot in slots if slot.running]
        await trio.sleep_until(min(running, default=trio.current_time()) + timeout_s)
        overdue = trio.current_time() - timeout_s
        for slot in slots:
            if slot.running and slot.started <= overdue:
                slot.stop(Verdict.TIMEOUT)
