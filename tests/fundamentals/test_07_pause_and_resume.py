"""A pause stops the taking of jobs, for everyone or for one worker; it loses none and stops none that runs."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from moonxd.domain.job import Completed, JobState

from .house import BOB, House


async def test_a_paused_queue_keeps_its_jobs(clock: MockClock, house: House) -> None:
    await house.queue.pause(True)
    job_id = await house.enqueue()
    await trio.sleep(600)
    view = await house.queue.get(job_id)
    assert view is not None
    assert view.state is JobState.WAITING

    await house.queue.pause(False)
    assert isinstance(await house.ended(job_id), Completed)


async def test_what_runs_goes_on(clock: MockClock, house: House) -> None:
    house.base.takes_s = 10.0
    job_id = await house.enqueue()
    await trio.sleep(1)
    await house.queue.pause(True)
    assert isinstance(await house.ended(job_id), Completed)


async def test_one_worker_may_rest_while_the_others_work(clock: MockClock, house: House) -> None:
    neighbour = house.neighbour()
    neighbour.work()
    house.consumer.pause()
    ids = [await house.enqueue(), await house.enqueue(BOB, "bob")]
    for job_id in ids:
        assert isinstance(await neighbour.ended(job_id), Completed)
    assert not house.outcomes
    house.consumer.resume()
    neighbour.consumer.pause()
    assert isinstance(await house.ended(await house.enqueue()), Completed)
