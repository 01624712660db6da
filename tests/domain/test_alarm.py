"""The alarm about failing jobs: a share, a minimum, and hysteresis."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moonxd.domain.alarm import Alarm, AlarmRule

RULE = AlarmRule(raise_at=0.5, clear_at=0.2, window_s=100, min_jobs=10)


def feed(alarm: Alarm, failed: int, done: int, now: float) -> None:
    for _ in range(failed):
        alarm.ended(True, now)
    for _ in range(done):
        alarm.ended(False, now)


def test_it_is_raised_once_and_cleared_once() -> None:
    alarm = Alarm(RULE)
    feed(alarm, 5, 4, 0)
    assert alarm.look(0) is None, "too few to say"
    feed(alarm, 0, 1, 1)
    raised = alarm.look(1)
    assert raised is not None
    assert (raised.raised, raised.failed, raised.ended) == (True, 5, 10)
    assert alarm.look(2) is None
    feed(alarm, 0, 10, 3)
    assert alarm.look(3) is None, "a quarter: between the two thresholds"
    feed(alarm, 0, 10, 4)
    cleared = alarm.look(4)
    assert cleared is not None
    assert not cleared.raised


def test_it_is_over_when_nothing_fails_any_more() -> None:
    alarm = Alarm(RULE)
    feed(alarm, 10, 0, 0)
    assert alarm.look(0) is not None
    assert alarm.look(99) is None
    cleared = alarm.look(100)
    assert cleared is not None
    assert not cleared.raised


def test_zero_never_alerts() -> None:
    alarm = Alarm(AlarmRule(raise_at=0, clear_at=0))
    feed(alarm, 1000, 0, 0)
    assert alarm.look(0) is None


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 20)), max_size=300))
def test_it_alternates(ends: list[tuple[bool, float]]) -> None:
    alarm, now, last = Alarm(RULE), 0.0, False
    for failed, pause in ends:
        now += pause
        alarm.ended(failed, now)
        reading = alarm.look(now)
        if reading is not None:
            assert reading.raised is not last
            assert reading.share >= RULE.raise_at if reading.raised else reading.share < RULE.clear_at
            last = reading.raised
