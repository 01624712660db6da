"""How a bridge's status follows from what asking for quotes showed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonxd.domain.bridge_health import (
    BLIND,
    FAILURES,
    KEPT,
    TOO_SLOW_S,
    Track,
    follow,
    percentiles,
    reason,
)
from moonxd.domain.stats import Health, Probe

Look = tuple[Probe | None, float | None, bool]
BAD = (Probe.SERVER_ERROR, Probe.TIMEOUT)
SILENT = (Probe.RATE_LIMITED, Probe.REFUSED, None)

LOOKS: st.SearchStrategy[Look] = st.one_of(
    st.tuples(st.just(Probe.OK), st.floats(0, 30), st.just(False)),
    st.tuples(st.sampled_from([*Probe, None]).filter(lambda p: p is not Probe.OK), st.none(), st.booleans()),
)


def after(*looks: Look, start: Track = Track()) -> Track:  # noqa: B008
    for outcome, latency, offline in looks:
        start = follow(start, outcome, latency, offline=offline)
    return start


def ok(seconds: float) -> Look:
    return Probe.OK, seconds, False


def bad(outcome: Probe | None, *, offline: bool = False) -> Look:
    return outcome, None, offline


@pytest.mark.parametrize(
    ("seconds", "status"),
    [
        (0.1, Health.HEALTHY),
        (4.99, Health.HEALTHY),
        (5.0, Health.DEGRADED),
        (10.0, Health.DEGRADED),
        (10.01, Health.UNKNOWN),
    ],
)
def test_the_first_quote_decides_at_once(seconds: float, status: Health) -> None:
    assert after(ok(seconds)).status is status


@pytest.mark.parametrize("outcome", BAD)
def test_the_third_failure_in_a_row_makes_it_unhealthy(outcome: Probe) -> None:
    looks = [ok(1), bad(outcome), bad(outcome)]
    assert after(*looks).status is Health.HEALTHY
    assert after(*looks, bad(outcome)).status is Health.UNHEALTHY
    assert after(*looks, ok(1), bad(outcome)).status is Health.HEALTHY


def test_an_answer_without_a_route_is_an_answer() -> None:
    assert after(bad(Probe.NO_ROUTE)).status is Health.HEALTHY
    assert after(*[bad(Probe.TIMEOUT)] * 2, bad(Probe.NO_ROUTE), bad(Probe.TIMEOUT)).failures == 1


def test_it_takes_two_slow_quotes_and_two_fast_ones_to_change() -> None:
    assert after(ok(1), ok(6)).status is Health.HEALTHY
    assert after(ok(1), ok(6), ok(1), ok(6)).status is Health.HEALTHY
    assert after(ok(1), ok(6), ok(6)).status is Health.DEGRADED
    assert after(ok(6), ok(1)).status is Health.DEGRADED
    assert after(ok(6), ok(1), ok(1)).status is Health.HEALTHY


def test_it_comes_back_by_two_good_answers() -> None:
    down = after(*[bad(Probe.TIMEOUT)] * 5)
    assert after(ok(1), start=down).status is Health.UNHEALTHY
    assert after(ok(1), ok(1), start=down).status is Health.HEALTHY


def test_no_connection_counts_only_while_others_have_one() -> None:
    assert after(ok(1), *[bad(Probe.NETWORK)] * 3).status is Health.UNHEALTHY
    assert after(ok(1), *[bad(Probe.NETWORK, offline=True)] * 2).status is Health.HEALTHY
    assert after(ok(1), *[bad(Probe.NETWORK, offline=True)] * 3).status is Health.UNKNOWN


@pytest.mark.parametrize("outcome", SILENT)
def test_what_shows_nothing_neither_adds_nor_clears_failures(outcome: Probe | None) -> None:
    track = after(ok(1), bad(Probe.TIMEOUT), bad(outcome), bad(Probe.TIMEOUT), bad(outcome), bad(Probe.SERVER_ERROR))
    assert track.status is Health.UNHEALTHY


@given(st.lists(LOOKS, max_size=60))
def test_it_never_says_unhealthy_without_three_failures_nor_healthy_without_an_answer(looks: list[Look]) -> None:
    track, failures, answers = Track(), 0, 0
    for outcome, latency, offline in looks:
        track = follow(track, outcome, latency, offline=offline)
        too_slow = outcome is Probe.OK and latency is not None and latency > TOO_SLOW_S
        if outcome in BAD or too_slow or (outcome is Probe.NETWORK and not offline):
            failures += 1
        elif outcome in (Probe.OK, Probe.NO_ROUTE):
            failures, answers = 0, answers + 1
        assert track.failures == failures
        if failures >= FAILURES:
            assert track.status in (Health.UNHEALTHY, Health.UNKNOWN)
        if track.status in (Health.HEALTHY, Health.DEGRADED):
            assert answers
            assert failures < FAILURES
        assert len(track.latencies) <= KEPT


@given(st.lists(LOOKS, max_size=40), st.lists(st.tuples(st.sampled_from(SILENT), st.none(), st.booleans()), max_size=9))
def test_our_own_limits_never_count_against_it(before: list[Look], silent: list[Look]) -> None:
    known = after(*before)
    track = after(*silent, start=known)
    assert track.status is known.status or (track.status is Health.UNKNOWN and known.blind + len(silent) >= BLIND)
    assert (track.failures, track.latencies) == (known.failures, known.latencies)


@given(st.lists(LOOKS, max_size=40), st.sampled_from([(ok(1), Health.HEALTHY), (ok(7), Health.DEGRADED)]))
def test_whatever_happened_it_is_known_again_after_two_answers(before: list[Look], last: tuple[Look, Health]) -> None:
    look, status = last
    track = after(*before, look, look)
    assert track.status is status


@given(st.lists(LOOKS, min_size=1, max_size=60))
def test_the_status_never_swings_between_two_looks_and_back(looks: list[Look]) -> None:
    """Healthy and degraded are both held for two agreeing answers: one odd quote changes nothing."""
    track = after(*looks)
    if track.status is Health.HEALTHY and track.grade is Health.HEALTHY:
        assert after(ok(7), start=track).status is Health.HEALTHY


def test_one_that_is_not_asked_because_it_is_down_stays_down() -> None:
    down = after(*[bad(Probe.TIMEOUT)] * 3)
    assert after(*[bad(None)] * 9, start=down) == down
    assert after(ok(1), *[bad(None)] * 3).status is Health.UNKNOWN


def test_percentiles_say_nothing_of_too_few() -> None:
    assert percentiles([1.0, 2.0]) == (None, None)
    assert percentiles([3.0, 1.0, 2.0]) == (2.0, None)
    assert percentiles([float(n) for n in range(1, 21)]) == (10.0, 19.0)


@given(st.lists(st.floats(0, 100), min_size=20, max_size=30))
def test_percentiles_are_samples_in_order(latencies: list[float]) -> None:
    p50, p95 = percentiles(latencies)
    assert p50 is not None
    assert p95 is not None
    assert {p50, p95} <= set(latencies)
    assert p50 <= p95


def test_reasons_are_for_people() -> None:
    assert reason(after(ok(1))) is None
    assert reason(after(ok(1), bad(Probe.TIMEOUT))) == "failed once; 3 make it unhealthy"
    assert reason(after(*[bad(Probe.TIMEOUT)] * 4)) == "failed 4 times in a row"
    assert reason(after(ok(6))) == "the last quote took 6.0 s; under 5 s is healthy"
    assert reason(after(*[bad(Probe.TIMEOUT)] * 4, ok(1))) == "answers again; 2 good answers in a row make it healthy"
    assert reason(after(bad(None))) == "not seen in this round"
