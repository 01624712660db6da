"""A panel: a titled table of plain cells. What the live view and the plain frame both draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from .text import UNICODE, Glyphs, fit, width_of

#: What a piece of text means; the screen gives each a colour, and none means anything by colour alone.
Tone = Literal["", "dim", "strong", "accent", "graph", "good", "warn", "bad", "live", "busy", "paused", "alarm"]

NO_DATA = "no data yet"


class Cell(NamedTuple):
    text: str
    tone: Tone = ""


NOTHING = Cell("")


class Row(NamedTuple):
    """`key` names the thing across updates, so that a selection follows it. `mark` is one character, or empty."""

    key: str
    cells: tuple[Cell, ...]
    mark: Cell = NOTHING


class Column(msgspec.Struct, frozen=True):
    """`width` in cells is the least that makes sense.

    Of the room left over, a `fill` column takes all it can get, and one with `most` above its width as much as its
    longest text needs. When there is not enough room the column with the highest `drop` goes first; 0 never goes.
    """

    title: str
    width: int
    right: bool = False
    most: int = 0
    fill: bool = False
    drop: int = 0
    #: Cut in the middle, keeping the end (addresses).
    middle: bool = False
    #: Says nothing without a history.
    past: bool = False


class Panel(msgspec.Struct, frozen=True):
    """`number` is the key that focuses it; `summary` is for when only the title line fits; `empty` for no rows."""

    number: int
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...] = ()
    note: Cell = NOTHING
    summary: tuple[Cell, ...] = ()
    empty: str = ""


class Details(NamedTuple):
    """Everything known about one row: label and full (cleaned) text, ids fit for copying."""

    title: str
    fields: tuple[tuple[str, str], ...]


class Grid(NamedTuple):
    """Cells per column (0: dropped) and between them."""

    widths: tuple[int, ...]
    gap: int


def grid(columns: Sequence[Column], room: int, wants: Sequence[int] = ()) -> Grid:
    """Share `room` among the columns; `wants` is the longest text of each."""
    everything = range(len(columns))
    gap = 2 if _needed(columns, everything, 2) <= room else 1
    shown = list(everything)
    while shown and _needed(columns, shown, gap) > room:
        victim = max(shown, key=lambda index: columns[index].drop)
        if columns[victim].drop == 0:
            break
        shown.remove(victim)
    given = {index: columns[index].width for index in shown}
    spare = room - _needed(columns, shown, gap)
    for index, want in zip(everything, wants, strict=False):
        if index in given and spare > 0:
            extra = max(0, min(columns[index].most, want) - given[index])
            given[index] += min(extra, spare)
            spare -= min(extra, spare)
    filling = next((index for index in given if columns[index].fill), None)
    if filling is not None and spare > 0:
        given[filling] += spare
    return Grid(tuple(given.get(index, 0) for index in everything), gap)


def _needed(columns: Sequence[Column], shown: Sequence[int], gap: int) -> int:
    return sum(columns[index].width for index in shown) + gap * max(0, len(shown) - 1)


def longest(panel: Panel, before: Sequence[int] = ()) -> tuple[int, ...]:
    """The longest text per column, now or `before`: columns widen with what they see and never twitch back."""
    found = list(before) if len(before) == len(panel.columns) else [0] * len(panel.columns)
    for index, column in enumerate(panel.columns):
        if column.most > column.width:
            longest_now = max((width_of(row.cells[index].text) for row in panel.rows), default=0)
            found[index] = min(column.most, max(found[index], longest_now))
    return tuple(found)


def line(panel: Panel, row: Row, room: int, taken: Grid, glyphs: Glyphs = UNICODE) -> tuple[Cell, ...]:
    """`row` as cells that together take `room`, the mark first."""
    cells = [Cell(fit(row.mark.text, 1, glyphs=glyphs) + " ", row.mark.tone)]
    for column, cell, width in zip(panel.columns, row.cells, taken.widths, strict=True):
        if width:
            text = fit(cell.text, width, right=column.right, middle=column.middle, glyphs=glyphs)
            cells.append(Cell(text + " " * taken.gap, cell.tone))
    return clip(cells, room, glyphs)


def heading(panel: Panel, room: int, taken: Grid, hidden: str = "", glyphs: Glyphs = UNICODE) -> tuple[Cell, ...]:
    """The title line: number, title, note, how many rows are out of sight, and the column titles that still fit."""
    left = [Cell(f"{panel.number} ", "accent"), Cell(panel.title, "strong")]
    left += [Cell("  "), panel.note] if panel.note.text else []
    left += [Cell(f"  {hidden}", "dim")] if hidden else []
    if not panel.rows:
        return clip(left, room, glyphs)
    used = sum(width_of(cell.text) for cell in left)
    titles = _titles(panel, used, taken, glyphs)
    return clip([*left, Cell(titles[used:], "dim")], room, glyphs)


def brief(panel: Panel, room: int, glyphs: Glyphs = UNICODE) -> tuple[Cell, ...]:
    """All of the panel in one line."""
    cells = [Cell(f"{panel.number} ", "accent"), Cell(panel.title, "strong")]
    for cell in panel.summary:
        cells += [Cell("  "), cell]
    return clip(cells, room, glyphs)


def _titles(panel: Panel, used: int, taken: Grid, glyphs: Glyphs) -> str:
    """The column titles in place, blank where one would touch the first `used` cells."""
    text = " "
    for column, width in zip(panel.columns, taken.widths, strict=True):
        if not width:
            continue
        start = len(text) + (max(0, width - len(column.title)) if column.right else 0)
        title = column.title if start > used + 1 else ""
        text += fit(title, width, right=column.right, glyphs=glyphs) + " " * taken.gap
    return text


def clip(cells: Sequence[Cell], room: int, glyphs: Glyphs = UNICODE) -> tuple[Cell, ...]:
    """`cells` in exactly `room`: the one that crosses the edge is cut, the rest padded."""
    kept: list[Cell] = []
    left = room
    for cell in cells:
        width = width_of(cell.text)
        if width > left:
            text = fit(cell.text.rstrip(), left, glyphs=glyphs)
            kept.append(Cell(text, cell.tone))
            left = 0
            break
        kept.append(cell)
        left -= width
    if left:
        kept.append(Cell(" " * left))
    return tuple(kept)


Ranked = tuple[int, tuple[Cell, ...]]


def pack(pieces: Sequence[Ranked], room: int, *, end: Cell = NOTHING, glyphs: Glyphs = UNICODE) -> tuple[Cell, ...]:
    """Groups of cells in one line, two cells apart, and `end` at the right edge if there is room left for it.

    While they do not fit, the group of the highest rank is left out; rank 0 stays.
    """
    groups = [piece for piece in pieces if piece[1]]
    while groups and _length(groups) > room:
        rank = max(rank for rank, _ in groups)
        if rank == 0:
            break
        groups.remove(next(piece for piece in reversed(groups) if piece[0] == rank))
    flat: list[Cell] = []
    for index, (_, cells) in enumerate(groups):
        flat += [Cell("  ")] if index else []
        flat += cells
    rest = room - _length(groups) - width_of(end.text)
    return clip([*flat, Cell(" " * rest), end] if end.text and rest >= 2 else flat, room, glyphs)


def _length(groups: Sequence[Ranked]) -> int:
    return sum(width_of(cell.text) for _, cells in groups for cell in cells) + 2 * max(0, len(groups) - 1)
