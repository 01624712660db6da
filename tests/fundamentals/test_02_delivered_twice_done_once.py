"""Queues deliver at least once. What a job does happens once all the same."""

from __future__ import annotations

import msgspec
import pytest
import trio
from trio.testing import MockClock

from moonxd.domain.errors import LeaseLost
from moonxd.domain.job import Completed, Job

from .house import ALICE, LOCK_S, USDC, House


async def _claimed(house: House) -> Job:
    claim = await house.queue.claim()
    assert claim.job is not None
    return claim.job


async def test_a_worker_that_dies_after_its_commit_costs_nothing(clock: MockClock, quiet_house: House) -> None:
    house = quiet_house
    job_id = await house.enqueue(ALICE)
    # This worker commits, and its process is gone before it can tell the queue.
    first = await house.attempts(await _claimed(house))
    assert isinstance(first, Completed)

    # Nobody renews the lock; the stalled check of another worker finds the job and delivers it again.
    neighbour = house.neighbour()
    neighbour.work()
    second = await neighbour.ended(job_id)

    assert isinstance(second, Completed)
    assert msgspec.json.decode(second.value) == msgspec.json.decode(first.value), "answered from the ledger"
    assert house.ethereum.reads == 1, "no chain was asked again"
    told = ["sync.queued", "user.activity", "sync.started", "sync.completed", "portfolio.updated"]
    assert await house.events() == told, "nothing was told twice"


async def test_a_worker_that_was_only_slow_writes_nothing_any_more(clock: MockClock, quiet_house: House) -> None:
    house = quiet_house
    job_id = await house.enqueue(ALICE)
    house.market.takes_s = 3 * LOCK_S
    old = await _claimed(house)

    async def slow() -> None:
        # Outside its consumer nobody renews its lock: everyone must think this worker dead.
        with pytest.raises(LeaseLost):
            await house.attempts(old)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(slow)
        await trio.sleep(1)
        house.base.holds[USDC] = 777_000_000
        house.market.takes_s = 0
        neighbour = house.neighbour()
        neighbour.work()
        assert isinstance(await neighbour.ended(job_id), Completed)

    assert (await house.holdings())["base", "USDC"] == 777
    assert (await house.events()).count("sync.completed") == 1


async def test_the_same_id_added_again_later_is_a_new_sync(clock: MockClock, house: House) -> None:
    first = await house.enqueue()
    await house.ended(first)
    await house.queue.remove([first])
    await trio.sleep(1)
    await house.sync()
    assert len(await house.ledger.operations(wallet=ALICE)) == 2
