"""Two jobs of one user's wallet never run at the same time; the second waits, and is merged if it asks no more."""

from __future__ import annotations

import json

import pytest
import trio
from trio.testing import MockClock

from moonxd.domain.job import Completed, Postpone

from .house import ALICE, BOB, House


async def test_the_second_job_waits_for_the_first(clock: MockClock, house: House) -> None:
    house.base.takes_s = 5.0
    first, second = await house.enqueue(), await house.enqueue(forceRefresh=True)

    assert isinstance(await house.settled(second), Postpone)
    assert isinstance(await house.ended(first), Completed)
    assert isinstance(await house.ended(second), Completed)

    view = await house.queue.get(second)
    assert view is not None
    assert len(await house.ledger.operations(wallet=ALICE)) == 2
    assert [row.retry_count for row in await house.ledger.operations(wallet=ALICE)] == [0, 0]


async def test_a_second_job_that_asks_for_nothing_more_is_answered_by_the_first(clock: MockClock, house: House) -> None:
    house.base.takes_s = 5.0
    first, second = await house.enqueue(), await house.enqueue(chainIds=[8453])

    assert isinstance(await house.ended(first), Completed)
    merged = await house.ended(second)

    assert isinstance(merged, Completed)
    value = json.loads(merged.value)
    (operation,) = await house.ledger.operations(wallet=ALICE)
    assert (value["merged"], value["mergedInto"], value["jobId"]) == (True, str(operation.id), second)


async def test_other_wallets_do_not_wait(clock: MockClock, house: House) -> None:
    house.base.takes_s = 5.0
    ids = [await house.enqueue(ALICE), await house.enqueue(BOB, "bob")]
    started = trio.current_time()
    for job_id in ids:
        await house.ended(job_id)
    assert trio.current_time() - started == pytest.approx(5.0, abs=0.5)
