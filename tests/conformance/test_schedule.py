"""One suite for every store of the schedule: memory, SQLite, PostgreSQL."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
import trio

from moonxd.domain.errors import MoonxdError
from moonxd.domain.schedule import Change, Due, Mark, Registration, Targets
from moonxd.ports import Schedule
from tests.conformance.conftest import Look, Opener
from tests.conformance.ledger_data import new_wallet, synced

HOUR = 3600
TARGETS = Targets(active_s=24 * HOUR, stale_s=HOUR, fresh_s=450.0, fresh_intervals=1.5)


@pytest.fixture
def schedule(ledger: Any) -> Schedule:
    return ledger.schedule  # type: ignore[no-any-return]


async def now_of(schedule: Schedule) -> float:
    return (await schedule.take(0, 60.0)).at


async def entry(
    schedule: Schedule, wallet: str, *, due_in: int = -10, user: str = "user-1", **more: Any
) -> Registration:
    now = await now_of(schedule)
    fields = {"active_at": now, "revive_at": int(now), **more}
    return Registration(user_id=user, wallet=wallet, due_at=int(now) + due_in, **fields)


async def put(schedule: Schedule, wallet: str, **more: Any) -> Registration:
    one = await entry(schedule, wallet, **more)
    await schedule.register([one])
    return one


def marked(due: Due, at: float, *, look_at: int | None = -1, rank: int = 1, queued: bool = True) -> Mark:
    later = int(at) + 300
    return Mark(
        user_id=due.user_id, wallet=due.wallet, due_at=due.due_at, next_due_at=later,
        look_at=later if look_at == -1 else look_at, active_at=due.last_active_at, rank=rank,
        queued_at=at if queued else None,
    )  # fmt: skip


async def test_a_due_wallet_is_held_by_who_took_it(schedule: Schedule, wallet: str) -> None:
    one = await put(schedule, wallet)
    first = await schedule.take(10, 60.0)
    assert [(due.wallet, due.due_at) for due in first.wallets] == [(wallet, one.due_at)]
    assert (await schedule.take(10, 60.0)).wallets == ()


async def test_a_wallet_that_nobody_marked_comes_back_under_the_same_slot(schedule: Schedule, wallet: str) -> None:
    one = await put(schedule, wallet)
    assert len((await schedule.take(10, 0.0)).wallets) == 1
    (again,) = (await schedule.take(10, 60.0)).wallets
    assert again.due_at == one.due_at, "so that its job has the same id"


async def test_a_marked_wallet_is_due_at_its_next_slot(schedule: Schedule, wallet: str) -> None:
    await put(schedule, wallet)
    taken = await schedule.take(10, 60.0)
    await schedule.mark([marked(taken.wallets[0], taken.at)])
    assert (await schedule.take(10, 60.0)).wallets == ()
    (row,) = await schedule.page()
    assert row.due_at == row.look_at == int(taken.at) + 300


async def test_a_mark_of_another_slot_changes_nothing(schedule: Schedule, wallet: str) -> None:
    await put(schedule, wallet)
    taken = await schedule.take(10, 60.0)
    now = int(taken.at)
    assert await schedule.change("user-1", wallet, Change(force_at=now)) == 1
    await schedule.mark([marked(taken.wallets[0], taken.at)])
    (forced,) = (await schedule.take(10, 60.0)).wallets
    assert forced.is_forced
    assert forced.due_at == now


async def test_rich_wallets_come_first(schedule: Schedule) -> None:
    poor, rich = new_wallet(), new_wallet()
    await put(schedule, poor, due_in=-100)
    await put(schedule, rich, due_in=-50)
    taken = await schedule.take(10, 60.0)
    assert [due.wallet for due in taken.wallets] == [poor, rich]
    await schedule.mark([marked(due, taken.at - 400, rank=0 if due.wallet == rich else 1) for due in taken.wallets])
    assert [due.wallet for due in (await schedule.take(10, 60.0)).wallets] == [rich, poor]


async def test_pages_hold_no_more_than_asked_for(schedule: Schedule) -> None:
    wallets = [new_wallet() for _ in range(7)]
    await schedule.register([await entry(schedule, one, due_in=-20 + n) for n, one in enumerate(wallets)])
    pages = [(await schedule.take(3, 60.0)).wallets for _ in range(4)]
    assert [len(page) for page in pages] == [3, 3, 1, 0]
    assert [due.wallet for page in pages for due in page] == wallets


async def test_what_the_decision_needs_comes_with_the_wallet(ledger: Any, schedule: Schedule, wallet: str) -> None:
    await put(schedule, wallet, interval_minutes=30, timezone="Europe/Berlin")
    await synced(ledger, wallet, total_value_usd=Decimal("12345.678901234567"))
    taken = await schedule.take(10, 60.0)
    (due,) = taken.wallets
    assert due.total_value_usd == Decimal("12345.678901234567")
    assert (due.interval_minutes, due.timezone, due.is_enabled, due.is_forced) == (30, "Europe/Berlin", True, False)
    assert due.last_sync_at is not None
    assert due.ended_at is not None
    assert math.isclose(due.last_sync_at, taken.at, abs_tol=5)
    assert due.queued_at is None
    await schedule.mark([marked(due, taken.at - 400)])
    (again,) = (await schedule.take(10, 60.0)).wallets
    assert again.queued_at is not None
    assert math.isclose(again.queued_at, taken.at - 400, abs_tol=0.001)


async def test_a_parked_wallet_wakes_with_its_user(schedule: Schedule, wallet: str) -> None:
    await put(schedule, wallet)
    taken = await schedule.take(10, 0.0)
    await schedule.mark([marked(taken.wallets[0], taken.at, look_at=None, queued=False)])
    assert (await schedule.take(10, 60.0)).wallets == ()
    assert (await schedule.page())[0].look_at is None
    assert await schedule.register([await entry(schedule, wallet, due_in=9000)]) == 0
    assert len((await schedule.take(10, 60.0)).wallets) == 1


async def test_a_user_who_comes_back_while_being_parked_is_not_forgotten(schedule: Schedule, wallet: str) -> None:
    await put(schedule, wallet, active_at=1000.0)
    taken = await schedule.take(10, 0.0)
    await schedule.change("user-1", wallet, Change(active_at=taken.at))
    await schedule.mark([marked(taken.wallets[0], taken.at, look_at=None, queued=False)])
    assert len((await schedule.take(10, 60.0)).wallets) == 1


async def test_registering_again_keeps_the_slot_and_notes_the_activity(schedule: Schedule, wallet: str) -> None:
    first = await put(schedule, wallet, due_in=100)
    assert await schedule.register([await entry(schedule, wallet, due_in=900, active_at=first.active_at + 50)]) == 0
    assert await schedule.register([await entry(schedule, wallet, due_in=900, active_at=first.active_at - 50)]) == 0
    (row,) = await schedule.page()
    assert row.due_at == first.due_at
    assert math.isclose(row.last_active_at, first.active_at + 50, abs_tol=0.001)


async def test_one_page_may_name_a_wallet_twice(schedule: Schedule, wallet: str) -> None:
    one = await entry(schedule, wallet, due_in=100)
    assert await schedule.register([one, one]) == 1
    assert await schedule.register([]) == 0


async def test_settings_of_one_wallet_or_all_of_a_user(schedule: Schedule) -> None:
    mine, other = new_wallet(), new_wallet()
    for one in (mine, other):
        await put(schedule, one, due_in=100)
    await put(schedule, mine, due_in=100, user="user-2")
    assert await schedule.change("user-1", None, Change(interval_minutes=5, timezone="Asia/Tokyo")) == 2
    assert await schedule.change("user-1", mine, Change(is_enabled=False, interval_minutes=0, timezone="")) == 1
    assert await schedule.change("nobody", None, Change(interval_minutes=5)) == 0
    rows = {(row.user_id, row.wallet): row for row in await schedule.page()}
    changed, kept, foreign = rows["user-1", mine], rows["user-1", other], rows["user-2", mine]
    assert (changed.interval_minutes, changed.timezone, changed.is_enabled) == (None, None, False)
    assert (kept.interval_minutes, kept.timezone, kept.is_enabled) == (5, "Asia/Tokyo", True)
    assert (foreign.interval_minutes, foreign.timezone, foreign.is_enabled) == (None, None, True)


async def test_switching_on_again_does_not_wait_for_the_next_look(schedule: Schedule, wallet: str) -> None:
    await put(schedule, wallet)
    taken = await schedule.take(10, 60.0)
    await schedule.mark([marked(taken.wallets[0], taken.at - 400, look_at=int(taken.at) + HOUR, queued=False)])
    await schedule.change("user-1", wallet, Change(is_enabled=True))
    assert len((await schedule.take(10, 60.0)).wallets) == 1


async def test_settings_stand_where_other_programs_look(schedule: Schedule, look: Look, wallet: str) -> None:
    await put(schedule, wallet, interval_minutes=45)
    await schedule.change("user-1", wallet, Change(is_enabled=False))
    (row,) = look(
        "SELECT auto_sync_interval_minutes AS minutes, is_sync_enabled AS enabled FROM user_sync_status "
        f"WHERE wallet_address = '{wallet}'"
    )
    assert (row["minutes"], bool(row["enabled"])) == (45, False)


async def test_changing_settings_is_not_the_end_of_a_sync(ledger: Any, schedule: Schedule, wallet: str) -> None:
    await synced(ledger, wallet)
    await put(schedule, wallet)
    (before,) = (await schedule.take(1, 0.0)).wallets
    await schedule.change("user-1", wallet, Change(interval_minutes=7))
    (after,) = (await schedule.take(1, 0.0)).wallets
    assert after.ended_at == before.ended_at


async def test_a_pause_is_everybodys_and_can_be_passed(open_ledger: Opener, wallet: str) -> None:
    async with open_ledger() as one, open_ledger() as other:
        await put(one.schedule, wallet)  # type: ignore[attr-defined]
        await one.schedule.pause(True, "the provider asked")  # type: ignore[attr-defined]
        there: Schedule = other.schedule  # type: ignore[attr-defined]
        taken = await there.take(10, 0.0)
        assert (taken.is_paused, taken.wallets) == (True, ())
        figures = await there.figures(TARGETS)
        assert (figures.is_paused, figures.paused_reason) == (True, "the provider asked")
        assert len((await there.take(10, 0.0, even_paused=True)).wallets) == 1
        await there.pause(False)
        assert (await one.schedule.figures(TARGETS)).paused_reason is None  # type: ignore[attr-defined]
        assert len((await there.take(10, 60.0)).wallets) == 1


async def test_removed_wallets_are_never_due_again(schedule: Schedule) -> None:
    mine, other = new_wallet(), new_wallet()
    for one in (mine, other):
        await put(schedule, one)
    assert await schedule.remove("user-1", mine) == 1
    assert await schedule.remove("user-1", mine) == 0
    assert [due.wallet for due in (await schedule.take(10, 60.0)).wallets] == [other]
    assert await schedule.remove("user-1", None) == 1


async def test_pages_of_the_list_follow_each_other(schedule: Schedule) -> None:
    names = {(f"user-{n % 3}", new_wallet()) for n in range(10)}
    await schedule.register([await entry(schedule, wallet, user=user) for user, wallet in names])
    seen: list[tuple[str, str]] = []
    while page := await schedule.page(after=seen[-1] if seen else None, limit=4):
        seen += [(row.user_id, row.wallet) for row in page]
    assert seen == sorted(names)
    ones = [name for name in sorted(names) if name[0] == "user-1"]
    assert [(r.user_id, r.wallet) for r in await schedule.page(user_id="user-1", after=ones[0])] == ones[1:]


async def test_figures_count_wallets_users_and_freshness(ledger: Any, schedule: Schedule) -> None:
    fresh, never, away = new_wallet(), new_wallet(), new_wallet()
    now = await now_of(schedule)
    await put(schedule, fresh, due_in=500)
    await put(schedule, never, due_in=-5)
    await put(schedule, away, due_in=700, user="user-2", active_at=now - 25 * HOUR)
    await synced(ledger, fresh)
    figures = await schedule.figures(TARGETS)
    assert (figures.users, figures.wallets, figures.active_users, figures.active_wallets) == (2, 3, 1, 2)
    assert (figures.fresh, figures.stale, figures.due) == (1, 1, 1)
    assert figures.fresh_ratio == 0.5
    assert figures.next_due_at is not None
    assert figures.next_due_at < now


async def test_a_wallets_own_interval_is_its_target(ledger: Any, schedule: Schedule, wallet: str) -> None:
    await put(schedule, wallet, due_in=500, interval_minutes=60)
    await synced(ledger, wallet)
    strict = Targets(active_s=24 * HOUR, stale_s=HOUR, fresh_s=-1.0, fresh_intervals=1.5)
    assert (await schedule.figures(strict)).fresh == 1
    await schedule.change("user-1", wallet, Change(interval_minutes=0))
    assert (await schedule.figures(strict)).fresh == 0


async def test_many_takers_share_the_wallets_without_overlap(open_ledger: Opener) -> None:
    wallets = [new_wallet() for _ in range(300)]
    got: list[str] = []

    async def take(schedule: Schedule) -> None:
        while page := (await schedule.take(7, 60.0)).wallets:
            got.extend(due.wallet for due in page)

    async with open_ledger() as one, open_ledger() as other, trio.open_nursery() as nursery:
        schedules: list[Schedule] = [one.schedule, other.schedule]  # type: ignore[attr-defined]
        await schedules[0].register([await entry(schedules[0], wallet) for wallet in wallets])
        for number in range(6):
            nursery.start_soon(take, schedules[number % 2])
    assert sorted(got) == sorted(wallets)


async def test_a_name_that_no_database_keeps_is_refused_whole(schedule: Schedule, wallet: str) -> None:
    try:
        await schedule.register([await entry(schedule, wallet, user="nul\0byte")])
    except MoonxdError:
        assert await schedule.page() == ()
    else:
        assert len(await schedule.page()) == 1
