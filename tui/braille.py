"""Curves made of dots: every character cell is a small grid of them, 2x4 in braille and 1x2 in plain text."""

from __future__ import annotations

from collections.abc import Sequence

from .text import UNICODE, Glyphs

#: The bit of each dot, by column and then from top to bottom, for an alphabet of so many patterns.
_BITS = {256: ((0, 1, 2, 6), (3, 4, 5, 7)), 4: ((0, 1),)}
#: An axis reaches over at least this share of its upper end: what hardly moves is drawn as what hardly moves.
LEAST_REACH = 0.25

Value = float | None


def bounds(values: Sequence[Value]) -> tuple[float, float] | None:
    """Both ends of an axis for `values` (not negative); None when nothing was measured."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    low, high = min(known), max(known)
    missing = high * LEAST_REACH - (high - low)
    if missing > 0:
        low, high = max(0.0, low - missing / 2), high + missing / 2
    return (low, high) if high > low else (low, low + 1.0)


def curve(
    values: Sequence[Value], width: int, height: int, ends: tuple[float, float], glyphs: Glyphs = UNICODE
) -> tuple[str, ...]:
    """`height` lines of `width` cells, the highest first, over which `values` are spread from left to right.

    Neighbours are joined by an upright line. Where a value is None nothing is drawn, and nothing is joined over it.
    """
    bits = _BITS[len(glyphs.dots)]
    levels = height * len(bits[0])
    patterns = [[0] * width for _ in range(height)]
    for x, span in enumerate(_spans(values, width * len(bits), levels, ends)):
        for level in span:
            row, dot = divmod(levels - 1 - level, len(bits[0]))
            patterns[row][x // len(bits)] |= 1 << bits[x % len(bits)][dot]
    return tuple("".join(glyphs.dots[pattern] for pattern in row) for row in patterns)


def share_of(column: int, columns: int, values: int) -> range:
    """The indices of the values that `column` of `columns` stands for: at least one, or several when there are more."""
    first = column * values // columns
    return range(first, max(first + 1, (column + 1) * values // columns))


def _spans(values: Sequence[Value], columns: int, levels: int, ends: tuple[float, float]) -> list[range]:
    """The dots of every column, from the lowest to the highest."""
    spans: list[range] = []
    before: int | None = None
    for column in range(columns if values else 0):
        known = (values[index] for index in share_of(column, columns, len(values)))
        seen = [_level(value, levels, ends) for value in known if value is not None]
        if not seen:
            before = None
            spans.append(range(0))
            continue
        low, high = min(seen), max(seen)
        if before is not None:
            low, high = min(low, before + 1), max(high, before - 1)
        before = seen[-1]
        spans.append(range(low, high + 1))
    return spans


def _level(value: float, levels: int, ends: tuple[float, float]) -> int:
    low, high = ends
    return max(0, min(levels - 1, round((value - low) / (high - low) * (levels - 1))))
