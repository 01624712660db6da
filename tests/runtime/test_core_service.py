"""The core service's requests on memory parts: every type, every refusal, and what must not stop the listener."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from moonxd.adapters.memory.requests import MemoryLists, MemoryRequests
from moonxd.agents.core_answers import Access, Answers
from moonxd.agents.core_service import CoreService
from moonxd.cancelling import Canceller
from moonxd.domain.core_service import Source, Taken, Verdict, sources
from moonxd.domain.errors import Transient
from moonxd.domain.job import JobState
from moonxd.domain.plan import Plan, Rules
from moonxd.domain.schedule import Change
from tests.fundamentals.house import ALICE, BOB, House

PREFIXES = ("proxy:", "worker:")
PATIENCE_S = 600.0
_numbers = count(1)


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


class Desk:
    """A client of the lists, and the service on the other side of them."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.lists = MemoryLists()
        self.told: Counter[tuple[str, str]] = Counter()
        self.frees_at: datetime | None = None
        self.asked_workers: list[tuple[str, str, str]] = []
        self.plan = Plan(Rules())
        self.answers = Answers(self.access())
        self.answer: Callable[[Taken], Awaitable[Verdict]] = self.answers.answer

    def access(self, **other: Any) -> Access:
        house = self.house
        parts = {
            "queue_name": "sync-jobs",
            "queue": house.queue,
            "ledger": house.ledger,
            "schedule": house.ledger.schedule,
            "plan": self.plan,
            "canceller": Canceller(
                house.queue, worker="house", cancel_running=house.consumer.cancel, ask=self._ask_worker
            ),
            "frees_at": self._frees_at,
            "terms": dict,
            "prefixes": PREFIXES,
            "queue_prefix": "bull",
            "now": house.queue.now,
        }
        return Access(**(parts | other))

    async def _frees_at(self, user: str) -> datetime | None:
        return self.frees_at

    async def _ask_worker(self, worker: str, verb: str, about: str) -> None:
        self.asked_workers.append((worker, verb, about))

    async def serve(self, *, requests: MemoryRequests | None = None, concurrency: int = 8) -> None:
        service = CoreService(
            requests or self.lists.owner(),
            sources(PREFIXES),
            lambda taken: self.answer(taken),
            concurrency=concurrency,
            lease_s=15,
            told=lambda kind, outcome: self.told.update([(kind, outcome)]),
        )
        await service.run(lambda: None)

    def send(self, body: Any, name: str = "requests", prefix: str = PREFIXES[0]) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.lists.push(Source(prefix, name).key, raw)

    async def reply(self, name: str, prefix: str = PREFIXES[0]) -> Any:
        """The oldest reply of a list, as BRPOP gives it."""
        waiting = self.lists.lists[prefix + name]
        with trio.fail_after(PATIENCE_S):
            while not waiting:
                await self.lists.news.wait()
        return json.loads(waiting.pop())

    async def ask(self, kind: str, prefix: str = PREFIXES[0], **data: Any) -> Any:
        names = {"sync_request": "requests", "sync_status": "status", "sync_operations": "operations"}
        queue = f"sync:responses:{next(_numbers)}"
        self.send(self.message(kind, queue, **data), names.get(kind, "cancel"), prefix)
        return await self.reply(queue, prefix)

    def message(self, kind: str, response_queue: str | None, **data: Any) -> dict[str, Any]:
        at = datetime.fromtimestamp(self.house.queue.now(), UTC).isoformat()
        message = {"type": kind, "data": data, "timestamp": at, "requestId": "r-1"}
        return message if response_queue is None else message | {"responseQueue": response_queue}

    def parked(self, prefix: str = PREFIXES[0]) -> list[dict[str, Any]]:
        return [json.loads(entry) for entry in self.lists.lists[f"{prefix}sync:dead"]]


@pytest.fixture
async def desk(nursery: trio.Nursery) -> AsyncIterator[Desk]:
    desk = Desk(House(nursery))
    nursery.start_soon(desk.serve)
    yield desk
    nursery.cancel_scope.cancel()


def request(job_id: str = "0b5c-1", wallet: str = ALICE, user: str = "alice", **more: Any) -> dict[str, Any]:
    return {"jobId": job_id, "userId": user, "walletAddress": wallet, "priority": "high", **more}


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


# ---- readers ---------------------------------------------------------------------------------------------------------


async def test_status_of_a_wallet_before_after_and_long_after_its_sync(desk: Desk, clock: MockClock) -> None:
    ask = {"userId": "alice", "walletAddress": ALICE.upper().replace("0X", "0x")}
    never = await desk.ask("sync_status", **ask)
    assert never == {
        "userId": "alice", "walletAddress": ALICE, "lastSyncAt": None, "syncStatus": "never", "isRunning": False,
        "activeSyncOperations": 0, "totalTokens": 0, "totalValueUsd": 0.0,
        "syncFrequency": never["syncFrequency"], "nextScheduledSync": None,
    }  # fmt: skip
    assert never["syncFrequency"] in (5, 15)
    desk.house.work()
    await desk.house.sync()
    synced = desk.house.queue.now()
    current = await desk.ask("sync_status", **ask)
    assert (current["syncStatus"], current["totalTokens"], current["totalValueUsd"]) == ("current", 3, 6350.0)
    assert datetime.fromisoformat(current["lastSyncAt"]).timestamp() == pytest.approx(synced, abs=1)
    for later, word in ((600, "recent"), (1500, "stale")):
        await trio.sleep(later)
        assert (await desk.ask("sync_status", **ask))["syncStatus"] == word
    assert (await desk.ask("sync_status", userId="bob", walletAddress=ALICE))["syncStatus"] == "never"


