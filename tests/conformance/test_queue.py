"""ports.Queue, QueueAdmin and QueueUpkeep: one suite over the queue in memory and BullMQ on a real Redis."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import pytest
import trio

from moonxd.adapters.bullmq.queue import BullQueue
from moonxd.adapters.memory.queue import MemoryQueue
from moonxd.adapters.redis.client import open_redis, parse_redis_url
from moonxd.domain.errors import LeaseLost
from moonxd.domain.job import (
    Backoff,
    Claim,
    Completed,
    Counts,
    Failed,
    Job,
    JobOptions,
    JobState,
    Keep,
    NewJob,
    Postpone,
    Release,
    Retry,
)
from tests.services.redis import RedisServer

Queue = BullQueue | MemoryQueue
Make = Callable[..., tuple[Queue, Queue]]
DONE = Completed(b'{"ok":true}')


@pytest.fixture(scope="session")
def embedded_url(embedded_redis_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The oldest server that we run on: the one that comes with the embedded default."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), binary=embedded_redis_binary)
    yield server.url
    server.stop()


@pytest.fixture(params=["memory", "redis", "redis-embedded"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """`make(**options)` gives one queue as two workers see it."""
    if request.param == "memory":

        def in_memory(**options: Any) -> tuple[Queue, Queue]:
            queue = MemoryQueue("q", **options)
            return queue, queue.other_worker()

        yield in_memory
        return
    url = request.getfixturevalue("redis_url" if request.param == "redis" else "embedded_url")
    async with open_redis(parse_redis_url(url)) as redis:
        await redis.call("FLUSHALL")

        def on_redis(**options: Any) -> tuple[Queue, Queue]:
            options = {"defaults": JobOptions(attempts=1)} | options
            return BullQueue(redis, "q", worker_name="a", **options), BullQueue(redis, "q", worker_name="b", **options)

        yield on_redis


@pytest.fixture
def queue(make: Make) -> Queue:
    return make()[0]


def job(name: str = "work", data: Any = None, **options: Any) -> NewJob:
    return NewJob(name=name, data=data, options=JobOptions(**options))


async def claimed(queue: Queue) -> Job:
    claim = await queue.claim()
    assert claim.job is not None, claim
    return claim.job


async def names(queue: Queue) -> list[str]:
    """Names of all jobs in the order they are served; each is completed."""
    served = []
    while (claim := await queue.claim()).job is not None:
        served.append(claim.job.name)
        await queue.settle(claim.job, DONE, fetch=False)
    return served


# ---- adding and order


async def test_jobs_are_served_in_order_and_carry_what_was_added(queue: Queue) -> None:
    first, second = await queue.add([job("a", {"x": 1}), job("b", [1, 2])])
    taken = await claimed(queue)
    assert (taken.id, taken.name, msgspec.json.decode(taken.data)) == (first, "a", {"x": 1})
    assert (taken.queue, taken.attempts_made, taken.attempts_started, taken.doomed) == ("q", 0, 1, None)
    assert taken.token
    assert (await claimed(queue)).id == second
    assert await queue.claim() == Claim()


async def test_unprioritized_first_then_by_priority_then_by_age(queue: Queue) -> None:
    await queue.add([job("low", priority=10), job("high", priority=1), job("none"), job("low2", priority=10)])
    assert await queue.priorities() == {0: 1, 1: 1, 10: 2}
    assert await names(queue) == ["none", "high", "low", "low2"]


async def test_lifo_jobs_overtake(queue: Queue) -> None:
    await queue.add([job("a"), job("b"), job("c", lifo=True)])
    assert await names(queue) == ["c", "a", "b"]


async def test_an_id_that_exists_is_not_added_twice(queue: Queue) -> None:
    ids = await queue.add([NewJob(name="a", data=1, id="x"), NewJob(name="b", data=2, id="x")])
    assert ids == ("x", "x")
    assert await names(queue) == ["a"]
    assert await queue.add([NewJob(name="c", data=3, id="x")]) == ("x",), "a kept job blocks its id"
    assert await names(queue) == []


async def test_deduplication_until_done(queue: Queue) -> None:
    wanted = NewJob(name="a", data=1, deduplication_id="w1")
    [first] = await queue.add([wanted])
    assert await queue.add([wanted]) == (first,)
    assert (await queue.counts()).waiting == 1
    await queue.settle(await claimed(queue), DONE, fetch=False)
    [second] = await queue.add([wanted])
    assert second != first


async def test_deduplication_for_a_while(queue: Queue) -> None:
    wanted = NewJob(name="a", data=1, deduplication_id="w1", deduplication_ttl=80)
    [first] = await queue.add([wanted])
    await queue.settle(await claimed(queue), DONE, fetch=False)
    assert await queue.add([wanted]) == (first,), "a window outlives its job"
    with trio.fail_after(2):
        while (await queue.add([wanted])) == (first,):
            await queue.wait(0.02)


# ---- delays and the marker


async def test_delayed_jobs_wait_for_their_time(queue: Queue) -> None:
    began = trio.current_time()
    [job_id] = await queue.add([job("later", delay=120, priority=3)])
    claim = await queue.claim()
    assert claim.job is None
    assert claim.wake_at is not None
    view = await queue.get(job_id)
    assert view is not None
    assert (view.state, view.due_at) == (JobState.DELAYED, claim.wake_at)
    with trio.fail_after(10):
        while (claim := await queue.claim()).job is None:
            assert await queue.wait(1.0)
    assert trio.current_time() - began > 0.11
    assert claim.job.name == "later"


async def test_waiting_ends_by_the_marker_or_by_the_clock(make: Make) -> None:
    queue, producer = make()
    assert not await queue.wait(0.05)
    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:

            async def waiting() -> None:
                assert await queue.wait(30.0)

            nursery.start_soon(waiting)
            await trio.sleep(0.02)
            await producer.add([job()])


async def test_a_delayed_job_added_while_waiting_shortens_the_wait(queue: Queue) -> None:
    async with trio.open_nursery() as nursery:

        async def later() -> None:
            await trio.sleep(0.03)
            await queue.add([job(delay=60)])

        nursery.start_soon(later)
        with trio.fail_after(2):
            assert await queue.wait(30.0)
            while (await queue.claim()).job is None:
                assert await queue.wait(30.0)


async def test_promote(queue: Queue) -> None:
    [job_id] = await queue.add([job(delay=60_000)])
    assert await queue.promote(job_id)
    assert not await queue.promote(job_id)
    assert (await claimed(queue)).id == job_id


# ---- settling


async def test_completed_keeps_the_value_and_fetches_the_next(queue: Queue) -> None:
    first, second = await queue.add([job("a"), job("b")])
    taken = await claimed(queue)
    claim = await queue.settle(taken, DONE, fetch=True)
    assert claim is not None
    assert claim.job is not None
    assert claim.job.id == second
    view = await queue.get(first)
    assert view is not None
    assert (view.state, view.return_value, view.job.attempts_made) == (JobState.COMPLETED, {"ok": True}, 1)
    assert view.processed_on is not None
    assert view.finished_on is not None
    assert await queue.settle(claim.job, DONE, fetch=False) is None
    assert await queue.counts() == Counts(completed=2)


async def test_fetching_from_an_empty_queue_looked(queue: Queue) -> None:
    await queue.add([job("a"), job("later", delay=60_000)])
    claim = await queue.settle(await claimed(queue), DONE, fetch=True)
    assert claim is not None
    assert claim.job is None
    assert claim.wake_at is not None


async def test_failed_for_good(queue: Queue) -> None:
    [job_id] = await queue.add([job(attempts=5)])
    await queue.settle(await claimed(queue), Failed("no such wallet", ("trace",)), fetch=False)
    view = await queue.get(job_id)
    assert view is not None
    assert (view.state, view.failed_reason, view.stack) == (JobState.FAILED, "no such wallet", ("trace",))
    assert [v.job.id for v in await queue.list(JobState.FAILED)] == [job_id]


async def test_retry_at_once_and_later_count_as_attempts(queue: Queue) -> None:
    await queue.add([job(attempts=5, stack_limit=2)])
    taken = await claimed(queue)
    assert await queue.settle(taken, Retry(0, "one", ("t1",)), fetch=True) is None
    taken = await claimed(queue)
    assert (taken.attempts_made, taken.attempts_started, taken.stack) == (1, 2, ("t1",))
    await queue.settle(taken, Retry(30, "two", ("t2",)), fetch=True)
    assert (await queue.counts()).delayed == 1
    with trio.fail_after(2):
        while (claim := await queue.claim()).job is None:
            await queue.wait(1.0)
    assert claim.job.attempts_made == 2
    await queue.settle(claim.job, Failed("three", ("t3",)), fetch=False)
    view = await queue.get(claim.job.id)
    assert view is not None
    assert (view.stack, view.failed_reason, view.job.attempts_made) == (("t2", "t3"), "three", 3)


async def test_a_retry_later_fetches_another(queue: Queue) -> None:
    await queue.add([job("a", attempts=2), job("b")])
    claim = await queue.settle(await claimed(queue), Retry(60_000, "x"), fetch=True)
    assert claim is not None
    assert claim.job is not None
    assert claim.job.name == "b"


async def test_postpone_does_not_count(queue: Queue) -> None:
    await queue.add([job(attempts=2)])
    taken = await claimed(queue)
    await queue.settle(taken, Postpone(0), fetch=False)
    again = await claimed(queue)
    assert (again.id, again.attempts_made) == (taken.id, 0)
    far = 4_000_000_000_000
    await queue.settle(again, Postpone(far), fetch=False)
    view = await queue.get(taken.id)
    assert view is not None
    assert (view.state, view.due_at) == (JobState.DELAYED, far)


@pytest.mark.parametrize("priority", [0, 7])
async def test_release_goes_to_the_head_of_its_line_and_wakes_a_sleeper(make: Make, priority: int) -> None:
    queue, other = make()
    ids = await queue.add([job("a", priority=priority), job("b", priority=priority)])
    taken = await claimed(queue)
    while await other.wait(0.02):
        pass  # the markers of the additions
    await queue.settle(taken, Release(), fetch=True)
    assert await other.wait(1.0)
    again = await claimed(other)
    assert (again.id, again.attempts_made) == (ids[0], 0)


async def test_settling_twice_or_with_a_lost_lock_changes_nothing(make: Make) -> None:
    queue, other = make(lock_ms=40)
    [job_id] = await queue.add([job()])
    taken = await claimed(queue)
    for outcome in (DONE, Failed("x"), Retry(0, "x"), Retry(10, "x"), Postpone(0), Release()):
        with pytest.raises(LeaseLost):
            await queue.settle(msgspec.structs.replace(taken, token="other"), outcome, fetch=True)
    await trio.sleep(0.06)
    with pytest.raises(LeaseLost):
        await other.settle(taken, DONE, fetch=True)
    assert (await queue.counts()).active == 1
    [gone] = await queue.remove([job_id])
    with pytest.raises(LeaseLost):
        await queue.settle(taken, DONE, fetch=False)
    assert gone == job_id
    await queue.add([job()])
    taken = await claimed(queue)
    await queue.settle(taken, DONE, fetch=False)
    with pytest.raises(LeaseLost):
        await queue.settle(taken, DONE, fetch=False)


async def test_many_settle_at_once(queue: Queue) -> None:
    total, slots = 600, 60
    await queue.add([job(data=i) for i in range(total)])
    seen: list[int] = []

    async def slot() -> None:
        claim: Claim | None = await queue.claim()
        while claim is not None and claim.job is not None:
            seen.append(msgspec.json.decode(claim.job.data))
            if len(seen) % 7 == 0:
                claim = await queue.settle(claim.job, Failed("seventh"), fetch=True)
            else:
                claim = await queue.settle(claim.job, DONE, fetch=True)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for _ in range(slots):
                nursery.start_soon(slot)
    assert sorted(seen) == list(range(total))
    counts = await queue.counts()
    assert (counts.completed + counts.failed, counts.active, counts.waiting) == (total, 0, 0)
    assert counts.failed == total // 7


async def test_one_lost_lock_among_many_harms_no_other(queue: Queue) -> None:
    await queue.add([job(data=i) for i in range(10)])
    taken = [await claimed(queue) for _ in range(10)]
    taken[4] = msgspec.structs.replace(taken[4], token="other")
    lost: list[int] = []

    async def end(at: int) -> None:
        try:
            await queue.settle(taken[at], DONE, fetch=False)
        except LeaseLost:
            lost.append(at)

    async with trio.open_nursery() as nursery:
        for at in range(10):
            nursery.start_soon(end, at)
    assert lost == [4]
    assert await queue.counts() == Counts(completed=9, active=1)


# ---- what stays


@pytest.mark.parametrize(
    ("keep", "left"), [(Keep(count=0), 0), (Keep(count=2), 2), (Keep(), 4), (Keep(age_s=100), 4), (None, 4)]
)
async def test_finished_jobs_are_kept_as_told(queue: Queue, keep: Keep | None, left: int) -> None:
    await queue.add([job(remove_on_complete=keep) for _ in range(4)])
    assert len(await names(queue)) == 4
    assert (await queue.counts()).completed == left
    await queue.add([job(remove_on_fail=keep) for _ in range(4)])
    while (claim := await queue.claim()).job is not None:
        await queue.settle(claim.job, Failed("x"), fetch=False)
    assert (await queue.counts()).failed == left


async def test_finished_jobs_go_with_age(queue: Queue) -> None:
    [old] = await queue.add([job()])
    await names(queue)
    await trio.sleep(1.1)
    [young] = await queue.add([job(remove_on_complete=Keep(age_s=1))])
    await names(queue)
    assert await queue.get(old) is None
    assert await queue.get(young) is not None


# ---- holding


async def test_extended_locks_live_on(make: Make) -> None:
    queue, _ = make(lock_ms=500)
    await queue.add([job("a"), job("b")])
    kept, lost = await claimed(queue), await claimed(queue)
    for _ in range(6):
        await trio.sleep(0.1)
        assert await queue.extend([kept]) == ()
    assert await queue.extend([kept, lost]) == (lost.id,)
    await queue.settle(kept, DONE, fetch=False)


async def test_stalled_jobs_come_back_and_too_often_stalled_ones_are_doomed(make: Make) -> None:
    crashed, queue = make(lock_ms=300, stalled_interval_ms=40, max_stalled_count=1)
    [job_id] = await queue.add([job(attempts=3)])
    await queue.add([job("other")])
    for round_ in (1, 2):
        taken = await claimed(crashed)
        assert taken.id == job_id, "a stalled job is first in line"
        sweep = await _until_swept(queue)
        assert (sweep.recovered, sweep.failed) == (((job_id,), ()) if round_ == 1 else ((), (job_id,)))
    doomed = await claimed(queue)
    assert (doomed.id, doomed.stalled) == (job_id, 2)
    assert doomed.doomed is not None
    assert "stalled" in doomed.doomed
    await queue.settle(doomed, Failed(doomed.doomed), fetch=False)
    assert await queue.requeue([job_id]) == (job_id,)
    assert (await claimed(queue)).name == "other"
    fresh = await claimed(queue)
    assert (fresh.id, fresh.doomed, fresh.stalled) == (job_id, None, 0)


async def _until_swept(queue: Queue) -> Any:
    with trio.fail_after(3):
        while True:
            sweep = await queue.recover_stalled()
            if sweep.recovered or sweep.failed:
                return sweep
            await trio.sleep(0.01)


async def test_a_job_whose_lock_is_renewed_never_stalls(make: Make) -> None:
    queue, other = make(lock_ms=500, stalled_interval_ms=30)
    await queue.add([job()])
    taken = await claimed(queue)
    for _ in range(6):
        await trio.sleep(0.1)
        assert await queue.extend([taken]) == ()
        sweep = await other.recover_stalled()
        assert (sweep.recovered, sweep.failed) == ((), ())


async def test_progress_and_log(queue: Queue) -> None:
    [job_id] = await queue.add([job(keep_logs=2)])
    taken = await claimed(queue)
    await queue.progress(taken, {"step": "fetch", "done": 3})
    for line in ("one", "two", "three"):
        await queue.log(taken, line)
    view = await queue.get(job_id)
    assert view is not None
    assert view.progress == {"step": "fetch", "done": 3}
    assert await queue.logs(job_id) == ("two", "three")
    assert await queue.logs(job_id, start=1, limit=5) == ("three",)


# ---- pause, limits


async def test_a_paused_queue_hands_nothing_out_and_loses_nothing(make: Make) -> None:
    queue, other = make()
    await queue.add([job("a", attempts=2), job("b")])
    taken = await claimed(queue)
    await other.pause(True)
    await queue.add([job("c")])
    assert (await queue.counts()).is_paused
    assert (await queue.claim()).job is None
    claim = await queue.settle(taken, Retry(0, "again"), fetch=True)
    assert claim is None or claim.job is None
    counts = await queue.counts()
    assert counts.waiting + counts.paused == 3
    while await queue.wait(0.02):
        pass
    await other.pause(False)
    assert await queue.wait(1.0)
    assert not (await queue.counts()).is_paused
    assert sorted(await names(queue)) == ["a", "b", "c"]


async def test_the_queues_own_concurrency(queue: Queue) -> None:
    await queue.limit(concurrency=2, rate=None)
    await queue.add([job() for _ in range(4)])
    first, _second = await claimed(queue), await claimed(queue)
    claim = await queue.claim()
    assert claim.job is None
    assert claim.wake_at is not None, "no marker tells when a place becomes free"
    while await queue.wait(0.02):
        pass
    await queue.settle(first, DONE, fetch=False)
    assert await queue.wait(1.0), "whoever ends a job without fetching wakes another worker"
    await claimed(queue)
    await queue.limit(concurrency=None, rate=None)
    await claimed(queue)


async def test_the_queues_own_rate_limit(queue: Queue) -> None:
    await queue.limit(concurrency=None, rate=(2, 150))
    await queue.add([job() for _ in range(3)])
    await claimed(queue)
    await claimed(queue)
    claim = await queue.claim()
    assert claim.job is None
    assert claim.limited
    assert claim.wake_at is not None
    with trio.fail_after(2):
        await trio.sleep_until(trio.current_time() + claim.wake_at / 1000 - time.time() + 0.02)
        await claimed(queue)


# ---- operators


async def test_requeue_many(queue: Queue) -> None:
    ids = await queue.add([job(attempts=1, data=i) for i in range(600)])
    while (claim := await queue.claim()).job is not None:
        outcome = Failed("x", ("t",)) if msgspec.json.decode(claim.job.data) % 2 else DONE
        await queue.settle(claim.job, outcome, fetch=False)
    moved = await queue.requeue([*ids, "unknown"])
    assert sorted(moved) == sorted(ids)
    assert await queue.requeue(ids) == ()
    counts = await queue.counts()
    assert (counts.waiting, counts.failed, counts.completed) == (600, 0, 0)
    taken = await claimed(queue)
    view = await queue.get(taken.id)
    assert view is not None
    assert (taken.attempts_made, view.failed_reason, view.return_value) == (0, None, None)


async def test_remove_leaves_what_somebody_holds(queue: Queue) -> None:
    ids = await queue.add([job("a"), job("b"), job("c", delay=60_000), job("d", priority=2)])
    held = await claimed(queue)
    assert await queue.remove([*ids, "unknown"]) == tuple(job_id for job_id in ids if job_id != held.id)
    assert await queue.counts() == Counts(active=1)


async def test_lists_are_pages_in_line_order(queue: Queue) -> None:
    ids = await queue.add([job(data=i) for i in range(5)])
    assert [v.job.id for v in await queue.list(JobState.WAITING, start=1, limit=2)] == list(ids[1:3])
    later = await queue.add([job(delay=9000), job(delay=5000)])
    assert [v.job.id for v in await queue.list(JobState.DELAYED)] == [later[1], later[0]]
    assert all(v.due_at is not None for v in await queue.list(JobState.DELAYED))
    first = await claimed(queue)
    assert [v.job.id for v in await queue.list(JobState.ACTIVE)] == [first.id]
    await queue.settle(first, DONE, fetch=False)
    await trio.sleep(0.002)
    await queue.settle(await claimed(queue), DONE, fetch=False)
    assert [v.job.id for v in await queue.list(JobState.COMPLETED)] == [ids[1], ids[0]]
    assert await queue.list(JobState.FAILED) == ()
    assert await queue.list(JobState.WAITING, limit=0) == ()


async def test_clean_drain_and_the_rest(queue: Queue) -> None:
    ids = await queue.add([job(data=i) for i in range(4)])
    assert await queue.oldest_waiting() is not None
    assert await queue.update_data(ids[3], {"new": 1})
    assert not await queue.update_data("unknown", 1)
    assert await queue.reprioritize(ids[2], 4)
    assert not await queue.reprioritize("unknown", 4)
    for _ in range(2):
        await queue.settle(await claimed(queue), DONE, fetch=False)
    assert await queue.clean(JobState.COMPLETED, grace_ms=60_000) == ()
    assert set(await queue.clean(JobState.COMPLETED, limit=10)) == set(ids[:2])
    changed = await claimed(queue)
    assert (changed.id, msgspec.json.decode(changed.data)) == (ids[3], {"new": 1})
    assert await queue.priorities() == {4: 1}
    await queue.add([job(delay=60_000)])
    await queue.drain()
    assert await queue.counts() == Counts(active=1, delayed=1)
    await queue.drain(delayed=True)
    assert await queue.counts() == Counts(active=1)
    assert await queue.oldest_waiting() is None
    assert await queue.get("unknown") is None


async def test_defaults_apply_where_the_producer_said_nothing(make: Make) -> None:
    defaults = JobOptions(attempts=4, backoff=Backoff("fixed", 70), remove_on_complete=Keep(count=1), stack_limit=3)
    queue, _ = make(defaults=defaults)
    await queue.add([job(), job(attempts=2, backoff=Backoff("exponential", 9, 0.5), remove_on_complete=Keep())])
    plain, own = await claimed(queue), await claimed(queue)
    assert (plain.options.attempts, plain.options.backoff) == (4, Backoff("fixed", 70))
    assert (plain.options.remove_on_complete, plain.options.stack_limit) == (Keep(count=1), 3)
    assert (own.options.attempts, own.options.backoff) == (2, Backoff("exponential", 9, 0.5))
    assert own.options.remove_on_complete == Keep()
