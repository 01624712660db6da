"""Pause by one program and resume by another, with 20,000 jobs: none is stranded, whoever adds, retries or promotes.

BullMQ 5.x renames its wait list to `paused` and back over whatever `wait` holds by then; 6.x sets a flag only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import trio

from moonxd.adapters.bullmq.queue import BullQueue
from moonxd.domain.job import Completed, Failed, Job, JobOptions, JobState, NewJob, Parent, Postpone, Release, Retry
from tests.interop.harness import our_queue, until, until_counts, working
from tests.services.node import NodePeer, Start
from tests.services.redis import RedisServer

pytestmark = [pytest.mark.node, pytest.mark.redis]
MANY = 20_000
DONE = Completed(b"null")


@pytest.fixture
def server(redis_server: RedisServer, redis_url: str) -> RedisServer:
    return redis_server


class Parties:
    """Whoever may pause, resume and produce: us and one Node version."""

    def __init__(self, ours: BullQueue, node: NodePeer) -> None:
        self.ours = ours
        self.node = node

    async def pause(self, who: str, paused: bool) -> None:
        if who == "us":
            await self.ours.pause(paused)
        else:
            await self.node("pause" if paused else "resume", queue="q")

    async def stranded(self, ids: set[str]) -> set[str]:
        """Jobs that are in no line after the queue was drained."""
        done = {view.job.id for view in await self.ours.list(JobState.COMPLETED, limit=len(ids) + 1000)}
        return ids - done


@pytest.fixture(params=["bullmq5", "bullmq6"])
async def parties(request: pytest.FixtureRequest, start_node: Start, server: RedisServer) -> AsyncIterator[Parties]:
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(start_node(request.param, server))
        ours = await stack.enter_async_context(our_queue(server, defaults=JobOptions(attempts=3)))
        await node("version", queue="q")  # a producer is there and says its version
        yield Parties(ours, node)


async def add_ours(queue: BullQueue, count: int) -> list[str]:
    ids: list[str] = []
    for at in range(0, count, 1000):
        ids += await queue.add([NewJob(name="work", data={"n": n}) for n in range(at, min(at + 1000, count))])
    return ids


@pytest.mark.parametrize(("pauses", "resumes"), [("us", "us"), ("us", "node"), ("node", "us"), ("node", "node")])
async def test_twenty_thousand_jobs_survive_a_pause(parties: Parties, pauses: str, resumes: str) -> None:
    ours, node = parties.ours, parties.node
    ids = set(await node("addMany", queue="q", count=MANY // 4)) | set(await add_ours(ours, MANY // 4))
    await parties.pause(pauses, True)
    ids |= set(await add_ours(ours, MANY // 4)) | set(await node("addMany", queue="q", count=MANY // 4))
    assert len(ids) == MANY
    counts = await ours.counts()
    assert counts.is_paused
    assert counts.waiting + counts.paused == MANY
    async with working(ours, slots=50) as (_, told):
        await trio.sleep(0.2)
        assert not told, "a paused queue hands nothing out"
        await parties.pause(resumes, False)
        await until_counts(ours, lambda c: c.completed == MANY, 60)
    assert not await parties.stranded(ids)
    assert not (await ours.counts()).is_paused


async def test_whatever_we_push_while_paused_survives_their_resume(parties: Parties) -> None:
    """Every way of ours into the wait list, between their pause and their resume."""
    ours, node = parties.ours, parties.node
    ids = await ours.add([NewJob(name=f"active{n}", data=n) for n in range(4)])
    retried, released, postponed, finished = [await _claimed(ours) for _ in range(4)]
    failed = (await ours.add([NewJob(name="failed", data=0)]))[0]
    promoted = (await ours.add([NewJob(name="promoted", data=0, options=JobOptions(delay=3_600_000))]))[0]
    low = (await ours.add([NewJob(name="low", data=0, options=JobOptions(priority=9))]))[0]
    await _fail(ours, failed)
    children = (await ours.add([NewJob(name="parent", data=0, has_children=True)]))[0]
    await ours.add([NewJob(name="child", data=0, parent=Parent(children, "bull:q"))])
    child = await _claimed(ours)
    # Nothing claims between here and the pause: becoming due earlier than that makes no difference.
    due = (await ours.add([NewJob(name="due", data=0, options=JobOptions(delay=40))]))[0]

    await node("addMany", queue="q", count=3)
    await node("pause", queue="q")
    await node("addMany", queue="q", count=2)
    added = await ours.add([NewJob(name="added", data=0)])
    await ours.settle(retried, Retry(0, "again"), fetch=True)
    await ours.settle(released, Release(), fetch=True)
    await ours.settle(postponed, Postpone(0), fetch=True)
    assert await ours.promote(promoted)
    assert await ours.requeue([failed]) == (failed,)
    assert await ours.reprioritize(low, 0)
    await ours.settle(child, DONE, fetch=True)  # its parent becomes ready
    with trio.fail_after(10):
        while (await ours.counts()).delayed:  # Redis' clock
            assert (await ours.claim()).job is None  # the due job is promoted by such a look
    await ours.settle(finished, DONE, fetch=True)

    await node("resume", queue="q")
    expected = {*ids, *added, due, promoted, failed, low, children, child.id}
    async with working(ours) as (_, told):
        await until_counts(ours, lambda c: c.completed == len(expected) + 5)
        assert len(told) == len(expected) + 5 - 2
    assert not await parties.stranded(expected)


async def _claimed(queue: BullQueue) -> Job:
    claim = await queue.claim()
    assert claim.job is not None
    return claim.job


async def _fail(queue: BullQueue, job_id: str) -> None:
    job = await _claimed(queue)
    assert job.id == job_id
    await queue.settle(job, Failed("x"), fetch=False)


async def test_jobs_found_stalled_while_paused_survive(parties: Parties, server: RedisServer) -> None:
    async with our_queue(server, lock_ms=30, stalled_interval_ms=40) as crashed:
        [job_id] = await crashed.add([NewJob(name="x", data=0)])
        assert (await crashed.claim()).job is not None
        await parties.node("addMany", queue="q", count=1)
        await parties.node("pause", queue="q")
        await parties.node("addMany", queue="q", count=1)
        with trio.fail_after(5):
            while not (await crashed.recover_stalled()).recovered:  # noqa: ASYNC110 (Redis' clock)
                await trio.sleep(0.02)
    await parties.node("resume", queue="q")
    async with working(parties.ours) as (_, told):
        await until(lambda: len(told) == 3)
    assert not await parties.stranded({job_id})


async def test_pausing_twice_and_by_both(parties: Parties) -> None:
    ours, node = parties.ours, parties.node
    ids = set(await node("addMany", queue="q", count=10))
    for who in ("node", "us", "node", "us"):
        await parties.pause(who, True)
        ids |= set(await add_ours(ours, 5)) | set(await node("addMany", queue="q", count=5))
    await parties.pause("us", False)
    async with working(ours) as (_, _told):
        await until_counts(ours, lambda c: c.completed == len(ids))
    assert not await parties.stranded(ids)


async def test_order_survives_a_pause(parties: Parties) -> None:
    ours, node = parties.ours, parties.node
    first = await node("addMany", queue="q", count=3)
    await node("pause", queue="q")
    second = await add_ours(ours, 3)
    third = await node("addMany", queue="q", count=3)
    assert [view.job.id for view in await ours.list(JobState.WAITING)][:3] == first
    await ours.pause(False)
    served = [view.job.id for view in await ours.list(JobState.WAITING)]
    assert served[:3] == first
    if (await node("version", queue="q")).startswith("bullmq:5"):
        assert served == [*first, *second, *third]


async def test_a_queue_paused_by_us_before_any_producer_came(start_node: Start, server: RedisServer) -> None:
    """Nobody's version is known yet: the jobs must be safe with whoever resumes."""
    async with our_queue(server) as ours:
        ids = set(await add_ours(ours, 5))
        await ours.pause(True)
        ids |= set(await add_ours(ours, 5))
        async with start_node("bullmq5", server) as node:
            ids |= set(await node("addMany", queue="q", count=5))
            await node("resume", queue="q")
            async with working(ours) as (_, told):
                await until(lambda: len(told) == 15)
        assert {job_id for job_id, _ in told} == ids


async def test_a_resume_that_crashed_halfway_is_completed(server: RedisServer) -> None:
    """6.x moves a legacy list in steps of 7,000; jobs left in it come back with the next stalled check."""
    async with our_queue(server) as ours:
        ids = set(await add_ours(ours, 10))
        server.command("RENAME", "bull:q:wait", "bull:q:paused")
        await ours.recover_stalled()
        assert (await ours.counts()).paused == 0
        async with working(ours) as (_, told):
            await until(lambda: len(told) == 10)
        assert {job_id for job_id, _ in told} == ids
