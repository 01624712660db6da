"""When cron patterns fire, compared with a search by hand."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from moonxd.config.cron import CronPattern, check_cron

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
#: Name, lowest, highest value, names; the field of seconds is left out of 5-field patterns.
FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("second", 0, 59, ()),
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, MONTHS),
    ("day of week", 0, 7, DAYS),
)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("pattern", "after", "fires"),
    [
        ("*/5 * * * *", "2026-11-22T10:00:00", "2026-11-22T10:05:00"),
        ("*/5 * * * *", "2026-11-22T10:04:59", "2026-11-22T10:05:00"),
        ("*/5 * * * *", "2026-12-31T23:57:00", "2027-01-01T00:00:00"),
        ("*/10 * * * * *", "2026-11-22T10:00:00", "2026-11-22T10:00:10"),
        ("0 */2 * * * *", "2026-11-22T10:00:00", "2026-11-22T10:02:00"),
        ("0 9-17 * * mon-fri", "2026-11-20T17:00:00", "2026-11-23T09:00:00"),
        ("30 4 1,15 * *", "2026-11-15T04:30:00", "2026-12-01T04:30:00"),
        ("0 0 29 2 *", "2026-01-01T00:00:00", "2028-02-29T00:00:00"),
        ("0 0 29 2 *", "2096-03-01T00:00:00", "2104-02-29T00:00:00"),
        ("0 12 * jan SUN", "2026-11-22T00:00:00", "2027-01-03T12:00:00"),
        ("0 12 * * 7", "2026-11-22T12:00:00", "2026-11-29T12:00:00"),
        # Both days given: either will do, as in every cron since Vixie's.
        ("0 0 13 * fri", "2026-11-22T00:00:00", "2026-11-27T00:00:00"),
        ("0 0 24 * fri", "2026-11-22T00:00:00", "2026-11-24T00:00:00"),
        ("5/20 * * * *", "2026-11-22T10:46:00", "2026-11-22T11:05:00"),
        ("10-40/15 3 * * *", "2026-11-22T03:25:00", "2026-11-22T03:40:00"),
    ],
)
def test_the_next_time(pattern: str, after: str, fires: str) -> None:
    assert CronPattern(pattern).after(at(after)) == at(fires)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("* * * *", "this one has 4"),
        ("* * * * * * *", "this one has 7"),
        ("60 * * * *", "minute of '60 \\* "),
        ("* 24 * * *", "hour of"),
        ("*/0 * * * *", "minute of"),
        ("* * * moon *", "month of"),
        ("0 0 31 2 *", "day-of-month of"),
    ],
)
def test_what_cannot_be_read_is_named(pattern: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_cron(pattern)


def _field(low: int, high: int, names: tuple[str, ...]) -> st.SearchStrategy[str]:
    value = st.integers(low, high)
    step = st.integers(1, max(1, high - low)).map(lambda n: f"/{n}")
    single = value.map(str) if not names else value.map(lambda n: names[(n - low) % len(names)])
    # "7-7/2" is read as "7/2"; nobody writes that.
    spans = st.tuples(value, value).filter(lambda ends: ends[0] != ends[1]).map(lambda ends: f"{min(ends)}-{max(ends)}")
    item = st.one_of(st.just("*"), single, spans, st.builds(str.__add__, st.one_of(st.just("*"), spans), step))
    return st.lists(item, min_size=1, max_size=3).map(",".join)


_PATTERNS = st.one_of(
    st.tuples(*(_field(low, high, names) for _, low, high, names in FIELDS[1:])),
    st.tuples(*(_field(low, high, names) for _, low, high, names in FIELDS)),
).map(" ".join)


def _allowed(field: str, low: int, high: int, names: tuple[str, ...]) -> set[int]:
    found = set()
    for item in field.split(","):
        span, _, step = item.partition("/")
        ends = [low, high] if span == "*" else [
            names.index(end) + low if end in names else int(end) for end in span.split("-")
        ]  # fmt: skip
        found |= set(range(ends[0], ends[-1] + 1, int(step or 1)))
    return found


def _fires(pattern: str, second: int) -> bool:
    """Whether a pattern fires at this second, from the definition."""
    parts = pattern.split()
    parts = ["0", *parts] if len(parts) == 5 else parts
    s, m, h, dom, mon, dow = (
        _allowed(part, low, high, names) for part, (_, low, high, names) in zip(parts, FIELDS, strict=True)
    )
    moment = datetime.fromtimestamp(second, UTC)
    in_month, in_week = moment.day in dom, bool({moment.isoweekday() % 7, moment.isoweekday()} & dow)
    free = parts[3].startswith("*") or parts[5].startswith("*")
    days = in_month and in_week if free else in_month or in_week
    return moment.second in s and moment.minute in m and moment.hour in h and moment.month in mon and days


def _pattern(text: str) -> CronPattern:
    try:
        return CronPattern(text)
    except ValueError as error:
        event(f"refused: {error}"[:30])
        assume("day-of-month" not in str(error))
        raise


@given(_PATTERNS, st.integers(at("2020-01-01"), at("2040-01-01")))
@settings(max_examples=150, deadline=None)
def test_it_fires_at_the_first_second_that_matches(pattern: str, after: int) -> None:
    found = _pattern(pattern).after(after)
    looked_at = range(after + 1, after + 600 if found is None else min(found, after + 600))
    assert not any(_fires(pattern, second) for second in looked_at)
    if found is not None:
        assert found > after
        assert _fires(pattern, found)
