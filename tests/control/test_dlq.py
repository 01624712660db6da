"""Dead letters over the API: both homes of a failed job as one list, by filter, and back to work or gone for good."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from moonxd.adapters.sqlite.ledger import open_sqlite_ledger
from moonxd.api import calls
from moonxd.api.client import ApiError
from moonxd.api.messages import PurgeRequest, RequeueRequest
from moonxd.domain.job import Failed, JobOptions, Keep, NewJob
from moonxd.domain.ledger import DeadLetter
from moonxd.ports import DeadLetters
from tests.control.harness import WALLET, Served, serving
from tests.services import have

DAY_S = 86_400


def letter_of(queue: str, job_id: str, **others: Any) -> DeadLetter:
    user = others.get("user_id", "u1")
    return DeadLetter(
        **{  # type: ignore[arg-type]
            "queue": queue,
            "job_id": job_id,
            "name": "portfolio-sync",
            "timestamp": 1_700_000_000_000,
            "data": json.dumps({"userId": user, "walletAddress": WALLET}).encode(),
            "options": {"attempts": 3},
            "reason": "gone",
            "stack": (),
            "attempts_made": 3,
            "failed_at": int(time.time() * 1000),
            "user_id": user,
            "wallet": WALLET,
            **others,
        }
    )


async def bury(bench: Served, job_id: str, **others: Any) -> None:
    await bench.ledger.bury(letter_of(bench.queue.name, job_id, **others))


async def test_both_homes_are_one_list(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        in_both = await bench.add_failed("outage")
        await bury(bench, in_both, reason="outage")
        by_others = await bench.add_failed("a Node worker let it fail")
        await bury(bench, "trimmed", failed_at=1000)
        page = await bench.call(calls.dead_letters())
        assert (page.total, page.next) == (3, None)
        assert {job.job_id: job.source for job in page.jobs} == {
            in_both: "queue",
            by_others: "queue",
            "trimmed": "dead-letter",
        }
        assert page.jobs[-1].job_id == "trimmed", "newest first"


async def test_pages_follow_each_other(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        for number in range(5):
            await bury(bench, f"old-{number}", failed_at=1000 + number // 2)
        fresh = [await bench.add_failed("x") for _ in range(2)]
        seen: list[str] = []
        after: str | None = None
        while True:
            page = await bench.call(calls.dead_letters(limit=3, after=after))
            assert page.total == 7
            seen += [job.job_id for job in page.jobs]
            after = page.next
            if after is None:
                break
        assert set(seen[:2]) == set(fresh)
        assert seen[2:] == ["old-4", "old-2", "old-3", "old-0", "old-1"]
        with pytest.raises(ApiError, match="not a place in the list"):
            await bench.call(calls.dead_letters(after="nonsense"))


async def test_filters_by_reason_type_user_and_age(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        now = int(time.time() * 1000)
        await bury(bench, "old", reason="RPC timeout", failed_at=now - 2 * DAY_S * 1000)
        await bury(bench, "young", reason="bad address", user_id="u2")
        other_type = await bench.add_failed("rpc TIMEOUT", name="sync-job")

        async def found(**wanted: Any) -> set[str]:
            page = await bench.call(calls.dead_letters(**wanted))
            assert page.total == len(page.jobs)
            return {job.job_id for job in page.jobs}

        assert await found(reason="timeout") == {"old", other_type}
        assert await found(name="sync-job") == {other_type}
        assert await found(user="u2") == {"young"}
        assert await found(older_than=DAY_S) == {"old"}
        assert await found(newer_than=DAY_S) == {"young", other_type}
        assert await found(newer_than=DAY_S, user="u1") == {other_type}


async def test_one_is_shown_from_either_home(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        failed = await bench.add_failed("outage")
        waiting = await bench.add()
        await bury(bench, "a/b", reason="why")
        assert (await bench.call(calls.dead_letter(failed))).reason == "outage"
        assert (await bench.call(calls.dead_letter("a/b"))).reason == "why"
        for job_id, says in ((waiting, "is waiting, it did not fail"), ("nope", "no dead letter")):
            with pytest.raises(ApiError, match=says) as refused:
                await bench.call(calls.dead_letter(job_id))
            assert refused.value.status == 404


async def test_purge_forgets_in_both_homes(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        in_both = await bench.add_failed("outage")
        await bury(bench, in_both, reason="outage")
        await bury(bench, "trimmed", reason="outage", user_id="u2")
        kept = await bench.add_failed("bad address")
        counted = await bench.call(calls.purge_dead(PurgeRequest(reason="outage", dry_run=True)))
        assert (counted.matched, counted.removed, counted.forgotten) == (2, 0, 0)
        gone = await bench.call(calls.purge_dead(PurgeRequest(reason="outage")))
        assert (gone.matched, gone.removed, gone.forgotten, gone.more) == (2, 1, 2, False)
        assert {job.job_id for job in (await bench.call(calls.dead_letters())).jobs} == {kept}
        with pytest.raises(ApiError, match="does not say which jobs: nothing was purged"):
            await bench.call(calls.purge_dead(PurgeRequest()))


async def test_purge_leaves_a_job_alone_that_runs_again(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        await bury(bench, "mine")
        await bench.add(id="mine")
        assert (await bench.call(calls.purge_dead(PurgeRequest(all=True)))).matched == 0
        assert await bench.queue.get("mine") is not None


async def test_a_limit_ends_a_call_and_says_that_there_is_more(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        for number in range(4):
            await bury(bench, f"job-{number}")
        await bench.add_failed("x")
        first = await bench.call(calls.requeue_dead(RequeueRequest(all=True, limit=3)))
        assert (first.requeued, first.restored, first.more) == (1, 2, True)
        second = await bench.call(calls.requeue_dead(RequeueRequest(all=True, limit=3)))
        assert (second.restored, second.more) == (2, False)
        for _ in range(3):
            await bench.end_next(Failed("again"))
        purged = await bench.call(calls.purge_dead(PurgeRequest(all=True, limit=2)))
        assert (purged.matched, purged.more) == (2, True)


async def test_a_restored_job_is_the_operation_that_it_was(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        await bury(bench, "mine", timestamp=1_600_000_000_000)
        await bench.call(calls.requeue_dead(RequeueRequest(ids=("mine",))))
        view = await bench.queue.get("mine")
        assert view is not None
        assert view.job.timestamp == 1_600_000_000_000


@pytest.mark.slow
async def test_ten_thousand_failures_of_which_the_queue_kept_fifty_all_come_back(
    redis_url: str, socket_path: Path, tmp_path: Path
) -> None:
    async with open_sqlite_ledger(tmp_path / "ledger.db") as ledger:
        letters: DeadLetters = ledger
        async with serving(redis_url, socket_path, letters=letters) as bench:
            ids = await _ten_thousand_failures(bench, letters)
            assert (await bench.queue.counts()).failed == 50
            counted = await bench.call(calls.requeue_dead(RequeueRequest(all=True, dry_run=True)))
            assert (counted.matched, counted.more) == (10_000, False)
            started = time.monotonic()
            result = await bench.call(calls.requeue_dead(RequeueRequest(all=True)))
            have("requeue of 10,000", f"{time.monotonic() - started:.1f} s")
            assert (result.requeued, result.restored, result.skipped, result.more) == (50, 9_950, 0, False)
            assert set(result.ids) == ids
            counts = await bench.queue.counts()
            assert (counts.failed, counts.waiting + counts.prioritized) == (0, 10_000)
            assert await letters.letters(bench.queue.name) == ()


async def _ten_thousand_failures(bench: Served, letters: DeadLetters) -> set[str]:
    """As workers leave them: the copy first, then the queue's set, which keeps the newest 50."""
    keep = JobOptions(attempts=1, remove_on_fail=Keep(count=50))
    ids: set[str] = set()
    for page in range(20):
        added = await bench.queue.add(
            [
                NewJob(
                    name="portfolio-sync",
                    data={"userId": f"u{number % 100}", "walletAddress": WALLET},
                    options=keep,
                    id=f"job-{page}-{number}",
                )
                for number in range(500)
            ]
        )
        ids.update(added)
        claimed = (await bench.queue.claim()).job
        while claimed is not None:
            raw = claimed.options.raw
            await letters.bury(letter_of(bench.queue.name, claimed.id, data=claimed.data, options=raw, reason="outage"))
            following = await bench.queue.settle(claimed, Failed("outage"), fetch=True)
            claimed = following.job if following is not None else (await bench.queue.claim()).job
    return ids
