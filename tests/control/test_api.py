"""The API through the real client, over a real queue."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx
import msgspec
import pytest
import trio

from moonxd.api import calls
from moonxd.api.client import ApiError
from moonxd.api.messages import DependencyState, EnqueueRequest, PauseRequest, WorkerView
from moonxd.api.schema import Child
from moonxd.domain.errors import Permanent, Transient
from moonxd.domain.fleet import Answer
from moonxd.domain.job import PRIORITIES, Completed, Failed, JobOptions, Keep
from moonxd.domain.ledger import Admission, Admitted, Commit, Event, Lease
from moonxd.domain.money import amount
from moonxd.domain.token import Holding
from tests.control.harness import WALLET, Served, serving
from tests.services.redis import RedisServer, until

ASK = EnqueueRequest(type="portfolio-sync", user_id="u1", wallet_address=WALLET)


async def raw(bench: Served, method: str, path: str, **arguments: object) -> httpx.Response:
    """Any request, also such as our client would never send."""

    def send() -> httpx.Response:
        transport = httpx.HTTPTransport(uds=str(bench.socket))
        with httpx.Client(transport=transport, base_url="http://moonxd") as client:
            return client.request(method, path, **arguments)  # type: ignore[arg-type]

    return await trio.to_thread.run_sync(send)


def error_of(response: httpx.Response) -> dict[str, str]:
    error: dict[str, str] = response.json()["error"]
    return error


# ---- enqueue -----------------------------------------------------------------------------------------------------


async def test_enqueue_writes_what_existing_workers_read(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        ask = msgspec.structs.replace(
            ASK, priority="high", chain_ids=("base", 1, "56"), force_refresh=True, metadata={"from": "test"}
        )
        accepted = await bench.call(calls.enqueue(ask))
        assert (accepted.state, accepted.existing) == ("prioritized", False)
        job = await bench.claim()
        assert (job.id, job.name, job.options.priority) == (accepted.job_id, "portfolio-sync", 1)
        payload = json.loads(job.data)
        assert payload.pop("triggeredAt") == job.timestamp
        assert payload == {
            "userId": "u1",
            "walletAddress": WALLET,
            "priority": "high",
            "syncType": "portfolio",
            "forceRefresh": True,
            "chainIds": [8453, 1, 56],
            "metadata": {"from": "test"},
        }


@pytest.mark.parametrize(
    ("type", "priority"), [("portfolio-sync", "medium"), ("bulk-sync", "low"), ("chain-sync", "low")]
)
async def test_work_in_bulk_waits_behind_single_wallets_unless_somebody_says_otherwise(
    redis_url: str, socket_path: Path, type: str, priority: str
) -> None:
    async with serving(redis_url, socket_path) as bench:
        ask = EnqueueRequest(type=type, user_id="u1", wallet_address=WALLET, chain_ids=(1,))
        await bench.call(calls.enqueue(ask))
        job = await bench.claim()
        assert (job.options.priority, json.loads(job.data)["priority"]) == (PRIORITIES[priority], priority)
        await bench.call(calls.enqueue(msgspec.structs.replace(ask, priority="high")))
        assert (await bench.claim()).options.priority == 1


async def test_delayed_job_waits_and_can_be_promoted(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        accepted = await bench.call(calls.enqueue(msgspec.structs.replace(ASK, delay=60_000)))
        assert accepted.state == "delayed"
        job = await bench.call(calls.job(accepted.job_id))
        assert job.timestamps.due is not None
        assert abs(job.timestamps.due - job.timestamps.created - 60_000) < 5
        assert (await bench.call(calls.promote(accepted.job_id))).state == "prioritized"
        with pytest.raises(ApiError, match="is prioritized, not delayed") as refused:
            await bench.call(calls.promote(accepted.job_id))
        assert refused.value.status == 409


async def test_kept_job_of_the_same_id_is_reported_not_added(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        ask = msgspec.structs.replace(ASK, job_id="mine")
        assert not (await bench.call(calls.enqueue(ask))).existing
        await bench.end_next(Completed(b"{}"))
        again = await bench.call(calls.enqueue(ask))
        assert (again.job_id, again.state, again.existing) == ("mine", "completed", True)
        assert (await bench.queue.counts()).completed == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"type": "nonsense"}, "there is no job type 'nonsense'"),
        ({"wallet_address": "0x12"}, "has 2 hex digits"),
        ({"wallet_address": "0x" + "aB" * 20}, "checksum"),
        ({"chain_ids": ("dogechain",)}, "unknown chain 'dogechain'"),
        ({"job_id": "123"}, "is a number"),
        ({"job_id": "a:b"}, "contains ':'"),
    ],
)
async def test_bad_asks_are_refused_with_what_to_do(
    redis_url: str, socket_path: Path, changes: dict[str, object], said: str
) -> None:
    async with serving(redis_url, socket_path) as bench:
        with pytest.raises(ApiError, match=said) as refused:
            await bench.call(calls.enqueue(msgspec.structs.replace(ASK, **changes)))
        assert refused.value.status == 400
        assert (await bench.queue.counts()).prioritized == 0
    if "type" in changes:
        assert refused.value.hint == "use one of: portfolio-sync, sync-job, bulk-sync, chain-sync, token-metadata"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "has no body"),
        (b"{", "truncated"),
        (b"[1]", "Expected `object`"),
        (b'{"type":"portfolio-sync"}', "the payload has no userId: it is required"),
        (b'{"type":"portfolio-sync","userId":7,"walletAddress":"x"}', "at `$.userId`"),
        (b'{"type":"portfolio-sync","userId":"u","walletAddress":"x","chains":["base"]}', "unknown field `chains`"),
        (b'{"type":"portfolio-sync","userId":"u","walletAddress":"x","delay":-1}', "at `$.delay`"),
        (b'{"type":"portfolio-sync","userId":"u","walletAddress":"x","priority":"urgent"}', "at `$.priority`"),
    ],
)
async def test_malformed_bodies_name_the_path(redis_url: str, socket_path: Path, body: bytes, said: str) -> None:
    async with serving(redis_url, socket_path) as bench:
        response = await raw(bench, "POST", "/jobs", content=body)
        assert response.status_code == 400
        assert said in error_of(response)["message"]


@pytest.mark.parametrize("megabytes", [2, 20])
async def test_oversized_body_is_413_or_cut_and_disturbs_nobody(
    redis_url: str, socket_path: Path, megabytes: int
) -> None:
    async with serving(redis_url, socket_path) as bench:
        body = b'{"metadata":{"x":"' + b"y" * (megabytes * 1_000_000) + b'"}}'
        try:
            response = await raw(bench, "POST", "/jobs", content=body)
        except httpx.TransportError:
            assert megabytes == 20
        else:
            assert response.status_code == 413
            assert error_of(response)["code"] == "too-large"
        assert (await bench.call(calls.enqueue(ASK))).state == "prioritized"


# ---- look, cancel ------------------------------------------------------------------------------------------------


async def test_ended_job_shows_result_or_reason(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        done = await bench.call(calls.job(await bench.add_completed(b'{"success":true,"tokensSync":3}')))
        assert (done.state, done.result) == ("completed", {"success": True, "tokensSync": 3})
        assert done.timestamps.finished is not None
        failed = await bench.call(calls.job(await bench.add_failed("the endpoint hung")))
        assert (failed.state, failed.reason, failed.attempts) == ("failed", "the endpoint hung", 1)
        assert failed.data == {"userId": "u1", "walletAddress": WALLET}


async def test_log_lines_of_a_job_are_shown(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        await bench.add()
        job = await bench.claim()
        await bench.queue.log(job, "base answered late")
        await bench.queue.progress(job, {"step": "price"})
        shown = await bench.call(calls.job(job.id))
        assert (shown.state, shown.logs, shown.progress) == ("active", ("base answered late",), {"step": "price"})


async def test_unknown_job_is_404(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        for call in (calls.job("nope"), calls.cancel("nope"), calls.promote("nope"), calls.wait_for_job("nope", 1)):
            with pytest.raises(ApiError, match="there is no job 'nope'") as refused:
                await bench.call(call)
            assert (refused.value.status, refused.value.code) == (404, "not-found")


async def test_ids_with_odd_characters_reach_the_job(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        for job_id in ("a/b", "a b?c#d", "sync:u1:w1", "ä%2F"):
            await bench.add(id=job_id)
            assert (await bench.call(calls.job(job_id))).job_id == job_id
            assert (await bench.call(calls.cancel(job_id))).cancelled


@pytest.mark.parametrize("state", ["waiting", "delayed", "prioritized"])
async def test_job_that_waits_is_cancelled_by_removal(redis_url: str, socket_path: Path, state: str) -> None:
    options = {"delayed": JobOptions(delay=60_000), "prioritized": JobOptions(priority=3)}.get(state, JobOptions())
    async with serving(redis_url, socket_path) as bench:
        job_id = await bench.add(options=options)
        cancelled = await bench.call(calls.cancel(job_id))
        assert (cancelled.cancelled, cancelled.state) == (True, state)
        assert await bench.queue.get(job_id) is None


async def test_job_that_runs_here_is_cancelled_until_it_is_too_late(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        await bench.add()
        job = await bench.claim()
        with pytest.raises(ApiError, match="it is too late to cancel job") as refused:
            await bench.call(calls.cancel(job.id))
        assert refused.value.status == 409
        bench.cancellable.add(job.id)
        assert (await bench.call(calls.cancel(job.id))).state == "active"


async def test_job_that_runs_elsewhere_is_cancelled_by_its_own_worker(redis_url: str, socket_path: Path) -> None:
    answers: list[Answer | None] = [None, Answer(done=False), Answer(done=True)]
    asked: list[tuple[str, str, str]] = []

    async def ask(worker: str, verb: str, about: str) -> Answer | None:
        asked.append((worker, verb, about))
        return answers.pop(0)

    async with serving(redis_url, socket_path, worker="operators", ask_worker=ask) as bench:
        await bench.add()
        job = await bench.claim()
        with pytest.raises(ApiError, match="running on worker 'test-worker', which does not answer") as refused:
            await bench.call(calls.cancel(job.id))
        assert refused.value.status == 409
        assert (await bench.call(calls.cancel(job.id))).cancelled, "it was between two states the first time"
    assert asked == [("test-worker", "cancel", job.id)] * 3


async def test_job_on_a_worker_that_nobody_can_ask_is_409(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path, worker="operators") as bench:
        await bench.add()
        job = await bench.claim()
        with pytest.raises(ApiError, match="is running on worker 'test-worker'") as refused:
            await bench.call(calls.cancel(job.id))
        assert refused.value.status == 409


async def test_another_worker_is_paused_by_its_name(redis_url: str, socket_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    async def ask(worker: str, verb: str, _about: str) -> Answer | None:
        asked.append((worker, verb))
        return Answer(done=True) if worker == "w2" else None

    async with serving(redis_url, socket_path, ask_worker=ask) as bench:
        paused = await bench.call(calls.pause(PauseRequest(worker="w2")))
        assert (paused.scope, paused.name, paused.is_paused) == ("worker", "w2", True)
        assert not (await bench.call(calls.resume(PauseRequest(worker="w2")))).is_paused
        with pytest.raises(ApiError, match="worker 'w3' does not answer"):
            await bench.call(calls.pause(PauseRequest(worker="w3")))
        assert not bench.worker_paused
    assert asked == [("w2", "pause"), ("w2", "resume"), ("w3", "pause")]


async def test_ended_job_cannot_be_cancelled(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        with pytest.raises(ApiError, match="has already ended \\(completed\\)"):
            await bench.call(calls.cancel(await bench.add_completed()))
        with pytest.raises(ApiError, match="has already ended \\(failed\\)") as refused:
            await bench.call(calls.cancel(await bench.add_failed("x")))
        assert refused.value.hint == "use requeue to run it again"


async def test_pages_of_jobs(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        failed = await bench.add_failed("x")
        waiting = [await bench.add() for _ in range(3)]
        assert [job.job_id for job in (await bench.call(calls.jobs())).jobs] == [failed, *waiting]
        assert [job.job_id for job in (await bench.call(calls.jobs(start=1, limit=2))).jobs] == waiting[:2]
        assert [job.job_id for job in (await bench.call(calls.jobs("waiting", start=1))).jobs] == waiting[1:]
        assert (await bench.call(calls.jobs("completed"))).jobs == ()
        with pytest.raises(ApiError, match="no job state 'asleep'") as refused:
            await bench.call(calls.jobs("asleep"))
        assert "waiting-children" in (refused.value.hint or "")
        assert (await raw(bench, "GET", "/jobs?limit=0")).status_code == 400
        assert (await raw(bench, "GET", "/jobs?limit=ten")).status_code == 400


# ---- waiting for the end -----------------------------------------------------------------------------------------


async def test_waiter_hears_of_the_end_from_the_worker(redis_url: str, socket_path: Path) -> None:
    """Also of a job that the queue removes as soon as it has ended."""
    async with serving(redis_url, socket_path) as bench:
        job_id = await bench.add(options=JobOptions(remove_on_complete=Keep(count=0)))
        seen = []

        async def wait() -> None:
            seen.append(await bench.call(calls.wait_for_job(job_id, 20)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            outcome = Completed(b'{"success":true}')
            bench.plane.settled(await bench.end_next(outcome), outcome)
        assert (seen[0].state, seen[0].result) == ("completed", {"success": True})
        assert await bench.queue.get(job_id) is None


async def test_waiter_sees_the_end_of_a_job_run_by_another_worker(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        job_id = await bench.add(options=JobOptions(attempts=1))
        seen = []

        async def wait() -> None:
            seen.append(await bench.call(calls.wait_for_job(job_id, 20)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await bench.end_next(Failed("broke elsewhere"))
        assert (seen[0].state, seen[0].reason) == ("failed", "broke elsewhere")


async def test_waiter_is_told_that_the_job_has_vanished(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        job_id = await bench.add()
        refused = []

        async def wait() -> None:
            with pytest.raises(ApiError, match="is gone") as error:
                await bench.call(calls.wait_for_job(job_id, 20))
            refused.append(error.value.code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await until(lambda: bench.plane.waiters == 1)
            # The waiter has to have seen it: its first look is on the way when it is counted.
            await bench.queue.counts()
            await bench.queue.remove([job_id])
        assert refused == ["gone"]


async def test_wait_ends_with_the_state_as_it_is(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        job_id = await bench.add()
        assert (await bench.call(calls.wait_for_job(job_id, 0.05))).state == "waiting"
        assert (await raw(bench, "GET", f"/v1/jobs/{job_id}/wait?timeout=3600")).status_code == 400


# ---- pause -------------------------------------------------------------------------------------------------------


async def test_pause_of_queue_and_of_this_worker(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        paused = await bench.call(calls.pause(PauseRequest(reason="deploy")))
        assert (paused.scope, paused.name, paused.is_paused) == ("queue", bench.queue.name, True)
        assert (await bench.queue.counts()).is_paused
        assert not bench.worker_paused
        assert not (await bench.call(calls.resume())).is_paused
        assert not (await bench.queue.counts()).is_paused
        assert (await bench.call(calls.pause(PauseRequest(worker="this")))).name == "test-worker"
        assert bench.worker_paused
        await bench.call(calls.resume(PauseRequest(worker="test-worker")))
        assert not bench.worker_paused


async def test_pause_without_a_body_pauses_the_queue(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        assert (await raw(bench, "POST", "/workers/pause")).json()["isPaused"] is True


async def test_pausing_what_is_not_here_says_so(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        with pytest.raises(ApiError, match="'other-1' is not this daemon"):
            await bench.call(calls.pause(PauseRequest(worker="other-1")))
        with pytest.raises(ApiError, match="serves no queue 'emails'"):
            await bench.call(calls.pause(PauseRequest(queue="emails")))
        assert not (await bench.queue.counts()).is_paused


# ---- health, status, statistics ----------------------------------------------------------------------------------


async def test_existing_dashboards_find_their_paths(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        for prefix in ("", "/v1"):
            for path in ("/health", "/health/live", "/health/ready", "/metrics", "/queue-stats", "/jobs", "/workers"):
                assert (await raw(bench, "GET", prefix + path)).status_code == 200, path
        health = (await raw(bench, "GET", "/health")).json()
        assert health["schedulerStats"] == {
            "enabled": False,
            "running": False,
            "totalUsers": 0,
            "activeUsers": 0,
            "isMarketHours": False,
            "nextScheduledSync": "not_scheduled",
        }
        metrics = await raw(bench, "GET", "/metrics")
        assert metrics.text == "sync_jobs_active 0\n"
        assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")


async def test_metrics_may_measure_first(redis_url: str, socket_path: Path) -> None:
    async def measured() -> bytes:
        await trio.lowlevel.checkpoint()
        return b"moonxd_up 1\n"

    async with serving(redis_url, socket_path, metrics=measured) as bench:
        assert (await raw(bench, "GET", "/metrics")).text == "moonxd_up 1\n"


async def test_ready_names_the_dependency_and_why(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        assert (await bench.call(calls.ready())).status == "ready"
        bench.dependencies["database"] = DependencyState(ok=False, detail="no answer; is PostgreSQL running?")
        bench.dependencies["kafka"] = DependencyState(ok=False, required=False)
        response = await raw(bench, "GET", "/health/ready")
        assert response.status_code == 503
        assert response.json()["problems"] == ["database: no answer; is PostgreSQL running?"]
        assert (await bench.call(calls.ready())).status == "not-ready"


async def test_draining_daemon_is_not_ready(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        bench.state = "draining"
        assert (await bench.call(calls.ready())).problems == ("the daemon is draining: it takes no more jobs",)


async def test_failed_part_degrades_health_but_not_liveness(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        bench.children = (
            Child(name="relay", state="failed", critical=False, restarts=9, since=0, last_error="no broker"),
        )
        health = await bench.call(calls.health())
        assert (health.status, health.problems) == ("degraded", ("relay has failed: no broker",))
        assert (await raw(bench, "GET", "/health/live")).status_code == 200


async def test_queue_stats_count_states_and_priorities(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        await bench.add_failed("x")
        await bench.add(options=JobOptions(priority=10))
        for _ in range(2):
            await bench.add(options=JobOptions(priority=1))
        stats = await bench.call(calls.queue_stats())
        assert (stats.counts["prioritized"], stats.counts["failed"]) == (3, 1)
        assert stats.by_priority == {"1": 2, "10": 1}
        assert stats.oldest_waiting_age is not None
        assert 0 <= stats.oldest_waiting_age < 5


async def test_status_and_version_and_workers(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        await bench.add()
        assert (await bench.call(calls.status())).queue.waiting == 1
        version = await bench.call(calls.version())
        assert (version.pid, version.worker, version.queue) == (os.getpid(), "test-worker", bench.queue.name)
        assert version.job_types == ("portfolio-sync", "sync-job", "bulk-sync", "chain-sync", "token-metadata")
        (worker,) = (await bench.call(calls.workers())).workers
        assert (worker.worker, worker.slots, worker.host) == ("test-worker", 10, "testhost")


async def test_workers_of_the_whole_fleet(redis_url: str, socket_path: Path) -> None:
    async def fleet() -> tuple[WorkerView, ...]:
        common = {"queue": "q", "host": "h", "pid": 1, "version": "1", "state": "running", "slots": 1, "slots_busy": 0}
        return tuple(
            WorkerView(worker=name, is_paused=False, started_at=0, seen_at=0, **common)  # type: ignore[arg-type]
            for name in ("a", "b")
        )

    async with serving(redis_url, socket_path, workers=fleet) as bench:
        assert [worker.worker for worker in (await bench.call(calls.workers())).workers] == ["a", "b"]


# ---- the ledger --------------------------------------------------------------------------------------------------


async def commit_one(bench: Served) -> None:
    operation = uuid4()
    admitted = await bench.ledger.admit(
        Admission(
            operation=operation,
            user_id="u1",
            wallet=WALLET,
            sync_type="portfolio",
            priority="high",
            queue="q",
            job_id="1",
            attempt=1,
            max_attempts=3,
            worker_id="w",
            worker_version="1",
            lease_s=30,
        )
    )
    assert isinstance(admitted, Admitted)
    raw_balance = 2**256 - 1
    holding = Holding(
        chain_id=8453,
        address="0x" + "cd" * 20,
        symbol="BIG",
        name="Big",
        decimals=18,
        raw=raw_balance,
        amount=amount(raw_balance, 18),
        price_usd=None,
        value_usd=None,
    )
    await bench.ledger.commit(
        Commit(
            lease=Lease(operation, "u1", WALLET, admitted.fence),
            sync_type="portfolio",
            chains=(8453,),
            changed=(holding,),
            removed=(),
            snapshot=None,
            snapshot_type="sync",
            total_value_usd=amount(125, 2),
            tokens_count=1,
            chains_synced=1,
            duration_ms=12,
            result={},
            events=(
                Event(
                    id=uuid4(),
                    type="sync.completed",
                    topic="sync.events",
                    key="u1",
                    wallet=WALLET,
                    body=b'{"data":{"success":true}}',
                ),
            ),
        )
    )


async def test_portfolio_operations_and_events_of_a_synced_wallet(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        await commit_one(bench)
        reply = await bench.call(calls.portfolio(WALLET.upper().replace("X", "x", 1), "u1"))
        (portfolio,) = reply.portfolios
        (holding,) = portfolio.holdings
        assert holding.balance == str(2**256 - 1), "exact, as text"
        assert holding.amount == amount(2**256 - 1, 18)
        assert (holding.chain, holding.price_usd) == ("base", None)
        assert portfolio.last_sync_at is not None
        assert abs((datetime.now(UTC) - portfolio.last_sync_at).total_seconds()) < 60
        (row,) = (await bench.call(calls.operations(user="u1", wallet=WALLET, status="completed"))).operations
        assert (row.user_id, row.tokens_sync, row.duration) == ("u1", 1, 12)
        page = await bench.call(calls.events())
        assert json.loads(bytes(page.events[0].body)) == {"data": {"success": True}}
        assert (page.backlog, page.next) == (1, page.events[0].position)
        assert (await bench.call(calls.events(page.next))).events == ()


async def test_questions_the_ledger_cannot_answer(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        with pytest.raises(ApiError, match="was never synced for user 'u9'"):
            await bench.call(calls.portfolio(WALLET, "u9"))
        with pytest.raises(ApiError, match="does not start with 0x"):
            await bench.call(calls.portfolio("vitalik.eth"))
        with pytest.raises(ApiError, match="no operation status 'odd'"):
            await bench.call(calls.operations(status="odd"))


# ---- when things go wrong ----------------------------------------------------------------------------------------


async def test_unknown_paths_and_methods_are_json_errors(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        missing = await raw(bench, "GET", "/v2/jobs")
        assert (missing.status_code, error_of(missing)["code"]) == (404, "not-found")
        assert (await raw(bench, "PATCH", "/jobs")).status_code == 405
        listed = (await raw(bench, "GET", "/v1")).json()["paths"]
        assert {"POST /v1/jobs", "POST /jobs", "GET /v1/stream"} <= set(listed)


async def test_redis_away_is_503_with_retry_after(start_redis: type[RedisServer], socket_path: Path) -> None:
    server = start_redis()
    async with serving(server.url, socket_path) as bench:
        job_id = await bench.add()
        server.kill()
        response = await raw(bench, "GET", f"/jobs/{job_id}")
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
        assert error_of(response)["code"] == "unavailable"
        with pytest.raises(ApiError) as unsure:
            await bench.call(calls.enqueue(ASK))
        assert unsure.value.status == 503
        assert "give a jobId" in (unsure.value.hint or "")
        assert (await raw(bench, "GET", "/health/live")).status_code == 200


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Transient("Redis is away", retry_after=2.5), 503, "unavailable"),
        (Permanent("the table is not ours"), 422, "refused"),
        (trio.TooSlowError(), 504, "too-slow"),
        (ExceptionGroup("g", [Transient("both")]), 503, "unavailable"),
    ],
)
async def test_errors_of_the_parts_become_answers(
    redis_url: str, socket_path: Path, error: Exception, status: int, code: str
) -> None:
    async def broken() -> None:
        raise error

    async with serving(redis_url, socket_path, sample=broken) as bench:
        response = await raw(bench, "GET", "/v1/status")
        assert (response.status_code, error_of(response)["code"]) == (status, code)
        if isinstance(error, Transient):
            assert response.headers["retry-after"] == "3"


async def test_unexpected_error_is_a_500_with_an_id_and_no_details(
    redis_url: str, socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> None:
        raise KeyError("postgres://user:secret@host")

    async with serving(redis_url, socket_path, sample=broken) as bench:
        response = await raw(bench, "GET", "/v1/status")
        assert response.status_code == 500
        assert "secret" not in response.text
        (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert record.error_id in error_of(response)["message"]  # type: ignore[attr-defined]
        assert (await bench.call(calls.version())).worker == "test-worker", "the server goes on"


async def test_changes_are_logged_with_who_asked(
    redis_url: str, socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "moonxd.control")
    async with serving(redis_url, socket_path) as bench:
        await bench.call(calls.enqueue(ASK))
        await bench.call(calls.status())
    (record,) = [record for record in caplog.records if record.message == "control call"]
    assert (record.path, record.status) == ("/v1/jobs", 202)  # type: ignore[attr-defined]
    assert (record.peer_pid, record.peer_uid) == (os.getpid(), os.getuid())  # type: ignore[attr-defined]


async def test_daemon_without_copies_or_outbox_says_so(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path, letters=None, outbox=None) as bench:
        for call, said in ((calls.jobs("dead"), "keeps no copies"), (calls.events(), "keeps no outbox")):
            with pytest.raises(ApiError, match=said) as refused:
                await bench.call(call)
            assert refused.value.status == 404
