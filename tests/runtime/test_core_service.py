"""The core service asks for syncs: what becomes a job, what is refused, and what nobody can read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from moonxd.agents.core_answers import Answers
from moonxd.domain.errors import Transient
from moonxd.domain.job import JobState
from tests.fundamentals.house import BOB, House
from tests.runtime.core_desk import PREFIXES, Desk, request


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@pytest.fixture
async def desk(nursery: trio.Nursery) -> AsyncIterator[Desk]:
    desk = Desk(House(nursery))
    nursery.start_soon(desk.serve)
    yield desk
    nursery.cancel_scope.cancel()


# ---- syncs -----------------------------------------------------------------------------------------------------------


async def test_a_sync_request_becomes_a_job_that_carries_all_the_client_said(desk: Desk, clock: MockClock) -> None:
    more = {"syncType": "full", "forceRefresh": True, "chainIds": [1, "8453"], "metadata": {"source": "manual"}}
    reply = await desk.ask("sync_request", **request(**more), extra=7)
    assert reply["jobId"] == reply["metadata"]["bullmqJobId"] == "0b5c-1"
    assert reply["status"] == "queued"
    assert datetime.fromisoformat(reply["metadata"]["queuedAt"]).timestamp() == pytest.approx(desk.house.queue.now())
    view = await desk.house.queue.get("0b5c-1")
    assert view is not None
    assert (view.job.name, view.job.options.priority, view.state) == ("sync-job", 1, JobState.PRIORITIZED)
    data = msgspec.json.decode(view.job.data)
    assert data | more | {"extra": 7, "requestId": "r-1"} == data
    assert data["responseQueue"].startswith("sync:responses:")
    assert desk.told == {("sync_request", "queued"): 1}


async def test_the_reply_goes_under_the_prefix_that_the_request_came_from(desk: Desk, clock: MockClock) -> None:
    for number, prefix in enumerate(PREFIXES):
        reply = await desk.ask("sync_request", prefix, **request(f"job-{number}"))
        assert reply["status"] == "queued"


async def test_the_same_request_again_is_the_same_job_even_when_it_has_ended(desk: Desk, clock: MockClock) -> None:
    message = desk.message("sync_request", "answers", **request())
    desk.send(message)
    assert (await desk.reply("answers"))["status"] == "queued"
    desk.house.work()
    await desk.house.ended("0b5c-1")
    # Full by now, perhaps by this very sync.
    desk.frees_at = datetime.fromtimestamp(desk.house.queue.now() + 60, UTC)
    desk.send(message)
    assert (await desk.reply("answers"))["status"] == "queued"
    # And when the queue has forgotten it too: the audit knows that it was let in.
    await desk.house.queue.remove(["0b5c-1"])
    desk.send(message)
    assert (await desk.reply("answers"))["status"] == "queued"
    await desk.house.settled("0b5c-1")
    assert len(await desk.house.ledger.operations()) == 1


async def test_a_job_id_that_is_used_for_something_else_is_refused(desk: Desk, clock: MockClock) -> None:
    await desk.ask("sync_request", **request())
    for other in (request(user="bob"), request(wallet=BOB)):
        reply = await desk.ask("sync_request", **other)
        assert (reply["status"], "belongs to another request" in reply["error"]) == ("failed", True)
    desk.house.work()
    await desk.house.ended("0b5c-1")
    await trio.sleep(1)
    reply = await desk.ask("sync_request", **request())
    assert "has been used before" in reply["error"]
    assert desk.parked() == []


@pytest.mark.parametrize("given", ["17", "a:b", "wait", "x" * 300, None, ""])
async def test_an_id_that_the_queue_cannot_take_is_replaced_by_one_that_is_always_the_same(
    given: str | None, desk: Desk, clock: MockClock
) -> None:
    message = desk.message("sync_request", "answers", **request(job_id=given))  # type: ignore[arg-type]
    ids = set()
    for _ in range(2):
        desk.send(message)
        reply = await desk.reply("answers")
        assert reply["jobId"] == (given or reply["metadata"]["bullmqJobId"])
        ids.add(reply["metadata"]["bullmqJobId"])
    assert len(ids) == 1
    assert (await desk.house.queue.counts()).prioritized == 1
    if given:
        # The client knows the job by its own name.
        reply = await desk.ask("cancel_operation", operationId=given, userId="alice")
        assert reply == {"found": True, "cancelled": True, "previousStatus": "pending"}


async def test_a_user_over_the_limit_is_told_so_and_nothing_is_parked(desk: Desk, clock: MockClock) -> None:
    desk.frees_at = datetime.fromtimestamp(desk.house.queue.now() + 60, UTC)
    reply = await desk.ask("sync_request", **request(forceRefresh=True))
    assert (reply["jobId"], reply["status"]) == ("0b5c-1", "failed")
    assert "Rate limit" in reply["error"]
    assert reply["completedAt"]
    assert await desk.house.queue.get("0b5c-1") is None
    assert desk.parked() == []
    # The scheduler's own do not count.
    reply = await desk.ask("sync_request", **request(metadata={"trigger": "periodic"}))
    assert reply["status"] == "queued"


async def test_a_ledger_that_is_away_or_silent_does_not_keep_a_sync_out(
    nursery: trio.Nursery, clock: MockClock
) -> None:
    desk = Desk(House(nursery))

    async def away(user: str) -> None:
        raise Transient("the ledger is away")

    async def silent(user: str) -> None:
        await trio.sleep_forever()

    nursery.start_soon(desk.serve)
    for number, look in enumerate((away, silent)):
        desk.answer = Answers(desk.access(frees_at=look)).answer
        assert (await desk.ask("sync_request", **request(f"job-{number}")))["status"] == "queued"
    nursery.cancel_scope.cancel()


async def test_a_request_without_a_reply_list_is_a_request_all_the_same(desk: Desk, clock: MockClock) -> None:
    desk.send(desk.message("sync_request", None, **request()))
    await trio.sleep(1)
    assert desk.told == {("sync_request", "queued"): 1}
    assert await desk.house.queue.get("0b5c-1") is not None


# ---- what cannot be followed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (request(wallet="0xnothex"), "walletAddress"),
        (request(user=""), "userId"),
        (request(priority="urgent"), "priority"),
        (request(chainIds=["narnia"]), "narnia"),
        (request(syncType="everything"), "syncType"),
    ],
)
async def test_a_bad_request_is_answered_and_parked(
    data: dict[str, Any], says: str, desk: Desk, clock: MockClock
) -> None:
    reply = await desk.ask("sync_request", **data)
    assert (reply["jobId"], reply["status"]) == ("0b5c-1", "failed")
    assert says in reply["error"]
    (entry,) = desk.parked()
    assert says in entry["reason"]
    assert entry["list"] == "proxy:sync:requests"
    assert json.loads(entry["message"])["data"] == data


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b"[]", b"null", b"[" * 100_000, b'{"type":"sync_request"}', b"x" * 1_000_001,
     b'{"type":"make_coffee","data":{}}', b'{"type":"sync_status","data":{},"responseQueue":7}',
     b'{"type":"sync_status","data":{}}', b'{"type":["sync_status"],"data":{}}'],
    ids=lambda body: body[:30].decode("latin-1"),
)  # fmt: skip
async def test_what_nobody_can_read_is_parked_and_the_next_one_is_served(
    body: bytes, desk: Desk, clock: MockClock
) -> None:
    desk.send(body)
    assert (await desk.ask("sync_request", **request()))["status"] == "queued"
    (entry,) = desk.parked()
    assert entry["reason"]
    assert entry["size"] == len(body)
    assert len(entry["message"]) <= 65_536


@pytest.mark.parametrize("kind", ["make_coffee", "sync_status", "sync_operations", "cancel_operation"])
async def test_a_malformed_message_is_answered_where_it_says_where(kind: str, desk: Desk, clock: MockClock) -> None:
    reply = await desk.ask(kind, filters="all")
    assert reply["error"]
    if kind == "cancel_operation":
        assert (reply["found"], reply["cancelled"]) == (False, False)
    else:
        assert (reply["status"], reply["requestId"]) == ("failed", "r-1")
    assert len(desk.parked()) == 1
    assert desk.told == {("unknown" if kind == "make_coffee" else kind, "malformed"): 1}


@pytest.mark.parametrize(
    "name",
    ["sync:requests", "sync:dead", "sync:owners", "sync:processing:requests:me", "a\0b", "a\nb", "x" * 600],
)
async def test_a_reply_never_goes_into_a_list_of_ours(name: str, desk: Desk, clock: MockClock) -> None:
    desk.send(desk.message("sync_request", name, **request()))
    assert (await desk.ask("sync_request", **request("job-2")))["status"] == "queued"
    (entry,) = desk.parked()
    assert "responseQueue" in entry["reason"]
    assert await desk.house.queue.get("0b5c-1") is None


async def test_a_fault_of_ours_is_answered_parked_and_survived(desk: Desk, clock: MockClock) -> None:
    good = desk.answer
    desk.answer = Answers(desk.access(terms=lambda: {}["gone"])).answer
    reply = await desk.ask("sync_request", **request())
    assert (reply["status"], "log" in reply["error"]) == ("failed", True)
    assert desk.parked()[0]["reason"] == "KeyError"
    desk.answer = good
    assert (await desk.ask("sync_request", **request()))["status"] == "queued"
