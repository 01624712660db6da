"""Rate limit, breaker and merging as pure rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonxd.domain.guard import (
    PROBE_S,
    Asked,
    Trip,
    Window,
    breaker_closes_at,
    breaker_view,
    counts_for_user,
    stands_in,
    window_frees_at,
)

NOW = datetime(2025, 1, 1, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


# ---- who counts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "counts"),
    [
        ({}, True),
        ({"metadata": {"source": "web"}}, True),
        ({"metadata": {"trigger": "manual"}}, True),
        ({"metadata": {"trigger": "periodic"}}, False),
        ({"metadata": {"trigger": "bulk"}}, False),
        ({"metadata": {"trigger": ["periodic"]}}, True),
        ({"metadata": "periodic"}, True),
    ],
)
def test_only_what_a_user_asked_for_counts(extra: dict[str, Any], counts: bool) -> None:
    assert counts_for_user(extra) is counts
    assert counts_for_user(extra, is_child=True) is False


# ---- the window ----------------------------------------------------------------------------------------------------

AGES = st.lists(st.floats(-1000, 3000, allow_nan=False), max_size=12)


@given(ages=AGES, most=st.integers(1, 5), span=st.floats(1, 2000))
def test_the_window_frees_exactly_when_it_says(ages: list[float], most: int, span: float) -> None:
    window = Window(most=most, window_s=span)
    admitted = [ago(age) for age in ages]
    free = window_frees_at(admitted, window, NOW)
    inside = [at for at in admitted if at > NOW - timedelta(seconds=span)]
    assert (free is None) == (len(inside) < most)
    if free is not None:
        assert NOW < free <= NOW + timedelta(seconds=span)
        if all(age >= 0 for age in ages):
            assert window_frees_at(admitted, window, free) is None
            assert window_frees_at(admitted, window, free - timedelta(microseconds=1)) == free


@given(steps=st.lists(st.floats(0, 400), min_size=1, max_size=60), most=st.integers(1, 5))
def test_never_more_than_the_limit_in_any_window(steps: list[float], most: int) -> None:
    window, now, admitted = Window(most=most, window_s=900), NOW, list[datetime]()
    for step in steps:
        now += timedelta(seconds=step)
        if window_frees_at(admitted, window, now) is None:
            admitted.append(now)
    for last in admitted:
        assert sum(1 for at in admitted if last - timedelta(seconds=900) < at <= last) <= most


# ---- the breaker ---------------------------------------------------------------------------------------------------

TRIP = Trip(threshold=5, open_s=60)


def closes(
    failures: int = 5, latest: tuple[str, ...] = ("failed",) * 5, failed: float | None = 10, probing: bool = False
) -> datetime | None:
    failed_at = None if failed is None else ago(failed)
    return breaker_closes_at(TRIP, failures=failures, latest=latest, failed_at=failed_at, probing=probing, now=NOW)


def test_the_breakers_life() -> None:
    assert closes(failures=4) is None
    assert closes(failed=10) == NOW + timedelta(seconds=50)
    assert closes(failed=60) is None, "half open"
    assert closes(failed=60, probing=True) == NOW + timedelta(seconds=PROBE_S)
    assert closes(latest=("failed", "completed", "failed", "failed", "failed")) is None
    assert closes(failed=-3600) == NOW + timedelta(seconds=60), "the clock was set back: no longer than open_s"
    assert closes(failed=None) is None


@given(
    failures=st.integers(0, 20),
    failed=st.floats(-1e5, 1e5),
    latest=st.lists(st.sampled_from(["failed", "completed"]), max_size=5),
    probing=st.booleans(),
)
def test_it_never_shuts_out_for_longer_than_it_is_open(
    failures: int, failed: float, latest: list[str], probing: bool
) -> None:
    until = closes(failures, tuple(latest), failed, probing)
    assert until is None or NOW < until <= NOW + timedelta(seconds=60)
    if failures < 5 or "completed" in latest:
        assert until is None


def test_the_view_for_readers() -> None:
    assert breaker_view(TRIP, 4, NOW) == {"state": "closed", "failureCount": 4, "openUntil": None}
    assert breaker_view(TRIP, 5, NOW) == {
        "state": "open",
        "failureCount": 5,
        "openUntil": "2025-01-01T00:01:00+00:00",
    }


# ---- merging -------------------------------------------------------------------------------------------------------


def answers(
    ran: str = "portfolio",
    *,
    asked: str = "portfolio",
    chains: tuple[int, ...] = (1, 8453),
    read: Any = (1, 8453),
    failed: tuple[int, ...] = (),
    force: bool = False,
    ended: float = -1,
    success: bool = True,
) -> bool:
    result = {"success": success, "chainsFailed": [{"chainId": one, "error": "away"} for one in failed]}
    metadata = {"chainIds": list(read) if isinstance(read, tuple) else read, "result": result}
    want = Asked(sync_type=asked, chains=frozenset(chains), force_refresh=force, at=int(NOW.timestamp() * 1000))
    return stands_in(ran, ago(ended), metadata, want)


def test_who_asks_for_nothing_more_is_answered_by_the_other() -> None:
    assert answers()
    assert answers(chains=(1,))
    assert answers("full")
    assert answers("full", asked="metadata")
    assert answers(chains=(1,), failed=(8453,))


@pytest.mark.parametrize(
    "more",
    [
        {"force": True},
        {"chains": (1, 56)},
        {"failed": (8453,)},
        {"asked": "full"},
        {"asked": "metadata"},
        {"ran": "metadata"},
        {"ran": "trades", "asked": "trades"},
        {"ended": 1},
        {"ended": 0},
        {"success": False},
        {"read": None},
    ],
)
def test_who_asks_for_more_has_to_run(more: dict[str, Any]) -> None:
    assert not answers(**more)


def test_an_operation_without_a_result_answers_nobody() -> None:
    want = Asked(sync_type="portfolio", chains=frozenset({1}), force_refresh=False, at=0)
    assert not stands_in("portfolio", NOW, {"chainIds": [1]}, want)
    assert not stands_in("portfolio", None, {"chainIds": [1], "result": {"success": True}}, want)
