"""The consumer on the queue in memory, on a clock that jumps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from moonxd.adapters.memory.queue import MemoryQueue
from moonxd.agents.stalled import run_stalled_checker
from moonxd.domain.errors import LeaseLost, Permanent, Transient
from moonxd.domain.job import (
    Backoff,
    Claim,
    Completed,
    Counts,
    Failed,
    Job,
    JobOptions,
    JobState,
    NewJob,
    Outcome,
    Postpone,
    Release,
    Retry,
)
from moonxd.worker.consumer import Consumer

DONE = Completed(b"null")
Told = list[tuple[str, Outcome | None]]


class Flaky(MemoryQueue):
    """A queue whose server goes away: `away` calls raise; `lossy` answers are lost after the work was done."""

    away = 0
    lossy = 0

    async def claim(self) -> Claim:
        self._check()
        return await super().claim()

    async def settle(self, job: Job, outcome: Outcome, *, fetch: bool) -> Claim | None:
        self._check()
        claim = await super().settle(job, outcome, fetch=fetch)
        if self.lossy:
            self.lossy -= 1
            raise Transient("the answer was lost")
        return claim

    async def extend(self, jobs: Any) -> tuple[str, ...]:
        self._check()
        return await super().extend(jobs)

    async def wait(self, timeout: float) -> bool:
        self._check()
        return await super().wait(timeout)

    def _check(self) -> None:
        if self.away:
            self.away -= 1
            raise Transient("no Redis")


@asynccontextmanager
async def consuming(
    queue: MemoryQueue, handler: Callable[[Job], Awaitable[Outcome]], **options: Any
) -> AsyncIterator[tuple[Consumer, Told]]:
    """A consumer at work; `told` collects what it says about settled jobs."""
    told: Told = []
    options = {"slots": 3, "now": queue.now, "rand": lambda: 0.5} | options
    consumer = Consumer(queue, handler, on_settled=lambda job, outcome, s: told.append((job.name, outcome)), **options)
    with trio.fail_after(900):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(consumer.run)
            yield consumer, told
            nursery.cancel_scope.cancel()


def jobs(*names: str, **options: Any) -> list[NewJob]:
    return [NewJob(name=name, data=None, options=JobOptions(**options)) for name in names]


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 (the clock jumps: this costs no time)
        await trio.sleep(0.01)


async def test_every_job_runs_once_and_slots_bound_how_many_at_a_time(autojump_clock: MockClock) -> None:
    queue = MemoryQueue("q")
    at_once: list[int] = []
    running = 0

    async def handler(job: Job) -> Outcome:
        nonlocal running
        running += 1
        at_once.append(running)
        await trio.sleep(0.1)
        running -= 1
        return DONE

    await queue.add(jobs(*(str(n) for n in range(50))))
    async with consuming(queue, handler, slots=7) as (consumer, told):
        await until(lambda: len(told) == 50)
        assert max(at_once) == 7
        assert consumer.tally.completed == 50
        assert sorted(int(name) for name, _ in told) == list(range(50))
        assert consumer.busy == 0


async def test_an_idle_worker_only_waits_and_wakes_for_each_job(autojump_clock: MockClock) -> None:
    queue = MemoryQueue("q")
    claims: list[float] = []

    class Counting(MemoryQueue):
        async def claim(self) -> Claim:
            claims.append(trio.current_time())
            return await super().claim()

    queue = Counting("q")

    async def handler(job: Job) -> Outcome:
        await trio.lowlevel.checkpoint()
        return DONE

    async with consuming(queue, handler, slots=20) as (_, told):
        await trio.sleep(600)
        # 600 idle seconds: one look at the start and one in thirty seconds in case a marker was lost
        assert len(claims) <= 22
        for n in range(5):
            before = len(claims)
            await queue.add(jobs(str(n)))
            await until(lambda n=n: len(told) == n + 1)  # type: ignore[misc]
            await trio.sleep(1)
            assert len(claims) - before <= 4, "one job must not wake a herd"


async def test_delayed_jobs_run_on_time(autojump_clock: MockClock) -> None:
    queue = MemoryQueue("q")
    ran: list[float] = []

    async def handler(job: Job) -> Outcome:
        ran.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        return DONE

    async with consuming(queue, handler):
        began = trio.current_time()
        await queue.add(jobs("late", delay=90_000) + jobs("soon", delay=5_000))
        await until(lambda: len(ran) == 2)
        assert ran[0] - began == pytest.approx(5, abs=0.1)
        assert ran[1] - began == pytest.approx(90, abs=0.1)


async def test_outcomes_reach_the_queue(autojump_clock: MockClock) -> None:
    queue = MemoryQueue("q")
    script: dict[str, list[Outcome]] = {
        "ok": [DONE],
        "retry": [Retry(2000, "not yet"), DONE],
        "postponed": [Postpone(0), DONE],
        "dead": [Failed("never")],
    }

    async def handler(job: Job) -> Outcome:
        await trio.lowlevel.checkpoint()
        return script[job.name].pop(0)

    await queue.add(jobs(*script, attempts=3))
    async with consuming(queue, handler) as (consumer, told):
        await until(lambda: len(told) == 6)
        assert await queue.counts() == Counts(completed=3, failed=1)
        tally = consumer.tally
        assert (tally.completed, tally.failed, tally.retried, tally.postponed) == (3, 1, 1, 1)


async def test_a_handler_that_raises_is_a_failed_attempt_and_its_slot_goes_on(autojump_clock: MockClock) -> None:
    queue = MemoryQueue("q", defaults=JobOptions(attempts=3, backoff=Backoff("exponential", 1000)))
    raised: list[str] = []
    errors = {
        "bug": ValueError("oops"),
        "never": Permanent("bad address"),
        "group": ExceptionGroup("g", [OSError("x")]),
    }

    async def handler(job: Job) -> Outcome:
        await trio.lowlevel.checkpoint()
        if job.name in errors:
            raised.append(job.name)
            raise errors[job.name]
        return DONE

    await queue.add(jobs("bug", "never", "group", "good"))
    async with consuming(queue, handler, slots=1) as (_, told):
        await until(lambda: len(told) == 8)
        assert sorted(raised) == ["bug"] * 3 + ["group"] * 3 + ["never"]
        assert await queue.counts() == Counts(completed=1, failed=3)
        reasons = {view.job.name: view.failed_reason for view in await queue.list(JobState.FAILED)}
        assert reasons == {"bug": "oops", "never": "bad address", "group": "x"}


async def test_doomed_jobs_never_reach_the_handler(autojump_clock: MockClock) -> None:
    queue = MemoryQueue("q", lock_ms=1000, stalled_interval_ms=1000, max_stalled_count=0)
    [job_id] = await queue.add(jobs("poison"))
    await queue.claim()  # by a worker that crashed

    async def handler(job: Job) -> Outcome:
        raise AssertionError("it was to fail unrun")

    seen: list[str | None] = []

    async def doomed(job: Job) -> Outcome:
        seen.append(job.doomed)
        await trio.lowlevel.checkpoint()
        return Failed(job.doomed or "")

    async with consuming(queue, handler, doomed=doomed) as (_, told), trio.open_nursery() as nursery:

        async def check() -> None:
            await run_stalled_checker(queue, interval_s=1.0, rand=lambda: 0.0)

        nursery.start_soon(check)
        await until(lambda: told)
        nursery.cancel_scope.cancel()
    view = await queue.get(job_id)
    assert view is not None
    assert view.state is JobState.FAILED
    assert view.failed_reason == seen[0] == "job stalled more than allowable limit"


@pytest.mark.slow
async def test_locks_of_long_jobs_are_renewed(autojump_clock: MockClock) -> None:
    queue = MemoryQueue("q", lock_ms=30_000, stalled_interval_ms=30_000)

    async def handler(job: Job) -> Outcome:
        await trio.sleep(500)
        return DONE

    await queue.add(jobs("a", "b"))
    async with consuming(queue, handler) as (_, told), trio.open_nursery() as nursery:

        async def check() -> None:
            await run_stalled_checker(queue.other_worker(), interval_s=30.0)

        nursery.start_soon(check)
        await until(lambda: len(told) == 2)
        assert sorted(name for name, outcome in told if outcome is DONE) == ["a", "b"]
        nursery.cancel_scope.cancel()


async def test_a_lost_lock_stops_the_job_here_and_nothing_is_settled(autojump_clock: MockClock) -> None:
    queue = MemoryQueue("q", lock_ms=30_000)
    stopped: list[str] = []

    async def handler(job: Job) -> Outcome:
        try:
            await trio.sleep_forever()
        finally:
            stopped.append(job.id)

    [job_id] = await queue.add(jobs("a"))
    async with consuming(queue, handler) as (consumer, told):
        await until(lambda: consumer.busy)
        entry = queue._lines.jobs[job_id]
        entry.token = "somebody else"
        await until(lambda: told)
        assert told == [("a", None)]
        assert stopped == [job_id]
        assert entry.token == "somebody else"
        assert consumer.tally.lost == 1


async def test_a_handler_that_says_lease_lost_is_not_settled(autojump_clock: MockClock) -> None:
    queue = MemoryQueue("q")

    async def handler(job: Job) -> Outcome:
        await trio.lowlevel.checkpoint()
        raise LeaseLost("the wallet is somebody else's")

    await queue.add(jobs("a"))
    async with consuming(queue, handler) as (_, told):
        await until(lambda: told)
        assert told == [("a", None)]
        assert (await queue.counts()).active == 1


async def test_overlong_jobs_are_stopped_and_retried(autojump_clock: MockClock) -> None:
    queue = MemoryQueue("q", defaults=JobOptions(attempts=2, backoff=Backoff("fixed", 1000)))
    starts: list[float] = []

    async def handler(job: Job) -> Outcome:
        starts.append(trio.current_time())
        if job.name == "slow":
            await trio.sleep_forever()
        await trio.sleep(50)
        return DONE

    await queue.add(jobs("slow", "quick"))
    async with consuming(queue, handler, job_timeout_s=60.0) as (_, told):
        await until(lambda: len(told) == 3)
        assert told[0] == ("quick", DONE)
        assert isinstance(told[1][1], Retry)
        assert "longer than 60 s" in told[1][1].reason
        assert isinstance(told[2][1], Failed)
        assert starts[-1] - starts[0] == pytest.approx(61, abs=0.1)


async def test_an_operator_cancels_one_running_job(autojump_clock: MockClock) -> None:
    queue = MemoryQueue("q", defaults=JobOptions(attempts=5))
    reasons: list[bool] = []

    async def handler(job: Job) -> Outcome:
        try:
            await trio.sleep(10)
        except trio.Cancelled:
            reasons.append(consumer.is_cancelled(job.id))
            raise
        return DONE

    first, _ = await queue.add(jobs("a", "b"))
    async with consuming(queue, handler) as (consumer, told):
        await until(lambda: consumer.busy == 2)
        assert not consumer.cancel("unknown")
        assert consumer.cancel(first)
        assert not consumer.cancel(first), "once is enough"
        await until(lambda: len(told) == 2)
        assert told == [("a", Failed("cancelled by an operator")), ("b", DONE)]
        assert reasons == [True]


async def test_local_pause_lets_running_jobs_end_and_claims_no_more(autojump_clock: MockClock) -> None:
    queue = MemoryQueue("q")

    async def handler(job: Job) -> Outcome:
        await trio.sleep(1)
        return DONE

    async with consuming(queue, handler, slots=2) as (consumer, told):
        await queue.add(jobs("a", "b", "c", "d"))
        await until(lambda: consumer.busy == 2)
        consumer.pause()
        assert consumer.is_paused
        await trio.sleep(100)
        assert len(told) == 2
        assert (await queue.counts()).waiting == 2
        consumer.resume()
        await until(lambda: len(told) == 4)


async def test_a_drain_waits_then_hands_back(autojump_clock: MockClock) -> None:
    queue = MemoryQueue("q")
    cancelled: list[bool] = []

    async def handler(job: Job) -> Outcome:
        try:
            await trio.sleep(100 if job.name == "long" else 5)
        except trio.Cancelled:
            cancelled.append(consumer.is_cancelled(job.id))
            raise
        return DONE

    [long_id, *_] = await queue.add(jobs("long", "short", "waiting"))
    async with consuming(queue, handler, slots=2) as (consumer, told):
        await until(lambda: consumer.busy == 2)
        began = trio.current_time()
        await consumer.drain(20)
        assert trio.current_time() - began == pytest.approx(20, abs=0.1)
        assert told == [("short", DONE), ("long", Release())]
        assert cancelled == [False]
        assert consumer.busy == 0
        await trio.sleep(60)
        assert await queue.counts() == Counts(waiting=2, completed=1), "a drained consumer claims no more"
        job = (await queue.claim()).job
        assert job is not None
        assert (job.id, job.attempts_made) == (long_id, 0), "what was handed back is first in line"


async def test_a_drain_of_an_idle_consumer_ends_at_once(autojump_clock: MockClock) -> None:
    queue = MemoryQueue("q")

    async def handler(job: Job) -> Outcome:
        raise AssertionError

    async with consuming(queue, handler) as (consumer, _):
        await trio.sleep(100)
        began = trio.current_time()
        await consumer.drain(20)
        assert trio.current_time() - began < 1


async def test_being_cancelled_hands_everything_back(autojump_clock: MockClock) -> None:
    queue = MemoryQueue("q")

    async def handler(job: Job) -> Outcome:
        await trio.sleep_forever()
        raise AssertionError

    ids = await queue.add(jobs("a", "b", "c", "d"))
    async with consuming(queue, handler, slots=3) as (consumer, told):
        await until(lambda: consumer.busy == 3)
    assert await queue.counts() == Counts(waiting=4)
    assert {name for name, outcome in told} == {"a", "b", "c"}
    again = [(await queue.claim()).job for _ in ids]
    assert {job.id for job in again if job} == set(ids)


async def test_a_consumer_can_run_again_after_it_was_cancelled(autojump_clock: MockClock) -> None:
    queue = MemoryQueue("q")
    block = True

    async def handler(job: Job) -> Outcome:
        await trio.sleep(1000 if block else 0)
        return DONE

    await queue.add(jobs("a", "b"))
    async with consuming(queue, handler) as (consumer, told):
        await until(lambda: consumer.busy == 2)
    block = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(consumer.run)
        await until(lambda: consumer.tally.completed == 2)
        nursery.cancel_scope.cancel()
    assert len(told) == 4


async def test_while_the_server_is_away_claims_back_off_and_go_on(autojump_clock: MockClock) -> None:
    queue = Flaky("q")

    async def handler(job: Job) -> Outcome:
        await trio.lowlevel.checkpoint()
        return DONE

    queue.away = 6
    await queue.add(jobs("a"))
    async with consuming(queue, handler) as (_, told):
        await until(lambda: told)
        queue.away = 4
        await queue.add(jobs("b"))
        await until(lambda: len(told) == 2)


async def test_a_finished_job_is_settled_when_the_server_is_back(autojump_clock: MockClock) -> None:
    queue = Flaky("q", lock_ms=30_000)

    async def handler(job: Job) -> Outcome:
        await trio.sleep(1)
        queue.away = 6
        return DONE

    [job_id] = await queue.add(jobs("a"))
    async with consuming(queue, handler, slots=1) as (_, told):
        await until(lambda: told)
        assert told == [("a", DONE)]
        view = await queue.get(job_id)
        assert view is not None
        assert view.state is JobState.COMPLETED


async def test_settling_gives_up_when_the_lock_must_be_lost(autojump_clock: MockClock) -> None:
    queue = Flaky("q", lock_ms=30_000)

    async def handler(job: Job) -> Outcome:
        await trio.sleep(1)
        queue.away = 1_000_000
        return DONE

    await queue.add(jobs("a"))
    async with consuming(queue, handler, slots=1) as (consumer, told):
        began = trio.current_time()
        await until(lambda: told)
        assert told == [("a", None)]
        assert 29 < trio.current_time() - began < 35
        assert consumer.tally.lost == 1
        queue.away = 0


async def test_running_jobs_stop_when_their_locks_could_not_be_renewed(autojump_clock: MockClock) -> None:
    queue = Flaky("q", lock_ms=30_000)
    ended: list[float] = []

    async def handler(job: Job) -> Outcome:
        queue.away = 1_000_000
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    await queue.add(jobs("a"))
    async with consuming(queue, handler, slots=1) as (_, told):
        began = trio.current_time()
        await until(lambda: told)
        assert told == [("a", None)]
        assert 29 < ended[0] - began < 33
        queue.away = 0


async def test_listeners_that_break_hurt_nobody(autojump_clock: MockClock) -> None:
    queue = MemoryQueue("q")

    async def handler(job: Job) -> Outcome:
        await trio.lowlevel.checkpoint()
        return DONE

    def broken(*_: Any) -> None:
        raise RuntimeError("listener")

    await queue.add(jobs("a", "b"))
    consumer = Consumer(queue, handler, slots=1, now=queue.now, on_started=broken, on_settled=broken)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(consumer.run)
        await until(lambda: consumer.tally.completed == 2)
        nursery.cancel_scope.cancel()
    assert await queue.counts() == Counts(completed=2)


async def test_running_shows_what_is_in_the_slots(autojump_clock: MockClock) -> None:
    queue = MemoryQueue("q")

    async def handler(job: Job) -> Outcome:
        await trio.sleep(10)
        return DONE

    ids = await queue.add(jobs("a", "b"))
    async with consuming(queue, handler) as (consumer, _):
        await until(lambda: consumer.busy == 2)
        assert {view.job.id for view in consumer.running} == set(ids)
        assert not any(view.settling for view in consumer.running)
    assert consumer.running == ()


async def test_at_least_one_slot(autojump_clock: MockClock) -> None:
    async def handler(job: Job) -> Outcome:
        raise AssertionError

    with pytest.raises(ValueError, match="at least one slot"):
        Consumer(MemoryQueue("q"), handler, slots=0)
