"""When wallets are due, in which class, and under which id."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moonxd.adapters.bullmq.adding import check
from moonxd.config.cron import CronPattern
from moonxd.domain.errors import Permanent
from moonxd.domain.payload import parse_wallet_sync
from moonxd.domain.plan import Plan, Rules, zone
from moonxd.domain.schedule import Due, Verdict, is_activity, job_for, job_id, snapshot_type

MINUTE, HOUR, DAY = 60, 3600, 86400
USER, WALLET = "user-1", "0x" + "ab" * 20
PLAN = Plan(Rules())


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


NOON = at("2026-11-20T12:00:00")
NIGHT = at("2026-11-20T22:00:00")


def due(now: float = NOON, **fields: Any) -> Due:
    fields = {"due_at": int(now), "last_active_at": now - HOUR, "last_sync_at": now - 10 * MINUTE} | fields
    return Due(user_id=USER, wallet=WALLET, **fields)


# ---- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "timezone", "is_open"),
    [
        ("2026-11-20T08:59:59", None, False),
        ("2026-11-20T09:00:00", None, True),
        ("2026-11-20T16:59:59", None, True),
        ("2026-11-20T17:00:00", None, False),
        ("2026-11-20T08:30:00", "Europe/Berlin", True),
        ("2026-11-20T16:30:00", "Europe/Berlin", False),
        ("2026-11-20T03:45:00", "Asia/Kolkata", True),
        ("2026-11-20T12:00:00", "Nowhere/AtAll", True),
    ],
)
def test_market_hours(moment: str, timezone: str | None, is_open: bool) -> None:
    assert PLAN.is_market(at(moment), timezone) is is_open


def test_market_days_and_hours_over_midnight() -> None:
    plan = Plan(Rules(open_hour=22, close_hour=6, days=("fri",)))
    open_at = ["2026-11-20T22:00:00", "2026-11-20T23:59:00", "2026-11-21T05:59:00"]
    closed_at = ["2026-11-20T05:00:00", "2026-11-21T06:00:00", "2026-11-21T23:00:00", "2026-11-20T12:00:00"]
    assert all(plan.is_market(at(moment)) for moment in open_at)
    assert not any(plan.is_market(at(moment)) for moment in closed_at)


def test_intervals_follow_the_hours_unless_the_wallet_has_its_own() -> None:
    assert PLAN.interval(NOON) == 5 * MINUTE
    assert PLAN.interval(NIGHT) == 15 * MINUTE
    assert PLAN.interval(NOON, 60) == HOUR
    assert Plan(Rules(cron=CronPattern("0 * * * *"))).interval(NOON) == HOUR


def slots(plan: Plan, start: float, end: float, wallet: str = WALLET, **own: Any) -> list[int]:
    found = [plan.next_slot(USER, wallet, start, **own)]
    while found[-1] < end:
        found.append(plan.next_slot(USER, wallet, found[-1], **own))
    return found[:-1]


@given(st.text(min_size=1, max_size=20), st.integers(0, 2**32 - 1))
def test_a_day_has_the_slots_of_its_hours(user: str, number: int) -> None:
    wallet = f"0x{number:040x}"
    found, now = [], int(NOON)
    while now < NOON + DAY:
        now = PLAN.next_slot(user, wallet, now)
        found.append(now)
    steps = [b - a for a, b in pairwise(found)]
    # At each of the two turns of the day one step may be anything up to the longer interval.
    assert len([step for step in steps if step not in (300, 900)]) <= 2
    assert max(steps) <= 900
    per_kind = Counter(PLAN.is_market(slot) for slot in found)
    assert per_kind[True] in (96, 97)
    assert per_kind[False] in (64, 65)


@given(
    st.floats(0, 4e9),
    st.one_of(st.none(), st.integers(1, 3 * 24 * 60)),
    st.sampled_from([None, "Europe/Berlin", "America/St_Johns", "Pacific/Apia"]),
    st.sampled_from([None, "*/5 * * * *", "0 3 * * *", "*/7 * * * * *"]),
    st.floats(1, 7200),
    st.floats(1, 7200),
)
@example(2147483648.9999995, None, None, None, 300.0, 900.0)
@settings(deadline=None)
def test_the_next_slot_is_later_and_near(
    now: float, minutes: int | None, timezone: str | None, cron: str | None, market: float, off: float
) -> None:
    plan = Plan(Rules(cron=CronPattern(cron) if cron else None, market_interval_s=market, off_interval_s=off))
    slot = plan.next_slot(USER, WALLET, now, interval_minutes=minutes, timezone=timezone)
    longest = minutes * 60 if minutes else DAY if cron else max(round(market), round(off))
    assert now < slot <= int(now) + longest + 1
    # Whoever asks later, but before the slot, gets the same: every daemon agrees on the job's id. The middle of two
    # neighbouring floats is the later one, so it is held back.
    between = min((now + slot) / 2, math.nextafter(slot, 0))
    assert plan.next_slot(USER, WALLET, between, interval_minutes=minutes, timezone=timezone) == slot


@pytest.mark.parametrize("own", [{}, {"interval_minutes": 30}])
def test_ten_thousand_wallets_do_not_fire_together(own: dict[str, Any]) -> None:
    interval = 30 * MINUTE if own else 5 * MINUTE
    per_second = Counter(PLAN.next_slot(f"u{n}", f"0x{n:040x}", NOON, **own) for n in range(10_000))
    assert len(per_second) > 0.98 * interval, "every second of the interval is used"
    mean = 10_000 / interval
    assert max(per_second.values()) < mean + 6 * mean**0.5


def test_wallets_of_one_cron_instant_are_spread() -> None:
    plan = Plan(Rules(cron=CronPattern("0 3 * * *"), cron_spread_s=600))
    found = Counter(plan.next_slot(f"u{n}", WALLET, NOON) for n in range(5000))
    three = int(at("2026-11-21T03:00:00"))
    assert set(found) <= set(range(three, three + 600))
    assert max(found.values()) < 40


class Never:
    pattern = "never"

    def after(self, second: int) -> int | None:
        return None


def test_a_cron_that_never_fires_forgets_nobody() -> None:
    assert Plan(Rules(cron=Never())).next_slot(USER, WALLET, NOON) > NOON


# ---- decisions -------------------------------------------------------------------------------------------------------


def test_regular_wallets_are_medium_and_stale_ones_high() -> None:
    regular = PLAN.decide(due(), NOON)
    assert (regular.why, regular.priority) == ("medium", 7)
    stale = PLAN.decide(due(last_sync_at=NOON - 2 * HOUR), NOON)
    assert (stale.why, stale.priority) == ("high", 3)
    assert PLAN.decide(due(last_sync_at=None), NOON).why == "high"


def test_rich_wallets_go_before_the_others_of_their_class() -> None:
    rich = due(total_value_usd=Decimal(10_000))
    assert PLAN.decide(rich, NOON).priority == 6
    assert PLAN.decide(rich, NOON).mark.rank == 0
    assert PLAN.decide(msgspec.structs.replace(rich, last_sync_at=None), NOON).priority == 2
    assert PLAN.decide(due(total_value_usd=Decimal("9999.99")), NOON).priority == 7


def test_everything_manual_and_urgent_goes_before_everything_periodic() -> None:
    lowest = min(
        verdict.priority or 99
        for value in (None, Decimal(10**9))
        for synced in (None, NOON - 10 * MINUTE)
        for verdict in [PLAN.decide(due(last_sync_at=synced, total_value_usd=value), NOON)]
    )
    assert lowest > 1


def test_users_who_stay_away_are_parked() -> None:
    verdict = PLAN.decide(due(last_active_at=NOON - DAY - 1), NOON)
    assert (verdict.why, verdict.priority, verdict.mark.look_at) == ("inactive", None, None)


def test_disabled_wallets_are_looked_at_again() -> None:
    verdict = PLAN.decide(due(is_enabled=False, is_forced=True), NOON)
    assert (verdict.why, verdict.priority) == ("disabled", None)
    assert verdict.mark.look_at is not None


def test_a_wallet_waits_for_its_sync_before() -> None:
    waiting = due(queued_at=NOON - 6 * MINUTE, ended_at=NOON - 10 * MINUTE)
    verdict = PLAN.decide(waiting, NOON)
    assert (verdict.why, verdict.priority, verdict.missed) == ("pending", None, 1)
    ended = msgspec.structs.replace(waiting, ended_at=NOON - 3 * MINUTE)
    assert PLAN.decide(ended, NOON).priority is not None


def test_a_sync_that_got_lost_is_waited_for_only_so_long() -> None:
    lost = due(queued_at=NOON - 61 * MINUTE, ended_at=None, last_sync_at=None)
    assert PLAN.decide(lost, NOON).why == "high"


def test_a_wallet_that_was_just_synced_by_hand_is_left_alone() -> None:
    verdict = PLAN.decide(due(last_sync_at=NOON - 10), NOON)
    assert (verdict.why, verdict.priority, verdict.missed) == ("fresh", None, 0)


def test_what_an_operator_forces_is_queued() -> None:
    forced = due(is_forced=True, last_sync_at=NOON - 1, last_active_at=0.0, queued_at=NOON - 1)
    assert PLAN.decide(forced, NOON).why == "high"


def test_slots_that_passed_are_counted() -> None:
    assert PLAN.decide(due(due_at=int(NOON) - 16 * MINUTE), NOON).missed == 3
    assert PLAN.decide(due(due_at=int(NOON) - 4 * MINUTE), NOON).missed == 0


def test_a_long_interval_of_its_own_does_not_make_a_wallet_stale_for_ever() -> None:
    yearly = due(interval_minutes=360, last_sync_at=NOON - 6 * HOUR)
    assert PLAN.decide(yearly, NOON).why == "medium"
    assert PLAN.decide(msgspec.structs.replace(yearly, last_sync_at=NOON - 13 * HOUR), NOON).why == "high"


@given(
    st.builds(
        Due,
        user_id=st.text(min_size=1, max_size=9),
        wallet=st.just(WALLET),
        due_at=st.integers(0, int(NOON)),
        last_active_at=st.floats(0, NOON),
        is_forced=st.booleans(),
        is_enabled=st.booleans(),
        queued_at=st.none() | st.floats(0, NOON),
        ended_at=st.none() | st.floats(0, NOON),
        last_sync_at=st.none() | st.floats(0, NOON),
        total_value_usd=st.none() | st.decimals(0, 10**12, allow_nan=False),
        interval_minutes=st.none() | st.integers(1, 10_000),
        timezone=st.sampled_from([None, "Asia/Tokyo", "Gone/Zone"]),
    ),
    st.floats(NOON, NOON + DAY),
)
def test_every_decision_moves_on(wallet: Due, now: float) -> None:
    verdict = PLAN.decide(wallet, now)
    mark = verdict.mark
    assert mark.next_due_at > now
    assert mark.look_at is None or mark.look_at > now
    assert (mark.queued_at is None) is (verdict.priority is None)
    assert verdict.missed >= 0
    if not wallet.is_enabled:
        assert verdict.priority is None


# ---- jobs ------------------------------------------------------------------------------------------------------------


@given(st.text(min_size=1, max_size=40), st.integers(0, 4 * 10**9))
def test_job_ids_are_what_bullmq_takes(user: str, slot: int) -> None:
    wanted = Due(user_id=user, wallet=WALLET, due_at=slot, last_active_at=0.0, is_forced=True)
    job = job_for(wanted, PLAN.decide(wanted, NOON), NOON)
    check(job)
    assert job.id == job_id(user, WALLET, slot)
    assert ":" not in (job.id or ":")
    assert job.id != job_id(user, WALLET, slot + 1)
    assert job.id != job_id(user + "x", WALLET, slot)


def test_the_job_is_a_wallet_sync_that_says_who_asked() -> None:
    verdict: Verdict = PLAN.decide(due(), NOON)
    job = job_for(due(), verdict, NOON)
    task = parse_wallet_sync(msgspec.json.encode(job.data))
    assert (task.user_id, task.wallet, task.priority) == (USER, WALLET, "medium")
    assert job.options.priority == 7
    assert not is_activity(task.extra)
    assert snapshot_type(task.extra) == "scheduled"


@pytest.mark.parametrize(
    "extra", [{}, {"metadata": None}, {"metadata": []}, {"metadata": {"trigger": "user"}}, {"metadata": {"trigger": 5}}]
)
def test_everything_else_is_manual(extra: dict[str, Any]) -> None:
    assert is_activity(extra)
    assert snapshot_type(extra) == "sync"


def test_a_bulk_job_is_nobodys_activity() -> None:
    extra = {"metadata": {"trigger": "bulk"}}
    assert not is_activity(extra)
    assert snapshot_type(extra) == "sync"


@pytest.mark.parametrize("name", ["Mars/Olympus", "../etc/passwd", "/etc/localtime", "", "a\0b"])
def test_what_is_no_time_zone(name: str) -> None:
    with pytest.raises(Permanent, match="no time zone"):
        zone(name)