async def test_status_says_what_runs_and_when_the_next_sync_is_due(desk: Desk, clock: MockClock) -> None:
    ask = {"userId": "alice", "walletAddress": ALICE}
    schedule, now = desk.house.ledger.schedule, desk.house.queue.now()
    near = [ALICE[:-1] + digit for digit in "0123456789abcdef"]
    await schedule.register([desk.plan.register("alice", one, now, interval_minutes=7) for one in near])
    idle = await desk.ask("sync_status", **ask)
    assert idle["syncFrequency"] == 7
    assert now < datetime.fromisoformat(idle["nextScheduledSync"]).timestamp() <= now + 420
    await schedule.change("alice", ALICE, Change(is_enabled=False))
    desk.house.ethereum.takes_s = 5
    await desk.house.enqueue()
    desk.house.work()
    await trio.sleep(1)
    busy = await desk.ask("sync_status", **ask)
    assert (busy["isRunning"], busy["activeSyncOperations"], busy["nextScheduledSync"]) == (True, 1, None)


async def test_operations_are_listed_as_the_client_filters_them(desk: Desk, clock: MockClock) -> None:
    desk.house.work()
    await desk.house.sync(ALICE)
    clock.jump(8 * 86400)
    await desk.house.sync(ALICE, syncType="full")
    await desk.house.sync(BOB)

    async def ask(wallet: str | None = ALICE, **filters: Any) -> list[dict[str, Any]]:
        about = {"userId": "alice"} | ({} if wallet is None else {"walletAddress": wallet})
        rows: list[dict[str, Any]] = await desk.ask("sync_operations", **about, filters=filters)
        return rows

    (row,) = await ask()
    assert set(row) == {
        "id", "userId", "walletAddress", "type", "status", "priority", "startedAt", "completedAt", "duration",
        "tokensSync", "chainsSync", "totalValueUsd", "error", "workerId", "workerVersion", "metadata",
    }  # fmt: skip
    assert (row["type"], row["status"], row["tokensSync"], row["chainsSync"]) == ("full", "completed", 3, 2)
    assert (row["workerId"], row["workerVersion"], row["totalValueUsd"]) == ("house", "1", 6350.0)
    assert len(await ask(days=30)) == 2
    assert len(await ask(days=30, limit="1", status=None)) == 1
    assert [one["type"] for one in await ask(days=30, type="portfolio")] == ["portfolio"]
    assert await ask(days=30, status="failed") == []
    assert len(await ask(None, days=30)) == 3
    assert await desk.ask("sync_operations", userId="bob", walletAddress=ALICE) == []
    refused = await desk.ask("sync_operations", userId="alice", filters={"status": "odd"})
    assert "filters.status" in refused["error"]


async def test_a_ledger_that_stays_away_is_said_to_be_away(nursery: trio.Nursery, clock: MockClock) -> None:
    """Never 'never': that would be a lie about the wallet."""
    desk = Desk(House(nursery))

    class Away:
        async def portfolio(self, wallet: str, user_id: str | None = None) -> None:
            raise Transient("the ledger is away")

    desk.answer = Answers(desk.access(ledger=Away())).answer
    nursery.start_soon(desk.serve)
    reply = await desk.ask("sync_status", userId="alice", walletAddress=ALICE)
    assert (reply["status"], reply["error"]) == ("failed", "the ledger is away")
    assert desk.told == {("sync_status", "unavailable"): 1}
    nursery.cancel_scope.cancel()


# ---- cancelling ------------------------------------------------------------------------------------------------------


async def test_a_waiting_job_is_cancelled_by_its_owner_only(desk: Desk, clock: MockClock) -> None:
    await desk.ask("sync_request", **request())
    nothing = {"found": False, "cancelled": False}
    assert await desk.ask("cancel_operation", operationId="0b5c-1", userId="mallory") == nothing
    assert await desk.ask("cancel_operation", operationId="no-such", userId="alice") == nothing
    assert await desk.ask("cancel_operation", operationId="meta", userId="alice") == nothing
    done = {"found": True, "cancelled": True, "previousStatus": "pending"}
    assert await desk.ask("cancel_operation", operationId="0b5c-1", userId="alice") == done
    assert await desk.house.queue.get("0b5c-1") is None


