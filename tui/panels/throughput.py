"""What this worker got done, and how long a sync takes."""

from __future__ import annotations

import msgspec

from moonxd.api.schema import Snapshot

from ..history import columns, reach
from ..panel import NO_DATA, Cell, Column, Panel, Row, Tone, grid
from ..state import State
from ..text import UNICODE, Glyphs, count, rate, seconds, sparkline

COLUMNS = (
    Column("jobs", 11),
    Column("", 7, right=True),
    Column("", 16, right=True, fill=True, drop=1, past=True),
    Column("peak", 7, right=True, drop=2, past=True),
    Column("total", 8, right=True),
)


def panel(state: State, room: int, glyphs: Glyphs = UNICODE) -> Panel:
    snapshot = state.snapshot
    if snapshot is None:
        return Panel(3, "THROUGHPUT", COLUMNS, empty=NO_DATA)
    rates = snapshot.rates
    width = grid(COLUMNS, room - 2).widths[2]
    names: tuple[tuple[str, Tone], ...] = (("completed", "graph"), ("retried", "warn"), ("failed", "bad"))
    rows = tuple(_rate_row(state, snapshot, name, tone, width, glyphs) for name, tone in names)
    spark = msgspec.structs.replace(COLUMNS[2], title=reach(state.history, width))
    measured = f"sync p50 {seconds(rates.p50)} {glyphs.dot} p95 {seconds(rates.p95)}"
    note = "no sync measured yet" if rates.p50 is None else measured
    return Panel(3, "THROUGHPUT", (*COLUMNS[:2], spark, *COLUMNS[3:]), rows, note=Cell(note))


def _rate_row(state: State, snapshot: Snapshot, name: str, tone: Tone, width: int, glyphs: Glyphs) -> Row:
    total: int = getattr(snapshot.rates, name)
    seen = columns(state.history, width, lambda sample: getattr(sample, name), peak=False)
    now = snapshot.rates.per_second if name == "completed" else _lately(state, name)
    peak = max((value for value in seen if value is not None), default=None)
    shown: Tone = "dim" if not total else "strong" if name == "completed" else tone
    cells = (
        Cell(f"{name}/s", "" if total or name == "completed" else "dim"),
        Cell(rate(now), shown if now else "dim"),
        Cell(sparkline(seen, top=1, glyphs=glyphs), tone if total else "dim"),
        Cell(rate(peak), "dim"),
        Cell(count(total), "strong" if total and name == "completed" else shown),
    )
    return Row(name, cells, Cell(glyphs.warn, "bad") if name == "failed" and total else Cell(""))


def _lately(state: State, name: str) -> float | None:
    """Mean rate over the last ten seconds known."""
    known = [value for sample in state.history.samples[-10:] if (value := getattr(sample, name)) is not None]
    return sum(known) / len(known) if known else None
