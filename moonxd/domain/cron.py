"""When a cron pattern fires next, in UTC. Five fields, or six with seconds first; the words are Vixie cron's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache

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
#: The 29th of February comes back within eight years (1900 and 2100 are none).
_YEARS = 9


class Cron:
    """A pattern that config/cron.py has checked."""

    def __init__(self, pattern: str) -> None:
        parts = pattern.split()
        parts = ["0", *parts] if len(parts) == 5 else parts
        sets = [_values(part, *field[1:]) for part, field in zip(parts, FIELDS, strict=True)]
        self._seconds, self._minutes, self._hours = (sorted(one) for one in sets[:3])
        self._days, self._months = sets[3], sets[4]
        self._weekdays = {day % 7 for day in sets[5]}
        # Where both are restricted, either one is enough.
        self._is_either = not parts[3].startswith("*") and not parts[5].startswith("*")
        self.after = lru_cache(maxsize=4096)(self._after)

    def _after(self, second: int) -> int | None:
        """The first unix second later than `second` at which the pattern fires; None when it never does."""
        start = datetime.fromtimestamp(second + 1, UTC)
        day = start.replace(hour=0, minute=0, second=0)
        clock = (start.hour, start.minute, start.second)
        for _ in range(366 * _YEARS):
            if self._is_day(day):
                time = self._time_from(*clock)
                if time is not None:
                    hour, minute, at = time
                    return int(day.replace(hour=hour, minute=minute, second=at).timestamp())
            day, clock = day + timedelta(days=1), (0, 0, 0)
        return None

    def _is_day(self, day: datetime) -> bool:
        if day.month not in self._months:
            return False
        in_month, in_week = day.day in self._days, day.isoweekday() % 7 in self._weekdays
        return in_month or in_week if self._is_either else in_month and in_week

    def _time_from(self, hour: int, minute: int, second: int) -> tuple[int, int, int] | None:
        """The first time of day that fires, not before the given one."""
        if hour in self._hours:
            if minute in self._minutes:
                at = _first(self._seconds, second)
                if at is not None:
                    return hour, minute, at
            next_minute = _first(self._minutes, minute + 1)
            if next_minute is not None:
                return hour, next_minute, self._seconds[0]
        next_hour = _first(self._hours, hour + 1)
        return None if next_hour is None else (next_hour, self._minutes[0], self._seconds[0])


def _first(ordered: Sequence[int], low: int) -> int | None:
    return next((value for value in ordered if value >= low), None)


def _values(field: str, low: int, high: int, names: tuple[str, ...]) -> set[int]:
    found: set[int] = set()
    for item in field.split(","):
        span, _, step = item.partition("/")
        if span == "*":
            first, last = low, high
        else:
            left, dash, right = span.partition("-")
            first = _number(left, low, names)
            last = _number(right, low, names) if dash else (high if step else first)
        found.update(range(first, last + 1, int(step) if step else 1))
    return found


def _number(text: str, low: int, names: tuple[str, ...]) -> int:
    return int(text) if text.isdecimal() else names.index(text.lower()) + low
