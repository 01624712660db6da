"""How many jobs wait in which state, and how that moved."""

from __future__ import annotations

import msgspec

from moonxd.api.schema import QueueDepth

from ..history import Sample, columns, reach
from ..panel import NO_DATA, Cell, Column, Panel, Row, Tone, grid
from ..state import State
from ..text import UNICODE, Glyphs, clean, count, sparkline

COLUMNS = (
    Column("state", 11),
    Column("jobs", 7, right=True),
    Column("", 14, right=True, fill=True, drop=1, past=True),
    Column("peak", 7, right=True, drop=2, past=True),
)


def panel(state: State, room: int, glyphs: Glyphs = UNICODE) -> Panel:
    snapshot = state.snapshot
    if snapshot is None:
        return Panel(1, "QUEUE", COLUMNS, empty=NO_DATA)
    depth = snapshot.queue
    width = grid(COLUMNS, room - 2).widths[2]
    rows = tuple(_depth_row(state, depth, label, field, width, glyphs) for label, field in _depths(depth))
    note = Cell(clean(depth.name, glyphs)) if depth.fresh else Cell(f"{glyphs.warn} Redis silent: last known", "alarm")
    spark = msgspec.structs.replace(COLUMNS[2], title=reach(state.history, width))
    return Panel(1, "QUEUE", (*COLUMNS[:2], spark, *COLUMNS[3:]), rows, note=note)


def _depths(depth: QueueDepth) -> list[tuple[str, str]]:
    """Label and field per state, the urgent ones first; the rare ones come last while they are empty."""
    first = ["waiting", "prioritized", "active", "delayed", "failed"]
    rare = [name for name in ("paused", "waiting_children") if getattr(depth, name)]
    rest = [name for name in ("completed", "waiting_children", "paused") if name not in rare]
    labels = {"waiting_children": "on children", "paused": "paused list"}
    return [(labels.get(name, name), name) for name in (*first, *rare, *rest)]


def _depth_row(state: State, depth: QueueDepth, label: str, field: str, width: int, glyphs: Glyphs) -> Row:
    value: int = getattr(depth, field)
    seen = columns(state.history, width, lambda sample: _depth_of(sample, field), peak=True)
    bad = field == "failed" and value > 0
    tone: Tone = "bad" if bad else "strong" if value else "dim"
    peak = max((int(number) for number in seen if number is not None), default=value)
    cells = (
        Cell(label, "bad" if bad else ""),
        Cell(count(value), tone),
        Cell(sparkline(seen, top=1, glyphs=glyphs), "graph"),
        Cell(count(max(peak, value)), "dim"),
    )
    return Row(field, cells, Cell(glyphs.warn, "bad") if bad else Cell(""))


def _depth_of(sample: Sample, field: str) -> float | None:
    return None if sample.queue is None else float(getattr(sample.queue, field))
