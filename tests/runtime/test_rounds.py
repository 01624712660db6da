"""Rounds of collectors: when they run, who runs them, and what becomes of those that cannot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from moonxd.adapters.memory.election import MemoryElection
from moonxd.agents.office import Office
from moonxd.agents.rounds import Rounds
from moonxd.config.cron import CronPattern
from moonxd.domain.errors import Transient, single
from moonxd.domain.stats import Health, Overview, Round

#: A wall clock that starts on a full hour when trio's does.
EPOCH = 1_800_000_000.0
FOUND = Overview(at_ms=0, status=Health.HEALTHY, chains=(), bridges=())


class Watch:
    """A wall clock that may be set."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return EPOCH + trio.current_time() + self.ahead_s


class Counting:
    """A collector that takes its time and says what it is told to say."""

    name = "overview"

    def __init__(self, takes_s: float = 1.0) -> None:
        self.takes_s = takes_s
        self.began: list[float] = []
        self.failure: Exception | None = None
        self.found = Round(overview=FOUND)

    async def collect(self, now_ms: int) -> Round:
        self.began.append(now_ms / 1000 - EPOCH)
        await trio.sleep(self.takes_s)
        if self.failure is not None:
            raise self.failure
        return self.found


@asynccontextmanager
async def running(collector: Counting, **options: Any) -> AsyncIterator[Rounds]:
    kept: list[Round] = []

    async def keep(found: Round) -> None:
        kept.append(found)

    settings: dict[str, Any] = {"timeout_s": 20.0, "is_ours": lambda: True, "keep": keep, "now": Watch()} | options
    rounds = Rounds(collector, CronPattern("*/30 * * * * *"), **settings)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rounds.run, lambda: None)
        yield rounds
        nursery.cancel_scope.cancel()


def due(number: int, began: list[float]) -> float:
    return began[0] + 30 * number


async def test_a_round_at_each_instant(autojump_clock: MockClock) -> None:
    collector = Counting()
    async with running(collector) as rounds:
        await trio.sleep(100)
        assert [at % 30 for at in collector.began] == [0, 0, 0]
        report = rounds.report
    assert (report.rounds, report.missed, report.outcome, report.took_s) == (3, 0, "ok", 1.0)
    assert report.next_at == EPOCH + due(3, collector.began)


async def test_instants_that_pass_during_a_round_are_missed(autojump_clock: MockClock) -> None:
    collector = Counting(takes_s=70)
    async with running(collector, timeout_s=100.0) as rounds:
        await trio.sleep(200)
        report = rounds.report
    assert collector.began[1] - collector.began[0] == 90, "never two at once"
    assert (report.rounds, report.missed) == (2, 4)


async def test_a_round_that_takes_too_long_is_cut_off_and_the_next_one_runs(autojump_clock: MockClock) -> None:
    collector = Counting(takes_s=25)
    async with running(collector) as rounds:
        await trio.sleep(55)
        assert (rounds.report.outcome, rounds.report.error) == ("timeout", "not done within 20 s")
        collector.takes_s = 1
        await trio.sleep(30)
        assert (rounds.report.outcome, rounds.report.rounds) == ("ok", 2)


async def test_failures_are_told_and_end_nothing(autojump_clock: MockClock) -> None:
    collector, told = Counting(), []

    async def on_end(outcome: str, took: float, found: Round | None, error: str | None) -> None:
        told.append((outcome, error))

    async with running(collector, on_end=on_end) as rounds:
        await trio.sleep(35)
        good_at = rounds.report.good_at
        collector.failure = Transient("nobody answers")
        await trio.sleep(30)
        collector.failure, collector.found = None, Round(overview=FOUND, failed=("base: no answer",))
        await trio.sleep(30)
        collector.found = Round(failed=("base: no answer", "bsc: no answer"))
        await trio.sleep(30)
        assert rounds.report.good_at == (good_at or 0) + 60
    assert told == [
        ("ok", None),
        ("failed", "nobody answers"),
        ("partial", "base: no answer"),
        ("failed", "base: no answer; bsc: no answer"),
    ]


async def test_what_cannot_be_kept_is_a_failed_round(autojump_clock: MockClock) -> None:
    async def keep(found: Round) -> None:
        raise Transient("the ledger is away")

    async with running(Counting(), keep=keep) as rounds:
        await trio.sleep(35)
        assert (rounds.report.outcome, rounds.report.error) == ("failed", "the ledger is away")


async def test_another_daemon_collects(autojump_clock: MockClock) -> None:
    collector, ours = Counting(), [False]
    async with running(collector, is_ours=lambda: ours[0]) as rounds:
        await trio.sleep(100)
        assert (collector.began, rounds.report.missed, rounds.report.is_ours) == ([], 0, False)
        ours[0] = True
        await trio.sleep(30)
        assert len(collector.began) == 1


async def test_a_clock_that_jumps_ahead_misses_and_one_that_goes_back_waits_for_nobody(
    autojump_clock: MockClock,
) -> None:
    collector, watch = Counting(), Watch()
    async with running(collector, now=watch) as rounds:
        await trio.sleep(35)
        watch.ahead_s += 3600
        await trio.sleep(10)
        assert len(collector.began) == 2, "the instant that passed is used late"
        assert rounds.report.missed == 119
        watch.ahead_s -= 7200
        await trio.sleep(65)
        assert len(collector.began) == 4


