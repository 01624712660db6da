"""npm's bullmq 5.x and 6.x beside us on one queue: as producer, as rival worker, as listener, as dashboard."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import msgspec
import pytest
import trio

from moonxd.adapters.bullmq.queue import BullQueue
from moonxd.domain.job import (
    Backoff,
    Completed,
    Failed,
    Job,
    JobOptions,
    JobState,
    JobView,
    Keep,
    NewJob,
    Outcome,
    Parent,
    Retry,
)
from tests.interop.harness import our_queue, succeed, until, until_counts, working
from tests.services.node import NodePeer, Start
from tests.services.redis import RedisServer

pytestmark = [pytest.mark.node, pytest.mark.redis]


@pytest.fixture
def server(redis_server: RedisServer, redis_url: str) -> RedisServer:
    return redis_server


@pytest.fixture(params=["bullmq5", "bullmq6"])
async def node(request: pytest.FixtureRequest, start_node: Start, server: RedisServer) -> AsyncIterator[NodePeer]:
    async with start_node(request.param, server) as peer:
        yield peer


async def test_their_jobs_our_worker(node: NodePeer, server: RedisServer) -> None:
    """Everything a producer may say reaches the handler, and Node reads how its jobs ended."""
    await node("listen", queue="q")
    options = {
        "attempts": 3,
        "backoff": {"type": "exponential", "delay": 20},
        "priority": 5,
        "removeOnComplete": {"count": 9},
    }
    ids = await node(
        "add",
        queue="q",
        jobs=[
            {"name": "ok", "data": {"n": 1}},
            {"name": "retried", "data": {"n": 2}, "opts": options},
            {"name": "dead", "data": {"n": 3}, "opts": {"jobId": "my-id", "backoff": 700, "stackTraceLimit": 1}},
            {"name": "later", "data": None, "opts": {"delay": 60}},
            {"name": "empty"},
        ],
    )
    seen: dict[str, Job] = {}

    async def handler(job: Job) -> Outcome:
        seen[job.name] = job
        await queue.progress(job, {"at": job.name})
        await queue.log(job, f"hello from {job.name}")
        if job.name == "retried" and job.attempts_made < 2:
            return Retry(20, "not yet", (f"trace {job.attempts_made}",))
        return Failed("never", ("where it broke",)) if job.name == "dead" else await succeed(job)

    async with our_queue(server) as queue, working(queue, handler) as (_, told):
        await until(lambda: len(told) == 7)
        counts = await queue.counts()
        assert (counts.completed, counts.failed) == (4, 1)
    assert seen["retried"].options.backoff == Backoff("exponential", 20)
    assert (seen["retried"].options.priority, seen["retried"].options.attempts) == (5, 3)
    assert seen["retried"].options.remove_on_complete == Keep(count=9)
    assert seen["dead"].options.backoff == Backoff("fixed", 700)
    done = await node("job", queue="q", id=ids[0])
    assert (done["state"], done["returnvalue"], done["attemptsMade"]) == (
        "completed",
        {"by": "moonxd", "data": {"n": 1}},
        1,
    )
    assert (done["progress"], done["processedBy"]) == ({"at": "ok"}, "ours")
    assert done["logs"] == {"logs": ["hello from ok"], "count": 1}
    retried = await node("job", queue="q", id=ids[1])
    assert (retried["state"], retried["attemptsMade"]) == ("completed", 3)
    assert retried["stacktrace"] == ["trace 0", "trace 1"]
    dead = await node("job", queue="q", id="my-id")
    assert (dead["state"], dead["failedReason"], dead["stacktrace"]) == ("failed", "never", ["where it broke"])
    heard = await node.until("heard", lambda told: any(e["kind"] == "drained" for e in told), queue="q")
    kinds = {event["kind"] for event in heard}
    assert kinds >= {"added", "waiting", "active", "progress", "delayed", "completed", "failed", "drained"}
    [value] = [e["returnvalue"] for e in heard if e["kind"] == "completed" and e["jobId"] == ids[0]]
    assert value == {"by": "moonxd", "data": {"n": 1}}
    assert [e["failedReason"] for e in heard if e["kind"] == "failed"] == ["never"]


async def test_our_jobs_their_worker(node: NodePeer, server: RedisServer) -> None:
    async with our_queue(server) as queue:
        options = JobOptions(attempts=2, backoff=Backoff("fixed", 10), priority=3)
        ids = await queue.add(
            [
                NewJob(name="plain", data={"n": 1}),
                NewJob(name="best", data={"n": 2}, options=options, id="our-id"),
                NewJob(name="later", data={"n": 3}, options=JobOptions(delay=50)),
                NewJob(name="once", data={"n": 4}, deduplication_id="d"),
                NewJob(name="once", data={"n": 5}, deduplication_id="d"),
            ]
        )
        assert ids[3] == ids[4]
        await node("work", queue="q", concurrency=2)
        await until_counts(queue, lambda c: c.completed == 4)
        view = await queue.get("our-id")
        assert view is not None
        assert view.return_value["n"] == 2
        stored = await node("job", queue="q", id="our-id")
        assert stored["opts"]["attempts"] == 2
        assert stored["opts"]["backoff"] == {"type": "fixed", "delay": 10}
        assert (await queue.add([NewJob(name="once", data=None, deduplication_id="d")]))[0] != ids[3]


async def test_node_retries_and_fails_our_jobs_as_we_asked(node: NodePeer, server: RedisServer) -> None:
    async with our_queue(server) as queue:
        [job_id] = await queue.add(
            [NewJob(name="x", data=1, options=JobOptions(attempts=3, backoff=Backoff("fixed", 5)))]
        )
        await node("work", queue="q", behaviour="fail")
        await until_counts(queue, lambda c: c.failed == 1)
        view = await queue.get(job_id)
        assert view is not None
        assert (view.job.attempts_made, view.failed_reason, len(view.stack)) == (3, "node says no", 3)
        await node("rest", queue="q")
        assert await queue.requeue([job_id]) == (job_id,)
        async with working(queue) as (_, told):
            await until(lambda: told)
        assert (await node("job", queue="q", id=job_id))["state"] == "completed"


async def test_rival_workers_share_a_queue_without_losing_or_doubling(node: NodePeer, server: RedisServer) -> None:
    total = 2000
    async with our_queue(server) as queue:
        await node("addMany", queue="q", count=total // 2)
        await queue.add([NewJob(name="work", data={"n": total // 2 + n}) for n in range(total // 2)])
        await node("work", queue="q", concurrency=10, delay=1)

        async def handler(job: Job) -> Outcome:
            await trio.sleep(0.002)
            return await succeed(job)

        async with working(queue, handler) as (_, told):
            await until_counts(queue, lambda c: c.completed == total, 60)
            theirs = await node("worked", queue="q")
            runs = Counter([job_id for job_id, _ in told] + theirs)
        assert len(runs) == total
        assert set(runs.values()) == {1}
        assert told, "we got some"
        assert theirs, "and so did they"
        counts = await queue.counts()
        assert (counts.active, counts.waiting) == (0, 0)


async def test_a_killed_node_worker_s_job_comes_to_us(node: NodePeer, server: RedisServer) -> None:
    async with our_queue(server, lock_ms=300, stalled_interval_ms=200) as queue:
        [job_id] = await queue.add([NewJob(name="x", data=1)])
        await node("work", queue="q", behaviour="hang", options={"lockDuration": 300, "stalledInterval": 200})
        await node.until("worked", lambda done: done == [job_id], queue="q")
        node.kill()
        async with working(queue, lock_s=0.3) as (_, told):
            with trio.fail_after(10):
                while not told:
                    await queue.recover_stalled()
                    await trio.sleep(0.05)
        assert told == [(job_id, Completed(b'{"by":"moonxd","data":1}'))]


async def test_flows_cross_languages(node: NodePeer, server: RedisServer) -> None:
    """A Node parent waits for children that we run; ours waits for children that Node runs."""
    tree = {
        "name": "parent",
        "queueName": "parents",
        "data": {},
        "children": [
            {"name": "a", "queueName": "q", "data": {"n": 1}},
            {"name": "b", "queueName": "q", "data": {"n": 2}},
        ],
    }
    made = await node("flow", tree=tree)
    async with our_queue(server) as children, our_queue(server, "parents") as parents:
        assert (await parents.counts()).waiting_children == 1
        async with working(children) as (_, told), working(parents) as (_, parents_told):
            await until(lambda: parents_told)
            assert len(told) == 2
        values = await node("childrenValues", queue="parents", id=made["id"])
        assert sorted(value["data"]["n"] for value in values.values()) == [1, 2]

        [parent_id] = await parents.add([NewJob(name="ours", data={}, has_children=True)])
        parent = Parent(parent_id, "bull:parents")
        await children.add([NewJob(name="c", data={"n": n}, parent=parent) for n in range(3)])
        assert (await parents.counts()).waiting_children == 1
        await node("work", queue="q", concurrency=3)
        await until_counts(parents, lambda c: c.waiting == 1)
        await node("work", queue="parents")
        view = await _until_completed(parents, parent_id)
        assert view.return_value["by"] in ("bullmq5", "bullmq6")


async def _until_completed(queue: BullQueue, job_id: str) -> JobView:
    with trio.fail_after(10):
        while (view := await queue.get(job_id)) is None or view.state is not JobState.COMPLETED:  # noqa: ASYNC110
            await trio.sleep(0.02)
    return view


@pytest.mark.parametrize(
    ("policy", "parent_fails"),
    [("failParentOnFailure", True), ("ignoreDependencyOnFailure", False), ("removeDependencyOnFailure", False),
     ("continueParentOnFailure", False)],
)  # fmt: skip
async def test_what_a_failed_child_does_to_its_parent(
    node: NodePeer, server: RedisServer, policy: str, parent_fails: bool
) -> None:
    child = {"name": "bad", "queueName": "q", "data": {}, "opts": {policy: True}}
    made = await node("flow", tree={"name": "p", "queueName": "parents", "data": {}, "children": [child]})

    async def fail(job: Job) -> Outcome:
        await trio.lowlevel.checkpoint()
        return Failed("bad child")

    async with our_queue(server) as children, our_queue(server, "parents") as parents:
        async with working(children, fail), working(parents) as (_, told):
            await until(lambda: told)
        view = await parents.get(made["id"])
    assert view is not None
    if parent_fails:
        assert view.state is JobState.FAILED
        assert view.failed_reason is not None
        assert "child" in view.failed_reason
    else:
        assert view.state is JobState.COMPLETED


async def test_limits_set_by_node_hold_here(node: NodePeer, server: RedisServer) -> None:
    await node("limit", queue="q", concurrency=3)
    running: list[int] = []

    async def handler(job: Job) -> Outcome:
        running.append(consumer.busy)
        await trio.sleep(0.01)
        return await succeed(job)

    async with our_queue(server) as queue:
        await node("addMany", queue="q", count=30)
        async with working(queue, handler) as (consumer, told):
            await until(lambda: len(told) == 30)
    assert max(running) <= 3


async def test_a_rate_limit_set_by_node_holds_here(node: NodePeer, server: RedisServer) -> None:
    await node("limit", queue="q", max=5, duration=200)
    starts: list[float] = []

    async def handler(job: Job) -> Outcome:
        starts.append(trio.current_time())
        return await succeed(job)

    async with our_queue(server) as queue:
        await node("addMany", queue="q", count=12)
        async with working(queue, handler) as (_, told):
            await until(lambda: len(told) == 12)
    assert 0.35 < starts[-1] - starts[0] < 2
    assert starts[5] - starts[0] > 0.15


async def test_deduplication_keys_hold_both_ways(node: NodePeer, server: RedisServer) -> None:
    wanted = {"name": "x", "data": {}, "opts": {"deduplication": {"id": "w"}}}
    first = await node("addOne", queue="q", job=wanted)
    async with our_queue(server) as queue:
        assert await queue.add([NewJob(name="x", data={}, deduplication_id="w")]) == (first,)
        async with working(queue) as (_, told):
            await until(lambda: told)
        assert await node("addOne", queue="q", job=wanted) != first


async def test_bull_board_shows_our_jobs(node: NodePeer, server: RedisServer) -> None:
    async def handler(job: Job) -> Outcome:
        return Failed("broken", ("trace",)) if job.name == "bad" else await succeed(job)

    async with our_queue(server) as queue:
        async with working(queue, handler) as (_, told):
            ids = await queue.add([NewJob(name=name, data={"for": name}) for name in ("good", "bad")])
            await until(lambda: len(told) == 2)
        await queue.add([NewJob(name="w", data=1), NewJob(name="d", data=1, options=JobOptions(delay=60_000))])
    await node("board", queues=["q"])
    answer = await node("look", path="/api/queues?activeQueue=q&status=completed&page=1&jobsPerPage=10")
    assert answer["status"] == 200
    [shown] = answer["body"]["queues"]
    counts = {name: shown["counts"][name] for name in ("completed", "failed", "waiting", "delayed", "active")}
    assert counts == {"completed": 1, "failed": 1, "waiting": 1, "delayed": 1, "active": 0}
    [job] = shown["jobs"]
    assert (job["id"], job["returnValue"]) == (ids[0], {"by": "moonxd", "data": {"for": "good"}})
    failed = await node("look", path="/api/queues?activeQueue=q&status=failed&page=1&jobsPerPage=10")
    [job] = failed["body"]["queues"][0]["jobs"]
    assert (job["failedReason"], job["stacktrace"]) == ("broken", ["trace"])


async def test_malformed_jobs_fail_with_a_reason_and_disturb_nobody(node: NodePeer, server: RedisServer) -> None:
    async with our_queue(server) as queue:
        ids = await node("addMany", queue="q", count=6)
        server.command("HDEL", f"bull:q:{ids[0]}", "data")
        server.command("HSET", f"bull:q:{ids[1]}", "opts", "{not json")
        server.command("HDEL", f"bull:q:{ids[2]}", "name")
        server.command("DEL", f"bull:q:{ids[3]}")
        server.command("HSET", f"bull:q:{ids[4]}", "opts", msgspec.json.encode({"attempts": "many"}))
        async with working(queue, slots=2) as (_, told):
            await until(lambda: len(told) == 6)
        views = [await queue.get(job_id) for job_id in ids[:5]]
        reasons = [view.failed_reason or "" for view in views if view is not None]
        assert all(reason.startswith("the job cannot be read") for reason in reasons)
        for reason, word in zip(reasons, ("data", "JSON", "name", "deleted", "attempts"), strict=True):
            assert word in reason
        assert (await queue.counts()).completed == 1
