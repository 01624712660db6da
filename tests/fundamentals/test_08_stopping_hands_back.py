"""A worker that stops takes no more, lets its jobs end, and hands back in time what did not: nothing is lost."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from moonxd.domain.job import Completed, Release

from .house import ALICE, BOB, House


async def test_jobs_that_end_in_time_end(clock: MockClock, house: House) -> None:
    house.base.takes_s = 10.0
    running = await house.enqueue()
    await trio.sleep(1)
    await house.consumer.drain(30)
    assert isinstance(house.outcomes[running][0], Completed)
    late = await house.enqueue(BOB, "bob")
    await trio.sleep(600)
    assert late not in house.outcomes, "it claims no more"


async def test_the_rest_is_another_workers_at_once(clock: MockClock, house: House) -> None:
    house.base.takes_s = 20.0
    job_id = await house.enqueue()
    await trio.sleep(1)

    await house.consumer.drain(2)
    assert isinstance(house.outcomes[job_id][0], Release)
    (operation,) = await house.ledger.operations(wallet=ALICE)
    assert operation.status == "pending", "the wallet was given back too, not left to a lease that runs out"

    house.base.takes_s = 0.1
    handed_back = trio.current_time()
    neighbour = house.neighbour()
    neighbour.work()
    assert isinstance(await neighbour.ended(job_id), Completed)
    assert trio.current_time() - handed_back < 1
    view = await house.queue.get(job_id)
    assert view is not None
    assert view.job.attempts_made == 1, "being handed back is not counted as an attempt"


async def test_an_operator_may_cancel_a_running_job(clock: MockClock, house: House) -> None:
    house.base.takes_s = 20.0
    job_id = await house.enqueue()
    await trio.sleep(1)
    assert house.consumer.cancel(job_id)
    await house.ended(job_id)
    assert (await house.events())[-1] == "sync.cancelled"
    portfolio = await house.portfolio()
    assert (portfolio.sync_status, portfolio.holdings) == ("cancelled", ())