async def test_a_month_of_sleep_is_counted_in_no_time(autojump_clock: MockClock) -> None:
    collector, watch = Counting(), Watch()
    async with running(collector, now=watch) as rounds:
        await trio.sleep(35)
        watch.ahead_s += 30 * 86400
        await trio.sleep(65)
        assert rounds.report.missed == 1000
        assert len(collector.began) >= 3


async def test_rounds_start_within_the_jitter(autojump_clock: MockClock) -> None:
    collector, shares = Counting(), iter([0.0, 0.5, 0.9, 0.1])
    async with running(collector, jitter_s=10.0, rand=lambda: next(shares)):
        await trio.sleep(100)
    assert [round(at % 30) for at in collector.began] == [0, 5, 9]


async def test_the_office_is_held_left_and_taken_over(autojump_clock: MockClock) -> None:
    offices: dict[str, tuple[str, float]] = {}
    one, other = (Office(MemoryElection(name, offices), "stats", ttl_s=30) for name in ("one", "other"))
    async with trio.open_nursery() as nursery:
        scope = await nursery.start(_keep, one)
        other_scope = await nursery.start(_keep, other)
        await trio.sleep(95)
        assert (one.is_held, other.is_held) == (True, False)
        scope.cancel()
        await wait_all_tasks_blocked()
        assert offices == {}, "whoever stops leaves it"
        await trio.sleep(11)
        assert (one.is_held, other.is_held) == (False, True)
        other_scope.cancel()


async def test_an_office_that_cannot_be_asked_about_is_not_ours_for_long(autojump_clock: MockClock) -> None:
    class Deaf(MemoryElection):
        is_deaf = False

        async def hold(self, office: str, ttl_s: float) -> bool:
            if self.is_deaf:
                raise Transient("who holds stats is not known")
            return await super().hold(office, ttl_s)

    election = Deaf("one")
    office = Office(election, "stats", ttl_s=30)
    async with trio.open_nursery() as nursery:
        scope = await nursery.start(_keep, office)
        election.is_deaf = True
        await trio.sleep(25)
        assert office.is_held
        await trio.sleep(10)
        assert not office.is_held, "somebody else may have it by now"
        election.is_deaf = False
        await trio.sleep(10)
        assert office.is_held
        scope.cancel()


async def test_work_of_the_office_runs_while_it_is_held_only(autojump_clock: MockClock) -> None:
    offices: dict[str, tuple[str, float]] = {}
    one, other = (Office(MemoryElection(name, offices), "stats", ttl_s=30) for name in ("one", "other"))
    at_work: set[str] = set()

    async def work(name: str, ready: Callable[[], None]) -> None:
        at_work.add(name)
        try:
            await trio.sleep_forever()
        finally:
            at_work.discard(name)

    async with trio.open_nursery() as nursery:
        for name, office in (("one", one), ("other", other)):
            nursery.start_soon(office.while_held, partial(work, name), lambda: None)
        await wait_all_tasks_blocked()
        assert at_work == set(), "nobody stands for it yet"
        scope = await nursery.start(_keep, one)
        await nursery.start(_keep, other)
        await trio.sleep(95)
        assert at_work == {"one"}
        scope.cancel()
        await wait_all_tasks_blocked()
        assert at_work == set(), "what is left is left at once"
        await trio.sleep(11)
        assert at_work == {"other"}
        # Somebody took it while this one could not renew it.
        offices["stats"] = ("stranger", trio.current_time() + 60)
        await trio.sleep(11)
        assert at_work == set()
        await trio.sleep(60)
        assert at_work == {"other"}
        nursery.cancel_scope.cancel()


async def test_work_of_the_office_that_fails_is_its_supervisors_to_start_again(autojump_clock: MockClock) -> None:
    office = Office(MemoryElection("one"), "stats", ttl_s=30)

    async def fail(ready: Callable[[], None]) -> None:
        raise Transient("it cannot work")

    async with trio.open_nursery() as nursery:
        scope = await nursery.start(_keep, office)
        with pytest.raises(ExceptionGroup) as ended:
            await office.while_held(fail, lambda: None)
        assert isinstance(single(ended.value), Transient)
        scope.cancel()


async def _keep(office: Office, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED) -> None:
    with trio.CancelScope() as scope:
        await office.run(lambda: task_status.started(scope))


async def test_an_office_that_was_lost_for_a_moment_is_worked_in_again(autojump_clock: MockClock) -> None:
    """The election answers so late that our time had run out meanwhile: what ran in it was ended and begins anew."""

    class Slow(MemoryElection):
        takes_s = 0.0

        async def hold(self, office: str, ttl_s: float) -> bool:
            is_ours = await super().hold(office, ttl_s)
            await trio.sleep(self.takes_s)
            return is_ours

    lives = 0

    async def body(ready: Callable[[], None]) -> None:
        nonlocal lives
        lives += 1
        await trio.sleep_forever()

    election = Slow("one", {})
    office = Office(election, "stats", ttl_s=30)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(office.run, lambda: None)
        nursery.start_soon(office.while_held, body, lambda: None)
        election.takes_s = 15.0
        await trio.sleep(45)
        election.takes_s = 0.0
        await trio.sleep(60)
        assert office.is_held
        assert lives == 2
        nursery.cancel_scope.cancel()
