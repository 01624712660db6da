"""The scheduler and the activity notes: on a clock that jumps, and several of them on one real database and Redis."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from moonxd.adapters.bullmq.queue import BullQueue
from moonxd.adapters.memory.ledger import MemoryLedger
from moonxd.adapters.memory.queue import MemoryQueue
from moonxd.adapters.postgres.ledger import open_postgres_ledger
from moonxd.adapters.redis.client import open_redis
from moonxd.adapters.redis.settings import parse_redis_url
from moonxd.agents.activity import Activity
from moonxd.agents.scheduler import PAGE, Report, Scheduler, next_tick
from moonxd.domain.errors import Permanent, Transient
from moonxd.domain.job import PRIORITIES, Completed, Job, JobOptions, NewJob
from moonxd.domain.payload import parse_wallet_sync
from moonxd.domain.plan import Plan, Rules
from moonxd.domain.schedule import Change, Mark, Registration, Taken
from moonxd.ports import Schedule
from tests.conformance.ledger_data import address, admission, admitted, change

#: 22:13 UTC: off hours, an interval of 15 minutes.
START = 1_700_000_000
MINUTE, HOUR = 60, 3600
PLAN = Plan(Rules())


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


class TrioClock:
    """Wall time that follows the simulated clock."""

    def now(self) -> float:
        return START + trio.current_time()


class World:
    """A schedule and a queue in memory; `user` n has wallet n."""

    def __init__(self, queue: MemoryQueue | None = None) -> None:
        self.clock = TrioClock()
        self.ledger = MemoryLedger(self.clock)
        self.schedule: Schedule = self.ledger.schedule
        self.queue = queue or MemoryQueue("sync-jobs")
        self.reports: list[Report] = []

    async def register(self, count: int, *, overdue: float = 0.0, away: float = 0.0) -> None:
        now = self.clock.now()
        entries = [
            Registration(
                user_id=f"user-{n}", wallet=address(n), due_at=int(now - overdue), revive_at=0, active_at=now - away
            )
            for n in range(count)
        ]
        await self.schedule.register(entries)

    def scheduler(self, **options: Any) -> Scheduler:
        return Scheduler(
            options.pop("schedule", self.schedule), self.queue, options.pop("plan", PLAN), now=self.clock.now,
            on_report=self.reports.append, **options,
        )  # fmt: skip

    @asynccontextmanager
    async def running(self, **options: Any) -> AsyncIterator[Scheduler]:
        scheduler = self.scheduler(**options)
        with trio.fail_after(1_000_000):
            async with trio.open_nursery() as nursery:
                ready = trio.Event()
                nursery.start_soon(scheduler.run, ready.set)
                await ready.wait()
                yield scheduler
                nursery.cancel_scope.cancel()
        assert not scheduler.report.is_running

    async def work(self) -> list[Job]:
        """Run all that waits, as a worker whose syncs succeed would."""
        done = []
        while (claim := await self.queue.claim()).job is not None:
            done.append(claim.job)
            task = parse_wallet_sync(claim.job.data)
            ask = admission(task.wallet, user=task.user_id, job=claim.job.id)
            await self.ledger.commit(change(await admitted(self.ledger, ask), total_value_usd=Decimal(1)))
            await self.queue.settle(claim.job, Completed(b"null"), fetch=False)
        return done

    async def waiting(self) -> int:
        counts = await self.queue.counts()
        return counts.waiting + counts.prioritized


async def until(condition: Callable[[], bool]) -> None:
    """The clock jumps: this costs no real time."""
    while not condition():  # noqa: ASYNC110
        await trio.sleep(0.5)


async def test_a_wallet_is_queued_once_per_slot(autojump_clock: MockClock) -> None:
    world = World()
    await world.register(1)
    async with world.running():
        ids: list[str] = []
        for _ in range(8 * 60):
            await trio.sleep(MINUTE / 2)
            ids += [job.id for job in await world.work()]
    # Four hours, off hours all the time: 16 slots of 15 minutes, the first one at once.
    assert len(ids) in (16, 17)
    assert len(set(ids)) == len(ids)
    gaps = Counter(b - a for a, b in zip(_slots(ids)[1:], _slots(ids)[2:], strict=False))
    assert set(gaps) == {15 * MINUTE}


def _slots(ids: Sequence[str]) -> list[int]:
    return [int(one.rpartition("-")[2]) for one in ids]


async def test_nothing_piles_up_while_nobody_works(autojump_clock: MockClock) -> None:
    world = World()
    await world.register(50)
    async with world.running() as scheduler:
        await trio.sleep(50 * MINUTE)
        assert await world.waiting() == 50
        assert scheduler.report.skipped["pending"] >= 100
        assert scheduler.report.missed >= 100


async def test_a_kept_finished_job_does_not_block_its_wallet(autojump_clock: MockClock) -> None:
    world = World()
    await world.register(1)
    async with world.running():
        await trio.sleep(2)
        (first,) = await world.work()
        assert (await world.queue.get(first.id)) is not None, "the queue keeps it"
        await trio.sleep(20 * MINUTE)
        (second,) = await world.work()
    assert second.id != first.id


async def test_users_who_are_away_cost_nothing_until_they_come_back(autojump_clock: MockClock) -> None:
    world = World()
    await world.register(3, away=25 * HOUR)
    async with world.running() as scheduler:
        await trio.sleep(5)
        assert await world.waiting() == 0
        assert scheduler.report.skipped == {"inactive": 3}
        await world.schedule.change("user-1", None, Change(active_at=world.clock.now()))
        await trio.sleep(5)
        assert await world.waiting() == 1


async def test_users_go_away_after_a_day(autojump_clock: MockClock) -> None:
    world = World()
    await world.register(1)
    async with world.running(tick_s=20) as scheduler:
        for _ in range(26 * 30):
            await trio.sleep(2 * MINUTE)
            await world.work()
        queued = scheduler.report.queued
        # 8 h of 5 minutes, 16 h of 15; a periodic sync is no sign of life.
        assert 150 <= queued <= 165
        assert (await world.schedule.page())[0].look_at is None


async def test_the_queues_depth_holds_it_back(autojump_clock: MockClock) -> None:
    world = World()
    await world.register(1000)
    async with world.running(max_waiting=300) as scheduler:
        await trio.sleep(30)
        assert 300 <= await world.waiting() < 300 + PAGE
        assert scheduler.report.is_held_back
        queued = scheduler.report.queued
        for _ in range(150):
            claim = await world.queue.claim()
            assert claim.job is not None
            await world.queue.settle(claim.job, Completed(b"null"), fetch=False)
        await trio.sleep(5)
        assert queued < scheduler.report.queued < 1000


async def test_the_batch_is_a_page_and_never_a_cap(autojump_clock: MockClock) -> None:
    class Counting(MemoryQueue):
        sizes: list[int] = []  # noqa: RUF012

        async def add(self, jobs: Sequence[NewJob]) -> tuple[str, ...]:
            self.sizes.append(len(jobs))
            return await super().add(jobs)

    world = World(Counting("sync-jobs"))
    await world.register(1000)
    assert await world.scheduler(batch=10).round() == 1000
    assert set(Counting.sizes) == {10}


async def test_at_most_so_many_wallets_a_round_when_asked(autojump_clock: MockClock) -> None:
    world = World()
    await world.register(1000)
    scheduler = world.scheduler(max_users=30)
    assert [await scheduler.round() for _ in range(3)] == [30, 30, 30]


async def test_a_pause_holds_and_a_trigger_passes_it_once(autojump_clock: MockClock) -> None:
    world = World()
    await world.register(1)
    await world.schedule.pause(True)
    async with world.running() as scheduler:
        await trio.sleep(HOUR)
        assert await world.waiting() == 0
        scheduler.trigger()
        await until(lambda: scheduler.report.queued == 1)
        await world.work()
        await trio.sleep(HOUR)
        assert scheduler.report.queued == 1
        await world.schedule.pause(False)
        await until(lambda: scheduler.report.queued == 2)


async def test_slots_and_drift_are_reported(autojump_clock: MockClock) -> None:
    world = World()
    await world.register(1, overdue=40 * MINUTE)
    async with world.running() as scheduler:
        await until(lambda: scheduler.report.queued == 1)
        report = scheduler.report
        assert report.missed == 2
        assert report.worst_drift_s == pytest.approx(40 * MINUTE, abs=2)
        await until(lambda: scheduler.report.figures is not None)
        figures = scheduler.report.figures
        assert figures is not None
        assert (figures.wallets, figures.fresh_ratio) == (1, 0.0)
    assert world.reports[-1] == scheduler.report


class Away:
    """A schedule whose marks or takes fail `times` times."""

    def __init__(self, schedule: Schedule, method: str, times: int) -> None:
        self._schedule = schedule
        self._method = method
        self.left = times

    def __getattr__(self, name: str) -> Any:
        if name == self._method and self.left:
            self.left -= 1
            raise Transient("the database is away")
        return getattr(self._schedule, name)


@pytest.mark.parametrize("method", ["take", "mark", "figures"])
async def test_a_database_that_is_away_loses_and_doubles_nothing(autojump_clock: MockClock, method: str) -> None:
    world = World()
    await world.register(10)
    async with world.running(schedule=Away(world.schedule, method, 2)) as scheduler:
        # A page that was not marked is held for a minute.
        await trio.sleep(5 * MINUTE)
        done = await world.work()
        assert len(done) == 10
        assert scheduler.report.figures is not None
        assert scheduler.report.last_error is None
        assert (scheduler.report.missed_ticks >= 8) is (method != "figures")


async def test_a_redis_that_is_away_loses_and_doubles_nothing(autojump_clock: MockClock) -> None:
    class Leaving(MemoryQueue):
        left = 2

        async def add(self, jobs: Sequence[NewJob]) -> tuple[str, ...]:
            added = await super().add(jobs)
            if self.left:
                self.left -= 1
                raise Transient("the answer was lost")
            return added

    world = World(Leaving("sync-jobs"))
    await world.register(25)
    async with world.running() as scheduler:
        await trio.sleep(5)
        assert scheduler.report.last_error == "the answer was lost"
        await trio.sleep(5 * MINUTE)
        assert len(await world.work()) == 25
        assert scheduler.report.last_error is None


@pytest.mark.parametrize(
    ("earliest", "expected"), [(10.0, (11.0, 0)), (10.9, (11.0, 0)), (11.0, (11.0, 0)), (13.4, (14.0, 3))]
)
def test_ticks_keep_their_time(earliest: float, expected: tuple[float, int]) -> None:
    assert next_tick(10.0, earliest, 1.0) == expected


async def test_syncs_by_hand_register_and_wake(autojump_clock: MockClock) -> None:
    world = World()
    activity = Activity(world.schedule, PLAN, world.clock.now)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(activity.run, lambda: None)
        for n in range(1200):
            activity.note(f"user-{n}", address(n))
            activity.note(f"user-{n}", address(n))
        await trio.sleep(3)
        assert (await world.schedule.figures(PLAN.targets(world.clock.now()))).active_wallets == 1200
        activity.note("late", address(9999))
        nursery.cancel_scope.cancel()
    assert [row.user_id for row in await world.schedule.page(user_id="late")] == ["late"], "noted while it stopped"


async def test_activity_waits_for_a_database_that_is_away(autojump_clock: MockClock) -> None:
    world = World()
    away: Any = Away(world.schedule, "register", 3)
    activity = Activity(away, PLAN, world.clock.now)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(activity.run, lambda: None)
        activity.note("user-1", address(1))
        await trio.sleep(20)
        assert len(await world.schedule.page()) == 1
        nursery.cancel_scope.cancel()


async def test_a_user_that_the_database_never_takes_keeps_nobody_out(autojump_clock: MockClock) -> None:
    world = World()

    class Strict:
        async def register(self, wallets: Sequence[Registration]) -> int:
            if any(one.user_id == "user-3" for one in wallets):
                raise Permanent("no uuid")
            return await world.schedule.register(wallets)

    strict: Any = Strict()
    activity = Activity(strict, PLAN, world.clock.now)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(activity.run, lambda: None)
        for n in range(10):
            activity.note(f"user-{n}", address(n))
        await trio.sleep(3)
        nursery.cancel_scope.cancel()
    assert len(await world.schedule.page()) == 9


@pytest.mark.postgres
@pytest.mark.redis
async def test_many_daemons_queue_each_slot_once(postgres_dsn: str, redis_url: str) -> None:
    count = 2000
    async with (
        open_postgres_ledger(postgres_dsn) as one,
        open_postgres_ledger(postgres_dsn) as other,
        open_redis(parse_redis_url(redis_url)) as redis,
    ):
        queue = BullQueue(redis, "schedulers", worker_name="test")
        schedules: list[Schedule] = [one.schedule, other.schedule]
        now = (await schedules[0].take(0, 1.0)).at
        await schedules[0].register(
            [
                Registration(user_id=f"u{n}", wallet=address(n), due_at=int(now) - 5, revive_at=0, active_at=now)
                for n in range(count)
            ]
        )
        schedulers = [Scheduler(schedules[n % 2], queue, PLAN, now=lambda: now) for n in range(4)]
        queued: list[int] = []

        async def run(scheduler: Scheduler) -> None:
            queued.append(await scheduler.round())

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for scheduler in schedulers:
                    nursery.start_soon(run, scheduler)
        assert sum(queued) == count
        assert (await queue.counts()).prioritized == count
        rows = await schedules[0].page(limit=count)
        assert all(row.due_at > now for row in rows)


async def test_what_people_ask_for_is_served_before_the_crowd(autojump_clock: MockClock) -> None:
    """Stale wallets wait for what is urgent, regular ones for everything that a person asked for."""
    world = World()
    await world.register(400)
    for n in range(200):
        await world.ledger.commit(
            change(await admitted(world.ledger, admission(address(n), user=f"user-{n}", job=f"{n}")),
                   total_value_usd=Decimal(20_000 if n == 77 else 1))
        )  # fmt: skip
    await trio.sleep(10 * MINUTE)
    await world.scheduler().round()
    options = {name: JobOptions(priority=PRIORITIES[name]) for name in ("low", "medium", "high")}
    await world.queue.add(
        [NewJob(name=name, data={}, options=one, id=f"by-hand-{name}") for name, one in options.items()]
    )
    served = []
    while (claim := await world.queue.claim()).job is not None:
        served.append(claim.job)
    assert [job.name for job in served].index("medium") == 201, "behind the urgent one and 200 stale ones"
    assert served[0].id == "by-hand-high"
    assert address(77) in served[202].id, "the rich one before the other regular ones"
    assert served[-1].name == "low"
    assert len(served) == 403


@pytest.mark.postgres
@pytest.mark.redis
async def test_whoever_died_between_queue_and_mark_is_followed_without_a_second_job(
    postgres_dsn: str, redis_url: str
) -> None:
    class Dying(Exception):
        pass

    async with open_postgres_ledger(postgres_dsn) as ledger, open_redis(parse_redis_url(redis_url)) as redis:
        queue = BullQueue(redis, "dying", worker_name="test")
        schedule: Schedule = ledger.schedule
        now = (await schedule.take(0, 1.0)).at
        await schedule.register(
            [Registration(user_id="u", wallet=address(7), due_at=int(now) - 5, revive_at=0, active_at=now)]
        )

        class Shortlived:
            """Holds pages for no time, and its process dies before it marks."""

            async def take(self, limit: int, hold_s: float, *, even_paused: bool = False) -> Taken:
                return await schedule.take(limit, 0.0, even_paused=even_paused)

            async def mark(self, marks: Sequence[Mark]) -> None:
                raise Dying

        with pytest.raises(Dying):
            await Scheduler(Shortlived(), queue, PLAN, now=lambda: now).round()  # type: ignore[arg-type]
        assert (await queue.counts()).prioritized == 1
        assert await Scheduler(schedule, queue, PLAN, now=lambda: now).round() == 1
        assert (await queue.counts()).prioritized == 1
