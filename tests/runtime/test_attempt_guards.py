"""What becomes of jobs that the user's limit, the user's breaker or a busy wallet keeps waiting."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from moonxd.domain.errors import Transient
from moonxd.domain.guard import Guards, Trip, Window
from moonxd.domain.job import Completed, Failed, Job, Outcome, Postpone, Retry
from moonxd.worker.attempt import Attempts
from tests.runtime.test_attempt import WALLET, World, make_job

EPOCH = 1_700_000_000


@pytest.fixture
def world() -> World:
    return World()


def limited(world: World, most: int = 2, *, reject: bool = False, **others: Any) -> Attempts:
    window = Window(most=most, window_s=900.0, reject=reject)
    return world.handler(world.ledger, guards=Guards(window=window, **others))


def job_of(number: int, *, made: int = 0, taken: int = 0, timestamp: int = EPOCH * 1000, **payload: Any) -> Job:
    """`taken`: how often it was taken before."""
    job = make_job(str(number), made, **payload)
    return msgspec.structs.replace(job, timestamp=timestamp, attempts_started=taken + 1)


def wallet(number: int) -> str:
    return f"0x{number:040x}"


def value_of(outcome: Outcome) -> dict[str, Any]:
    assert isinstance(outcome, Completed)
    value: dict[str, Any] = msgspec.json.decode(outcome.value)
    return value


# ---- rate limit ----------------------------------------------------------------------------------------------------


async def test_over_the_limit_it_waits_until_the_window_frees(autojump_clock: MockClock, world: World) -> None:
    attempts = limited(world)
    for number in range(2):
        assert isinstance(await attempts(job_of(number, walletAddress=wallet(number))), Completed)
        await trio.sleep(10)
    third = job_of(3, walletAddress=wallet(3))
    outcome = await attempts(third)
    assert isinstance(outcome, Postpone)
    assert outcome.until_ms == pytest.approx((EPOCH + 900) * 1000, abs=100)
    await trio.sleep(outcome.until_ms / 1000 - EPOCH - trio.current_time())
    assert isinstance(await attempts(third), Completed), "at that moment, not a try later"


async def test_a_forced_refresh_is_limited_all_the_same(autojump_clock: MockClock, world: World) -> None:
    attempts = limited(world)
    for number in range(2):
        await attempts(job_of(number, walletAddress=wallet(number), forceRefresh=True))
    assert isinstance(await attempts(job_of(3, walletAddress=wallet(3), forceRefresh=True)), Postpone)


async def test_periodic_work_and_children_of_bulk_jobs_are_not(autojump_clock: MockClock, world: World) -> None:
    attempts = limited(world)
    for number in range(4):
        periodic = job_of(number, walletAddress=wallet(number), metadata={"trigger": "periodic"})
        assert isinstance(await attempts(periodic), Completed)
        child = msgspec.structs.replace(job_of(100 + number, walletAddress=wallet(100 + number)), parent_key="bull:q:1")
        assert isinstance(await attempts(child), Completed)
    for number in range(200, 202):
        assert isinstance(await attempts(job_of(number, walletAddress=wallet(number))), Completed)


async def test_a_producers_words_do_not_pass_for_ours(autojump_clock: MockClock, world: World) -> None:
    attempts = limited(world)
    for number in range(2):
        await attempts(job_of(number, walletAddress=wallet(number), countsForUser=False, fence=-1))
    assert isinstance(await attempts(job_of(3, walletAddress=wallet(3))), Postpone)


async def test_a_rejected_job_fails_with_its_reason_and_is_told(autojump_clock: MockClock, world: World) -> None:
    attempts = limited(world, 1, reject=True)
    await attempts(job_of(1, walletAddress=wallet(1)))
    outcome = await attempts(job_of(2))
    assert isinstance(outcome, Failed)
    assert outcome.reason == "Rejected: user u1 has had 1 syncs within 900 s, the limit: try again later"
    assert await world.status() == "cancelled"
    (rejected,) = [one.event for one in await world.ledger.read(0, 100) if one.event.type == "sync.rejected"]
    assert rejected.topic == "sync.events"
    assert "the limit" in msgspec.json.decode(rejected.body)["data"]["reason"]
    letter = await world.ledger.letter("sync-jobs", "2")
    assert letter is not None, "it may be requeued"


# ---- breaker -------------------------------------------------------------------------------------------------------


async def failing(world: World, attempts: Attempts, count: int) -> None:
    good = world.ethereum.answer, world.base.answer
    world.ethereum.answer = world.base.answer = Transient("away")
    for number in range(count):
        assert isinstance(await attempts(job_of(900 + number, made=2, taken=2)), Failed)
    world.ethereum.answer, world.base.answer = good


async def test_failures_in_a_row_stop_the_user_for_a_while(autojump_clock: MockClock, world: World) -> None:
    attempts = limited(world, 1000, breaker=Trip(threshold=3, open_s=60.0))
    await failing(world, attempts, 3)
    job = job_of(1, walletAddress=wallet(1))
    outcome = await attempts(job)
    assert isinstance(outcome, Postpone)
    assert outcome.until_ms == pytest.approx((EPOCH + 60) * 1000, abs=100)
    forced = await attempts(job_of(2, walletAddress=wallet(2), forceRefresh=True))
    assert isinstance(forced, Completed), "a forced refresh passes"
    assert isinstance(await attempts(job), Completed), "and its success closes it"


async def test_half_open_lets_one_through(autojump_clock: MockClock, world: World) -> None:
    attempts = limited(world, 1000, breaker=Trip(threshold=3, open_s=60.0))
    await failing(world, attempts, 3)
    await trio.sleep(61)
    world.base.answer = 5.0
    outcomes: list[Outcome] = []

    async def one(number: int) -> None:
        outcomes.append(await attempts(job_of(number, walletAddress=wallet(number))))

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(one, number)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Completed", *["Postpone"] * 9]


# ---- one wallet, two jobs ------------------------------------------------------------------------------------------


async def beside(world: World, second: Job) -> Outcome:
    """`second` meets a running sync of its wallet, and is taken again when that has ended."""
    world.base.answer = 5.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, job_of(1))
        await trio.sleep(1)
        second = msgspec.structs.replace(second, timestamp=int((EPOCH + trio.current_time()) * 1000))
        assert isinstance(await world.run(second), Postpone), "never two at once"
    await trio.sleep(1)
    world.base.answer = {}
    return await world.run(msgspec.structs.replace(second, attempts_started=2))


async def test_the_second_is_merged_when_it_asks_for_nothing_more(autojump_clock: MockClock, world: World) -> None:
    value = value_of(await beside(world, job_of(2, chainIds=[8453])))
    (operation,) = await world.ledger.operations(wallet=WALLET)
    assert (value["merged"], value["mergedInto"], value["jobId"]) == (True, str(operation.id), "2")
    assert value["success"] is True
    assert world.base.reads == 1, "nothing was read twice"


@pytest.mark.parametrize("more", [{"forceRefresh": True}, {"syncType": "full"}, {"syncType": "metadata"}])
async def test_the_second_runs_when_it_asks_for_more(
    autojump_clock: MockClock, world: World, more: dict[str, Any]
) -> None:
    value = value_of(await beside(world, job_of(2, **more)))
    assert "merged" not in value
    assert world.base.reads == 2


async def test_the_second_runs_when_the_first_failed(autojump_clock: MockClock, world: World) -> None:
    world.ethereum.answer = Transient("away")

    async def first() -> None:
        assert isinstance(await world.run(job_of(1)), Retry)

    world.base.answer = Transient("away")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
    world.ethereum.answer = world.base.answer = {}
    assert "merged" not in value_of(await world.run(job_of(2, taken=1)))


async def test_the_second_runs_when_a_chain_of_it_failed(autojump_clock: MockClock, world: World) -> None:
    world.ethereum.answer = Transient("ethereum is away")
    value = value_of(await beside(world, job_of(2)))
    assert "merged" not in value


async def test_a_sync_that_ended_before_the_asking_answers_nobody(autojump_clock: MockClock, world: World) -> None:
    await world.run(job_of(1))
    await trio.sleep(10)
    late = job_of(2, taken=1, timestamp=int((EPOCH + trio.current_time()) * 1000))
    assert "merged" not in value_of(await world.run(late))


async def test_a_job_that_never_waited_runs(autojump_clock: MockClock, world: World) -> None:
    await trio.sleep(1)
    await world.run(job_of(1))
    assert "merged" not in value_of(await world.run(job_of(2)))
