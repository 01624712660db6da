"""Ranking, hedging and concurrency of endpoints as plain numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moonxd.domain.latency import Concurrency, HedgeBudget, Latency, lag_allowed, lag_blocks, rank, tier


def filled(*durations: float) -> Latency:
    latency = Latency()
    for at, seconds in enumerate(durations):
        latency.add(seconds, float(at))
    return latency


def test_percentiles_of_the_recent_past() -> None:
    latency = filled(*(n / 1000 for n in range(1, 101)))
    assert latency.percentile(0.5) == 0.051
    assert latency.percentile(0.95) == 0.096
    assert filled(*[9.0] * 200, *[0.1] * 128).percentile(0.99) == 0.1, "the old ones are gone"
    assert filled(*[0.1] * 19).percentile(0.95) is None


def test_the_average_follows_and_grows_old() -> None:
    latency = filled(*[0.1] * 30, *[1.0] * 30)
    assert latency.ewma is not None
    assert 0.99 < latency.ewma < 1.0
    assert latency.current(60.0, 300.0) == 1.0
    assert filled(*[0.1] * 7).current(7.0, 300.0) is None, "too few to say"
    assert filled(*[0.2] * 5, *[9.0] * 3).current(8.0, 300.0) == 0.2
    assert filled(*[0.1] * 40, 9.0).current(60.0, 300.0) == 0.1, "one slow request is no reason to move"
    assert latency.current(1000.0, 300.0) is None
    assert Latency().current(0.0, 300.0) is None


def test_when_a_second_request_is_sent() -> None:
    assert Latency().hedge_after() is None
    assert filled(*[0.1] * 98, 2.0, 2.0).hedge_after() == 0.2
    assert filled(*[0.1] * 90, *[0.25] * 10).hedge_after() == 0.25
    assert filled(*[0.1] * 90, *[2.0] * 10).hedge_after() == 0.1 * 3


@given(st.lists(st.floats(0, 100), min_size=1, max_size=400))
def test_percentiles_are_samples(durations: list[float]) -> None:
    latency = filled(*durations)
    tail = latency.percentile(0.95)
    assert tail is None or tail in durations[-128:]


def test_health_beats_latency_beats_the_configured_order() -> None:
    slow, fast, unknown = rank(0, 0.5, 0), rank(0, 0.06, 1), rank(0, None, 2)
    assert sorted([slow, fast, unknown]) == [unknown, fast, slow]
    assert rank(0, 10.0, 5) < rank(1, 0.001, 0) < rank(2, None, 0)
    assert tier(0.001) == tier(0.05) == tier(None) == 0
    assert tier(0.051) == 1
    assert tier(0.4) == 3


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 200), st.floats(0, 1e4))))
def test_concurrency_stays_within_its_bounds(events: list[tuple[bool, int, float]]) -> None:
    concurrency, now = Concurrency(16, 50), 0.0
    for is_good, busy, passed in events:
        now += passed
        if is_good:
            concurrency.succeeded(busy)
        else:
            concurrency.overloaded(now)
        assert 1 <= concurrency.limit <= 50


def test_concurrency_halves_once_per_overload_and_grows_by_one_per_round() -> None:
    concurrency = Concurrency(16, 100)
    for _ in range(5):
        concurrency.overloaded(10.0)
    assert concurrency.limit == 8
    concurrency.overloaded(11.0)
    assert concurrency.limit == 4
    for _ in range(4):
        concurrency.succeeded(4)
    assert concurrency.limit == 5
    for _ in range(1000):
        concurrency.succeeded(1)
    assert concurrency.limit == 5, "an idle endpoint proves nothing"


@given(st.lists(st.booleans(), max_size=500))
def test_hedges_stay_within_a_tenth(wishes: list[bool]) -> None:
    budget, hedges = HedgeBudget(0.1), 0
    for sent, wish in enumerate(wishes, 1):
        budget.earn()
        hedges += wish and budget.spend()
        assert hedges <= sent * 0.1 + 1e-6


def test_lag_in_blocks() -> None:
    assert lag_blocks(90, 100) == 10
    assert lag_blocks(110, 100) == 0
    assert lag_allowed(12.0, 30.0) == 5
    assert lag_allowed(0.25, 30.0) == 120
