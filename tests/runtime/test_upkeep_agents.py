"""The pruner and the failure alarm, on the memory ledger and simulated time."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec
import trio
from trio.testing import MockClock

from moonxd.adapters.memory.ledger import MemoryLedger
from moonxd.agents.alarm import FailureAlarm
from moonxd.agents.janitor import Pruner
from moonxd.domain.alarm import AlarmRule
from moonxd.domain.errors import Transient
from moonxd.domain.job import Completed, Failed, Outcome, Postpone, Retry
from moonxd.domain.ledger import Pruned, Retention
from tests.conformance.ledger_data import event, new_wallet

RULE = AlarmRule(raise_at=0.5, clear_at=0.2, window_s=100, min_jobs=10)


class TrioClock:
    def now(self) -> float:
        return 1_700_000_000 + trio.current_time()


def alarm_on(ledger: MemoryLedger) -> FailureAlarm:
    return FailureAlarm(ledger, TrioClock(), RULE, deque(), service="moonxd", worker="w1", version="1")


async def alerts(ledger: MemoryLedger) -> list[dict[str, Any]]:
    stored = await ledger.read(0, 1000)
    return [msgspec.json.decode(one.event.body) for one in stored if one.event.topic == "system.alerts"]


def end(alarm: FailureAlarm, *outcomes: Outcome) -> None:
    for outcome in outcomes:
        alarm.settled(outcome)


async def test_too_many_failures_are_an_event_and_so_is_their_end(autojump_clock: MockClock) -> None:
    ledger = MemoryLedger(TrioClock())
    alarm = alarm_on(ledger)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarm.run, lambda: None)
        end(alarm, *[Failed("the RPC endpoint is away")] * 8, *[Completed(b"{}")] * 2)
        await trio.sleep(5)
        (raised,) = await alerts(ledger)
        assert raised["type"] == "system.alert"
        assert raised["metadata"]["eventType"] == "system.alert"
        data = raised["data"]
        assert (data["alertType"], data["severity"], data["service"]) == ("job_failure_rate", "critical", "moonxd")
        assert data["metadata"]["worker"] == "w1"
        assert data["message"] == "8 of 10 jobs (80%) failed for good within 100 s"
        end(alarm, *[Failed("x")] * 5)
        await trio.sleep(50)
        assert len(await alerts(ledger)) == 1, "said once"
        await trio.sleep(60)
        _, cleared = await alerts(ledger)
        assert (cleared["data"]["severity"], cleared["data"]["metadata"]["raised"]) == ("info", False)
        nursery.cancel_scope.cancel()


async def test_only_final_failures_count_and_not_what_was_declined(autojump_clock: MockClock) -> None:
    ledger = MemoryLedger(TrioClock())
    alarm = alarm_on(ledger)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarm.run, lambda: None)
        end(alarm, *[Completed(b"{}")] * 10, *[Retry(1, "x")] * 50, *[Postpone(1)] * 50)
        end(alarm, *[Failed("Rejected: over the limit")] * 50)
        await trio.sleep(5)
        assert await alerts(ledger) == []
        nursery.cancel_scope.cancel()


class AwayTwice(MemoryLedger):
    """Away for its first two sentences."""

    left = 2

    async def tell(self, events: Any) -> None:
        self._or_away()
        await super().tell(events)

    async def prune(self, keep: Retention, limit: int) -> Pruned:
        self._or_away()
        return await super().prune(keep, limit)

    def _or_away(self) -> None:
        self.left -= 1
        if self.left >= 0:
            raise Transient("the database is away")


async def test_an_alert_waits_for_a_ledger_that_is_away(autojump_clock: MockClock) -> None:
    ledger = AwayTwice(TrioClock())
    alarm = alarm_on(ledger)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarm.run, lambda: None)
        end(alarm, *[Failed("x")] * 20)
        await trio.sleep(10)
        assert len(await alerts(ledger)) == 1
        nursery.cancel_scope.cancel()


async def test_the_pruner_removes_everything_in_batches_and_again_later(autojump_clock: MockClock) -> None:
    ledger = AwayTwice(TrioClock())
    keep = Retention(outbox_s=100.0, unpublished=True)
    pruner = Pruner(ledger, keep, interval_s=10.0, limit=7)
    await MemoryLedger.tell(ledger, [event(new_wallet()) for _ in range(25)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pruner.run, lambda: None)
        await trio.sleep(95)
        assert await ledger.backlog() == 25
        await trio.sleep(20)
        assert await ledger.backlog() == 0
        await MemoryLedger.tell(ledger, [event(new_wallet())])
        pruner.keep = Retention(outbox_s=1.0, unpublished=False)
        await trio.sleep(50)
        assert await ledger.backlog() == 1, "somebody publishes now: it waits for them"
        nursery.cancel_scope.cancel()
