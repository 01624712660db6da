"""One frame as plain text: the same panels, every row, no colours and no escape sequences."""

from __future__ import annotations

import msgspec

from moonxd.api.schema import Snapshot

from .lines import header
from .panel import Cell, Panel, Row, grid, heading, line, longest
from .panels import SECTIONS
from .state import Connected, State, reduce
from .text import UNICODE, Glyphs

MIN_WIDTH = 60


def frame(snapshot: Snapshot, now: float, width: int, glyphs: Glyphs = UNICODE) -> str:
    """`snapshot` as lines of at most `width` cells (never taken narrower than MIN_WIDTH)."""
    room = max(width, MIN_WIDTH)
    state = reduce(State(now=now), Connected(snapshot, now))
    lines = [_plain(cells) for cells in header(state, room, glyphs)]
    for section in SECTIONS:
        lines += ["", *_panel(section.build(state, room, glyphs), room, glyphs)]
    return "\n".join(lines) + "\n"


def _panel(panel: Panel, room: int, glyphs: Glyphs) -> list[str]:
    panel = _without_past(panel)
    taken = grid(panel.columns, room - 2, longest(panel))
    lines = [" " + _plain(heading(panel, room - 1, taken, glyphs=glyphs))]
    lines += [_plain(line(panel, row, room, taken, glyphs)) for row in panel.rows]
    return lines if panel.rows else [*lines, "  " + panel.empty]


def _without_past(panel: Panel) -> Panel:
    """One frame has no history."""
    kept = [index for index, column in enumerate(panel.columns) if not column.past]
    rows = tuple(Row(row.key, tuple(row.cells[index] for index in kept), row.mark) for row in panel.rows)
    return msgspec.structs.replace(panel, columns=tuple(panel.columns[index] for index in kept), rows=rows)


def _plain(cells: tuple[Cell, ...]) -> str:
    return "".join(cell.text for cell in cells).rstrip()
