"""What is told to others is written in the transaction of what happened: never one without the other."""

from __future__ import annotations

import msgspec
from trio.testing import MockClock

from moonxd.domain.errors import Transient

from .house import ALICE, BOB, USDC, House


async def test_the_story_of_a_sync(clock: MockClock, house: House) -> None:
    await house.sync()
    begun = ["sync.queued", "user.activity", "sync.started"]
    assert await house.events() == [*begun, "sync.completed", "portfolio.updated"]
    await house.sync()
    assert (await house.events())[5:] == [*begun, "sync.completed"], "nothing changed, nothing to update"
    house.base.holds[USDC] += 1
    await house.sync()
    assert (await house.events())[9:] == [*begun, "sync.completed", "portfolio.updated"]


async def test_the_story_of_a_failure(clock: MockClock, house: House) -> None:
    with house.outage(house.ethereum, house.base):
        await house.ended(await house.enqueue())
    told = ["sync.started", "sync.retrying", "sync.started", "sync.retrying", "sync.started", "sync.failed"]
    assert await house.events() == ["sync.queued", "user.activity", *told]


async def test_an_event_says_whose_it_is_and_where_it_came_from(clock: MockClock, house: House) -> None:
    await house.sync(ALICE)
    await house.sync(BOB, "bob")
    stored = await house.ledger.read(0, 100)
    assert [one.position for one in stored] == sorted({one.position for one in stored})
    assert {one.event.key for one in stored} == {"alice", "bob"}, "the key keeps one user's events in order"

    (operation,) = await house.ledger.operations(wallet=BOB)
    body = msgspec.json.decode(stored[-1].event.body)
    assert body["type"] == "portfolio.updated"
    assert body["metadata"]["correlationId"] == str(operation.id)
    assert body["metadata"]["dataClassification"] == "internal"
    assert body["metadata"]["source"] == "moonxd"
    ids = {one.event.type: str(one.event.id) for one in stored if one.event.wallet == BOB}
    assert body["metadata"]["causationId"] == ids["sync.completed"]
    (begun,) = (msgspec.json.decode(one.event.body) for one in stored[5:] if one.event.type == "sync.started")
    assert begun["metadata"]["causationId"] == ids["sync.queued"]
    assert body["data"]["totalValueUsd"] == 6350
    assert {token["chainId"] for token in body["data"]["tokens"]} == {1, 8453}


async def test_a_commit_that_fails_leaves_neither_rows_nor_events(clock: MockClock, house: House) -> None:
    commit, failures = house.ledger.commit, 2

    async def failing(change: object) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise Transient("the disk is full")
        await commit(change)  # type: ignore[arg-type]

    house.ledger.commit = failing  # type: ignore[method-assign]
    job_id = await house.enqueue()
    await house.settled(job_id)
    assert await house.events() == ["sync.queued", "user.activity", "sync.started"]
    await house.ended(job_id)
    assert (await house.events())[-2:] == ["sync.completed", "portfolio.updated"]
    (operation,) = await house.ledger.operations(wallet=ALICE)
    assert operation.retry_count == 0, "a ledger that is away is not the job's fault"
