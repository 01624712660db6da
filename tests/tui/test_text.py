"""Foreign text on an operator's terminal: harmless, and exactly as wide as it should be."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from tui.text import ASCII, UNICODE, age, clean, count, fit, gauge, percent, rate, seconds, sparkline

anything = st.text(st.characters(), max_size=60)


@given(anything)
def test_nothing_that_moves_the_cursor_survives(text: str) -> None:
    cleaned = clean(text)
    assert not [c for c in cleaned if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


@given(anything)
def test_the_plain_edition_is_ascii(text: str) -> None:
    assert clean(text, ASCII).isascii()


@given(anything, st.integers(1, 80), st.booleans(), st.booleans())
def test_fitted_text_takes_exactly_its_cells(text: str, width: int, right: bool, middle: bool) -> None:
    assert cell_len(fit(clean(text), width, right=right, middle=middle)) == width


@pytest.mark.parametrize(
    ("given_text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "�[31mred�[0m"),
        ("\x9b31m one-byte CSI", "�31m one-byte CSI"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("user\u202etxt.exe", "usertxt.exe"),
        ("flag \U0001f1e9\U0001f1ea", "flag DE"),
        ("lone \ud800 surrogate", "lone � surrogate"),
        ("Z" + "\u0301" * 20, "Z\u0301\u0301"),
        ("余额", "余额"),
    ],
)
def test_what_becomes_of_hostile_text(given_text: str, shown: str) -> None:
    assert clean(given_text) == shown


def test_wide_characters_are_cut_whole() -> None:
    assert fit("余额查询", 4) == "余… "
    assert fit("余额查询", 5) == "余额…"


def test_addresses_keep_both_ends() -> None:
    assert fit("0x" + "a" * 36 + "beef", 11, middle=True) == "0xaaaa…beef"


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0"), (1_234, "1,234"), (99_999, "99,999"), (184_191, "184k"), (1_234_567, "1.23M"), (456_000_000, "456M")],
)
def test_counts(number: int, shown: str) -> None:
    assert count(number) == shown


@given(st.integers(0, 10**12))
@example(99_995_000)
@example(99_994_999_999)
def test_counts_fit_their_column(number: int) -> None:
    assert len(count(number)) <= 6


@pytest.mark.parametrize(
    ("duration", "shown"),
    [
        (None, "-"),
        (0.0, "0 ms"),
        (0.0004, "0.4 ms"),
        (0.42, "420 ms"),
        (1.3, "1.30 s"),
        (42, "42.0 s"),
        (302, "5m 02s"),
    ],
)
def test_durations(duration: float | None, shown: str) -> None:
    assert seconds(duration) == shown


@pytest.mark.parametrize(
    ("duration", "shown"),
    [(-5, "0.0 s"), (3.2, "3.2 s"), (42, "42 s"), (61, "1m 01s"), (7_500, "2h 05m"), (356_400, "4d 03h")],
)
def test_ages(duration: float, shown: str) -> None:
    assert age(duration) == shown


@given(st.floats(-10, 10**8))
def test_ages_and_durations_fit_their_column(duration: float) -> None:
    assert len(age(duration)) <= 7
    assert len(seconds(abs(duration))) <= 7


def test_rates_and_shares() -> None:
    assert [rate(value) for value in (None, 0, 0.04, 16.4, 1_234.0)] == ["-", "0", "0.0", "16.4", "1,234"]
    assert [percent(share) for share in (0, 0.0003, 0.004, 0.123)] == ["0 %", "<0.1 %", "0.4 %", "12 %"]


def test_a_sparkline_tells_nothing_from_little_and_unknown() -> None:
    drawn = sparkline([None, 0, 0.001, 10], top=1)
    assert drawn[0] == " "
    assert drawn[1] == UNICODE.bars[0]
    assert drawn[2] == UNICODE.bars[1]
    assert drawn[3] > UNICODE.bars[4]


@given(st.lists(st.none() | st.floats(0, 10**9), max_size=50))
def test_a_sparkline_has_one_cell_per_value(values: list[float | None]) -> None:
    assert cell_len(sparkline(values)) == len(values)


@given(st.integers(0, 100), st.integers(0, 100), st.integers(2, 20))
def test_a_gauge_never_rounds_some_to_none_nor_most_to_all(part: int, whole: int, width: int) -> None:
    drawn = gauge(part, whole, width)
    assert len(drawn) == width
    if 0 < part < whole:
        assert UNICODE.full in drawn
        assert UNICODE.empty in drawn