@pytest.mark.parametrize("by", ["job", "operation"])
async def test_a_running_job_is_cancelled_by_job_id_or_operation_id(by: str, desk: Desk, clock: MockClock) -> None:
    desk.house.ethereum.takes_s = 50
    await desk.ask("sync_request", **request())
    desk.house.work()
    await trio.sleep(1)
    (row,) = await desk.house.ledger.operations()
    about = "0b5c-1" if by == "job" else str(row.id)
    assert (await desk.ask("cancel_operation", operationId=about, userId="mallory"))["found"] is False
    reply = await desk.ask("cancel_operation", operationId=about, userId="alice")
    assert reply == {"found": True, "cancelled": True, "previousStatus": "running"}
    await desk.house.ended("0b5c-1")
    again = await desk.ask("cancel_operation", operationId=str(row.id), userId="alice")
    assert (again["found"], again["cancelled"]) == (True, False)


async def test_what_has_ended_is_found_and_not_cancelled(desk: Desk, clock: MockClock) -> None:
    desk.house.work()
    await desk.ask("sync_request", **request())
    await desk.house.ended("0b5c-1")
    done = {"found": True, "cancelled": False, "previousStatus": "completed"}
    assert await desk.ask("cancel_operation", operationId="0b5c-1", userId="alice") == done
    await desk.house.queue.remove(["0b5c-1"])
    assert await desk.ask("cancel_operation", operationId="0b5c-1", userId="alice") == done
    (row,) = await desk.house.ledger.operations()
    assert await desk.ask("cancel_operation", operationId=str(row.id).upper(), userId="alice") == done


async def test_a_job_that_runs_on_a_worker_that_does_not_answer_is_not_said_to_be_cancelled(
    desk: Desk, clock: MockClock
) -> None:
    await desk.ask("sync_request", **request())
    other = desk.house.queue.other_worker()
    assert (await other.claim()).job is not None
    reply = await desk.ask("cancel_operation", operationId="0b5c-1", userId="alice")
    assert reply == {"found": True, "cancelled": False, "previousStatus": "running"}
    assert desk.asked_workers == [("memory'", "cancel", "0b5c-1")]


# ---- the listener ----------------------------------------------------------------------------------------------------


async def test_no_more_than_so_many_requests_of_a_list_are_taken_at_once(
    nursery: trio.Nursery, clock: MockClock
) -> None:
    desk, running = Desk(House(nursery)), 0

    async def slow(taken: Taken) -> Verdict:
        nonlocal running
        running += 1
        await trio.sleep_forever()
        raise AssertionError

    desk.answer = slow
    async with trio.open_nursery() as service:
        service.start_soon(lambda: desk.serve(concurrency=2))
        for number in range(5):
            desk.send(b"%d" % number)
        await trio.sleep(10)
        assert running == 2
        # Cancellable at any moment, and what was begun is there for others, in order.
        service.cancel_scope.cancel()
    assert list(reversed(desk.lists.lists["proxy:sync:requests"])) == [b"%d" % number for number in range(5)]


async def test_an_answer_that_takes_too_long_or_fails_is_tried_again(nursery: trio.Nursery, clock: MockClock) -> None:
    desk = Desk(House(nursery))
    good, tries = desk.answer, 0

    async def flaky(taken: Taken) -> Verdict:
        nonlocal tries
        tries += 1
        if tries == 1:
            await trio.sleep_forever()
        if tries == 2:
            raise Transient("Redis went away")
        return await good(taken)

    desk.answer = flaky
    nursery.start_soon(desk.serve)
    assert (await desk.ask("sync_request", **request()))["status"] == "queued"
    assert desk.told == {("sync_request", "again"): 2, ("sync_request", "queued"): 1}
    nursery.cancel_scope.cancel()


class Moody(MemoryRequests):
    """A list that cannot be read, `trouble` times."""

    trouble = 0

    async def take(self, source: Source, timeout: float) -> Taken | None:
        if self.trouble and source.name == "requests":
            self.trouble -= 1
            raise Transient("the list is away")
        return await super().take(source, timeout)


async def test_a_list_that_comes_back_is_served_and_one_that_does_not_is_seen(
    nursery: trio.Nursery, clock: MockClock
) -> None:
    desk = Desk(House(nursery))
    moody = Moody(desk.lists, 15, 10)
    moody.trouble = 4
    nursery.start_soon(lambda: desk.serve(requests=moody))
    assert (await desk.ask("sync_request", **request()))["status"] == "queued"
    hopeless = Moody(desk.lists, 15, 10)
    hopeless.trouble = 1000
    with pytest.raises(Transient):
        await desk.serve(requests=hopeless)
    nursery.cancel_scope.cancel()


async def test_a_request_of_a_daemon_that_died_between_adding_and_replying_is_answered_by_another(
    nursery: trio.Nursery, clock: MockClock
) -> None:
    desk = Desk(House(nursery))
    dead = desk.lists.owner()
    await dead.beat()
    desk.send(desk.message("sync_request", "answers", **request()))
    taken = await dead.take(Source(PREFIXES[0], "requests"), 1)
    assert taken is not None
    await desk.answers.answer(taken)
    nursery.start_soon(desk.serve)
    assert (await desk.reply("answers"))["status"] == "queued"
    assert (await desk.house.queue.counts()).prioritized == 1
    nursery.cancel_scope.cancel()
