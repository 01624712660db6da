"""Curves of dots: exactly as wide and high as asked, as high as their values, and blank where nothing is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tui.braille import LEAST_REACH, bounds, curve
from tui.text import ASCII, UNICODE, Glyphs

EDITIONS = pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
levels = st.floats(0, 1e9)


def top_dot(lines: tuple[str, ...], glyphs: Glyphs) -> int:
    """How far from the ground the highest dot of a one-cell curve is."""
    rows = {256: (0b00001001, 0b00010010, 0b00100100, 0b11000000), 4: (0b01, 0b10)}[len(glyphs.dots)]
    for line, text in enumerate(lines):
        for row, mask in enumerate(rows):
            if glyphs.dots.index(text) & mask:
                return len(rows) * (len(lines) - line) - row
    return 0


@EDITIONS
@given(st.lists(st.none() | levels, max_size=130), st.integers(0, 80), st.integers(1, 12))
def test_a_curve_fills_exactly_its_place(glyphs: Glyphs, values: list[float | None], width: int, height: int) -> None:
    lines = curve(values, width, height, bounds(values) or (0.0, 1.0), glyphs)
    assert len(lines) == height
    assert all(cell_len(line) == width for line in lines)


@EDITIONS
@given(levels, levels, st.integers(1, 8))
def test_more_is_never_lower(glyphs: Glyphs, one: float, other: float, height: int) -> None:
    low, high = sorted((one, other))
    ends = bounds([low, high])
    assert ends is not None
    assert top_dot(curve([low], 1, height, ends, glyphs), glyphs) >= 1
    assert top_dot(curve([low], 1, height, ends, glyphs), glyphs) <= top_dot(
        curve([high], 1, height, ends, glyphs), glyphs
    )


@EDITIONS
@given(st.lists(st.none() | levels, min_size=1, max_size=40), st.integers(1, 5))
def test_a_step_is_blank_exactly_when_nothing_was_measured(
    glyphs: Glyphs, values: list[float | None], height: int
) -> None:
    lines = curve(values, len(values), height, bounds(values) or (0.0, 1.0), glyphs)
    for index, value in enumerate(values):
        assert (value is None) == all(line[index] == " " for line in lines)


def test_neighbours_are_joined_and_gaps_are_not() -> None:
    assert curve([0.0, 1.0], 2, 2, (0.0, 1.0), ASCII) == (" :", ".'")
    assert curve([0.0, None, 1.0], 3, 2, (0.0, 1.0), ASCII) == ("  '", ".  ")
    assert curve([0.0, 1.0], 1, 1, (0.0, 1.0)) == ("\u2878",)


@given(st.lists(levels, min_size=1))
def test_the_ends_hold_all_values_and_reach_far_enough(values: list[float]) -> None:
    ends = bounds(values)
    assert ends is not None
    low, high = ends
    assert 0 <= low <= min(values)
    assert max(values) <= high
    assert high - low >= LEAST_REACH * max(values) * 0.999


def test_nothing_measured_has_no_ends() -> None:
    assert bounds([None, None]) is None
    assert bounds([]) is None
    assert bounds([0.0]) == (0.0, 1.0)
