"""When a failed attempt is tried again, and when it is over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonxd.domain.errors import Permanent, Transient
from moonxd.domain.job import Backoff, Failed, Retry
from moonxd.domain.retry import MAX_DELAY_MS, after_failure, backoff_delay


def fail(error: Exception, made: int = 0, attempts: int = 3, backoff: Backoff = Backoff()) -> object:  # noqa: B008
    return after_failure(error, attempts_made=made, attempts=attempts, backoff=backoff, rand=0.0)


def test_three_attempts_with_doubling_waits() -> None:
    assert fail(Transient("x"), made=0) == Retry(5000, "x")
    assert fail(Transient("x"), made=1) == Retry(10_000, "x")
    assert fail(Transient("x"), made=2) == Failed("x")


def test_a_permanent_error_is_not_tried_again() -> None:
    assert fail(Permanent("bad address"), attempts=99) == Failed("bad address")


def test_the_other_sides_wish_is_respected_when_it_is_longer() -> None:
    assert fail(Transient("429", retry_after=60)) == Retry(60_000, "429")
    assert fail(Transient("429", retry_after=1)) == Retry(5000, "429")


def test_an_unknown_curve_ends_the_job_with_both_reasons() -> None:
    outcome = fail(Transient("x"), backoff=Backoff(kind="fibonacci"))
    assert isinstance(outcome, Failed)
    assert "x" in outcome.reason
    assert "fibonacci" in outcome.reason


@pytest.mark.parametrize(("kind", "delays"), [("fixed", [100, 100, 100]), ("exponential", [100, 200, 400]),
                                              ("linear", [100, 200, 300])])  # fmt: skip
def test_the_curves(kind: str, delays: list[int]) -> None:
    assert [backoff_delay(Backoff(kind=kind, delay=100), n, 0.0) for n in (1, 2, 3)] == delays


@given(
    st.sampled_from(["fixed", "exponential", "linear"]), st.integers(0, 10**9), st.integers(1, 10**6),
    st.floats(0, 1), st.floats(0, 1, exclude_max=True),
)  # fmt: skip
def test_a_delay_is_bounded_and_jitter_only_shortens(
    kind: str, delay: int, attempt: int, jitter: float, rand: float
) -> None:
    full = backoff_delay(Backoff(kind=kind, delay=delay), attempt, 0.0)
    jittered = backoff_delay(Backoff(kind=kind, delay=delay, jitter=jitter), attempt, rand)
    assert 0 <= jittered <= full <= MAX_DELAY_MS
    assert jittered >= int(full * (1 - jitter)) - 1
