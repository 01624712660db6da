"""Failed jobs back to work, from the queue's set and from the ledger's copies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moonxd.api import calls
from moonxd.api.client import ApiError
from moonxd.api.messages import RequeueRequest
from moonxd.domain.job import Completed, Failed, JobOptions, Keep
from moonxd.domain.ledger import DeadLetter
from tests.control.harness import WALLET, Served, serving


async def bury(bench: Served, job_id: str, *, reason: str = "gone", user: str = "u1", **options: object) -> None:
    await bench.ledger.bury(
        DeadLetter(
            queue=bench.queue.name,
            job_id=job_id,
            name="portfolio-sync",
            timestamp=1_700_000_000_000,
            data=json.dumps({"userId": user, "walletAddress": WALLET}).encode(),
            options=options,
            reason=reason,
            stack=("at fetch",),
            attempts_made=3,
            failed_at=1_700_000_060_000,
            user_id=user,
            wallet=WALLET,
        )
    )


async def test_named_jobs_go_back_and_others_are_skipped(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        failed = [await bench.add_failed("x") for _ in range(3)]
        waiting = await bench.add()
        result = await bench.call(calls.requeue(RequeueRequest(ids=(failed[0], failed[2], waiting, "nope"))))
        assert (result.matched, result.requeued, result.restored, result.skipped) == (2, 2, 0, 2)
        assert set(result.ids) == {failed[0], failed[2]}
        counts = await bench.queue.counts()
        assert (counts.failed, counts.waiting) == (1, 3)


async def test_filters_choose_by_reason_name_and_user(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        timeout = await bench.add_failed("base: RPC Timeout after 10 s")
        await bench.add_failed("bad address")
        other_user = await bench.add_failed("timeout", user="u2")
        other_name = await bench.add_failed("timeout", name="sync-job")
        for ask, expected in (
            (RequeueRequest(reason="rpc timeout", dry_run=True), {timeout}),
            (RequeueRequest(reason="timeout", user="u2", dry_run=True), {other_user}),
            (RequeueRequest(name="sync-job", dry_run=True), {other_name}),
        ):
            counted = await bench.call(calls.requeue(ask))
            assert (counted.matched, counted.requeued) == (len(expected), 0), "a dry run moves nothing"
        result = await bench.call(calls.requeue(RequeueRequest(reason="TIMEOUT", name="portfolio-sync")))
        assert set(result.ids) == {timeout, other_user}
        assert (await bench.queue.counts()).failed == 2


async def test_all_of_more_than_a_page(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        options = JobOptions(attempts=1, remove_on_fail=Keep())
        for _ in range(620):
            await bench.add(options=options)
        for _ in range(620):
            await bench.end_next(Failed("outage"))
        result = await bench.call(calls.requeue(RequeueRequest(all=True)))
        assert (result.requeued, result.skipped, result.more) == (620, 0, False)
        counts = await bench.queue.counts()
        assert (counts.failed, counts.waiting) == (0, 620)


async def test_completed_jobs_run_again_only_when_asked(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        done = await bench.add_completed()
        assert (await bench.call(calls.requeue(RequeueRequest(all=True)))).matched == 0
        assert (await bench.call(calls.requeue(RequeueRequest(all=True, state="completed")))).ids == (done,)


async def test_saying_nothing_requeues_nothing(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        await bench.add_failed("x")
        with pytest.raises(ApiError, match="does not say which jobs") as refused:
            await bench.call(calls.requeue(RequeueRequest()))
        assert refused.value.status == 400
        assert (await bench.queue.counts()).failed == 1


async def test_trimmed_dead_letter_is_shown_and_listed(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        await bury(bench, "sync-7", attempts=3, priority=5)
        job = await bench.call(calls.job("sync-7"))
        assert (job.state, job.reason, job.source, job.attempts) == ("failed", "gone", "dead-letter", 3)
        assert job.data["userId"] == "u1"
        assert [one.job_id for one in (await bench.call(calls.jobs("dead"))).jobs] == ["sync-7"]
        with pytest.raises(ApiError, match="has already ended"):
            await bench.call(calls.cancel("sync-7"))


async def test_trimmed_dead_letter_runs_again_with_its_payload_and_options(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        backoff = {"type": "fixed", "delay": 1234}
        await bury(bench, "sync-7", attempts=7, priority=5, delay=60_000, backoff=backoff, custom={"mine": 1})
        await bury(bench, "7")
        result = await bench.call(calls.requeue(RequeueRequest(ids=("sync-7", "7"))))
        assert (result.restored, result.requeued, result.skipped) == (2, 0, 0)
        assert await bench.ledger.letters(bench.queue.name) == (), "the copies are forgotten"
        view = await bench.queue.get("sync-7")
        assert view is not None
        assert view.state == "prioritized", "at once, not after the delay of its first life"
        assert (view.job.options.attempts, view.job.attempts_made) == (7, 0)
        assert view.job.options.raw["custom"] == {"mine": 1}
        assert view.job.options.raw["backoff"] == backoff
        assert json.loads(view.job.data) == {"userId": "u1", "walletAddress": WALLET}
        (numbered,) = set(result.ids) - {"sync-7"}
        assert await bench.queue.get(numbered) is not None


async def test_dead_letter_still_in_the_set_is_requeued_once(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        failed = await bench.add_failed("outage")
        await bury(bench, failed, reason="outage")
        await bury(bench, "trimmed", reason="outage")
        await bury(bench, "other", reason="bad address")
        result = await bench.call(calls.requeue(RequeueRequest(reason="outage")))
        assert (result.matched, result.requeued, result.restored) == (2, 1, 1)
        assert {letter.job_id for letter in await bench.ledger.letters(bench.queue.name)} == {"other"}
        assert (await bench.queue.counts()).waiting == 2


async def test_copy_of_a_job_that_runs_again_already_is_left_alone(redis_url: str, socket_path: Path) -> None:
    """Somebody added the id anew: that job must neither be disturbed nor be doubled."""
    async with serving(redis_url, socket_path) as bench:
        await bury(bench, "mine")
        await bench.add(id="mine")
        await bench.claim()
        result = await bench.call(calls.requeue(RequeueRequest(all=True)))
        assert (result.matched, result.requeued, result.restored) == (0, 0, 0)
        assert (await bench.queue.counts()).active == 1


async def test_requeued_job_can_complete(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        job_id = await bench.add_failed("once")
        await bench.call(calls.requeue(RequeueRequest(ids=(job_id,))))
        await bench.end_next(Completed(b'{"success":true}'))
        shown = await bench.call(calls.job(job_id))
        assert (shown.state, shown.reason, shown.result) == ("completed", None, {"success": True})
