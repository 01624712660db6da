"""What the queue and its consumer survive: a killed Redis, cut connections, forgotten scripts, killed workers."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from moonxd.agents.stalled import run_stalled_checker
from moonxd.domain.job import Completed, Counts, Failed, Job, JobOptions, NewJob, Outcome
from tests.interop.harness import our_queue, succeed, until, until_counts, working
from tests.services import ROOT
from tests.services.redis import RedisServer, die_with_parent

pytestmark = pytest.mark.redis


@pytest.fixture
def server(redis_server: RedisServer, redis_url: str) -> RedisServer:
    return redis_server


@asynccontextmanager
async def worker_process(server: RedisServer, takes_ms: float = 0) -> AsyncIterator[tuple[trio.Process, list[str]]]:
    """A worker of ours in its own process, and the ids of the jobs that it started."""
    command = [sys.executable, "-m", "tests.interop.our_worker", server.url, str(takes_ms)]
    started: list[str] = []

    async def read(stream: trio.abc.ReceiveStream) -> None:
        rest = b""
        async for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")
            started.extend(line.decode() for line in lines)

    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, cwd=ROOT, preexec_fn=die_with_parent)
    assert process.stdout is not None
    async with process.stdout, trio.open_nursery() as nursery:
        nursery.start_soon(read, process.stdout)
        try:
            yield process, started
        finally:
            process.kill()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                await process.wait()
            nursery.cancel_scope.cancel()


def jobs(count: int) -> list[NewJob]:
    return [NewJob(name="work", data={"n": n}) for n in range(count)]


@pytest.mark.chaos
async def test_a_killed_redis_comes_back_and_no_job_is_lost(start_redis: Callable[..., RedisServer]) -> None:
    """kill -9 under load, twice; everything that was acknowledged is done in the end."""
    server = start_redis(appendonly=True, appendfsync="always")
    total = 1500
    async with our_queue(server, lock_ms=1500, stalled_interval_ms=500, max_stalled_count=5) as queue:
        ids = set(await queue.add(jobs(total)))
        runs: Counter[str] = Counter()

        async def handler(job: Job) -> Outcome:
            runs[job.id] += 1
            await trio.sleep(0.004)
            return await succeed(job)

        async with working(queue, handler, slots=20, lock_s=1.5) as (consumer, _), trio.open_nursery() as nursery:

            async def check() -> None:
                await run_stalled_checker(queue, interval_s=0.5)

            nursery.start_soon(check)
            for part in (3, 2):
                await until(lambda part=part: consumer.tally.completed > total // part - 300)  # type: ignore[misc]
                server.kill()
                await trio.sleep(0.2)
                server.start()
            await until_counts(queue, lambda c: c.completed == total, 60)
            nursery.cancel_scope.cancel()
        assert set(runs) == ids
        counts = await queue.counts()
        assert (counts.active, counts.waiting, counts.failed) == (0, 0, 0)
        assert sum(runs.values()) - total <= 60, "a crash of Redis may repeat jobs that were running, no others"


async def test_cut_connections_lose_and_repeat_nothing(server: RedisServer) -> None:
    """A call whose answer never came may have claimed a job: it is found by its lock, not by stalling."""
    total = 1500
    runs: Counter[str] = Counter()

    async def handler(job: Job) -> Outcome:
        runs[job.id] += 1
        await trio.sleep(random.uniform(0, 0.004))
        return await succeed(job)

    async with our_queue(server) as queue:
        await queue.add(jobs(total))
        async with working(queue, handler, slots=16) as (_, told):
            for _ in range(12):
                await trio.sleep(0.05)
                server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            # Asked on another connection: ours may be just about to notice that it was cut.
            await until(lambda: server.command("ZCARD", "bull:q:completed") == total)
            await until(lambda: len(told) >= total)
        assert set(runs.values()) == {1}
        assert len(runs) == total
        assert await queue.counts() == Counts(completed=total)


async def test_scripts_that_redis_forgets_are_taught_again(server: RedisServer) -> None:
    total = 2000
    async with our_queue(server) as queue:
        await queue.add(jobs(total // 2))
        async with working(queue) as (_, told):
            for _ in range(20):
                server.command("SCRIPT", "FLUSH")
                await queue.add(jobs(total // 40))
                await trio.sleep(0.005)
            await until(lambda: len(told) == total)
        assert {type(outcome) for _, outcome in told} == {Completed}


async def test_two_processes_do_two_thousand_jobs_once_each(server: RedisServer) -> None:
    total = 2000
    async with our_queue(server) as queue:
        async with worker_process(server, 1) as (_, first), worker_process(server, 1) as (_, second):
            ids = set(await queue.add(jobs(total)))
            await until_counts(queue, lambda c: c.completed == total, 60)
            await until(lambda: len(first) + len(second) >= total)
        runs = Counter(first + second)
        assert set(runs) == ids
        assert set(runs.values()) == {1}
        assert first
        assert second


@pytest.mark.chaos
async def test_a_killed_worker_s_jobs_are_found_stalled_and_done(server: RedisServer) -> None:
    async with our_queue(server, lock_ms=400, stalled_interval_ms=200) as queue:
        ids = set(await queue.add(jobs(10)))
        async with worker_process(server, 60_000) as (process, started):
            await until(lambda: len(started) == 10)
            process.kill()
            await process.wait()
        async with working(queue, lock_s=0.4) as (_, told), trio.open_nursery() as nursery:

            async def check() -> None:
                while True:
                    await queue.recover_stalled()
                    await trio.sleep(0.1)

            nursery.start_soon(check)
            await until(lambda: len(told) == 10, 5)
            nursery.cancel_scope.cancel()
        assert {job_id for job_id, _ in told} == ids
        assert await queue.counts() == Counts(completed=10)


async def test_a_drained_worker_hands_its_jobs_to_another_within_a_second(server: RedisServer) -> None:
    taken: dict[str, float] = {}

    async def handler(job: Job) -> Outcome:
        taken[job.id] = trio.current_time()
        return await succeed(job)

    async with our_queue(server) as queue, worker_process(server, 60_000) as (process, started):
        plain = [NewJob(name="work", data=0, options=JobOptions(priority=n % 2 * 5)) for n in range(10)]
        ids = set(await queue.add(plain))
        await until(lambda: len(started) == 10)
        async with working(queue, handler):
            await trio.sleep(0.1)
            assert not taken
            process.send_signal(signal.SIGTERM)
            began = trio.current_time()
            await until(lambda: len(taken) == 10, 5)
            assert max(taken.values()) - began < 0.2 + 1.0, "its drain time, and a second"
            await process.wait()
        assert set(taken) == ids
        view = await queue.get(next(iter(ids)))
        assert view is not None
        assert view.job.attempts_made == 1, "the hand-back was not counted"


async def test_cancelling_consumers_at_any_moment_forgets_no_job(server: RedisServer) -> None:
    total = 600
    done: Counter[str] = Counter()

    async def handler(job: Job) -> Outcome:
        await trio.sleep(random.uniform(0, 0.003))
        done[job.id] += 1
        return Failed("odd") if int(job.id) % 2 else await succeed(job)

    async with our_queue(server) as queue:
        await queue.add(jobs(total))
        for _ in range(40):
            async with working(queue, handler, slots=8):
                await trio.sleep(random.uniform(0.0, 0.02))
            counts = await queue.counts()
            assert counts.active == 0, "whatever was claimed is settled or handed back"
            assert counts.waiting + counts.completed + counts.failed == total
        async with working(queue, handler, slots=8):
            await until_counts(queue, lambda c: c.completed + c.failed == total)
        counts = await queue.counts()
        assert (counts.completed, counts.failed, counts.waiting) == (total // 2, total // 2, 0)


async def test_an_idle_worker_asks_redis_for_nothing(server: RedisServer) -> None:
    async with our_queue(server) as queue, working(queue, slots=50) as (_, told):
        await queue.add(jobs(3))
        await until(lambda: len(told) == 3)
        await trio.sleep(0.2)
        server.command("CONFIG", "RESETSTAT")
        await trio.sleep(1.0)
        stats = server.command("INFO", "commandstats").decode()
        calls = {line.partition(":")[0].removeprefix("cmdstat_") for line in stats.splitlines() if ":" in line}
        assert calls <= {"config|resetstat", "config", "info"}
        await queue.add(jobs(1))
        await until(lambda: len(told) == 4, 1)
