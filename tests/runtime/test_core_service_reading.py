"""The core service asks how things are and cancels, and nothing stops the listener."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from moonxd.adapters.memory.requests import MemoryRequests
from moonxd.agents.core_answers import Answers
from moonxd.domain.core_service import Source, Taken, Verdict
from moonxd.domain.errors import Transient
from moonxd.domain.schedule import Change
from tests.fundamentals.house import ALICE, BOB, House
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
