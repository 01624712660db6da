"""Charts of the last hour for one row: a curve, its axes, and below it what was thought of every step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from moonxd.api.stats import PointView, Series

from ..braille import Value, bounds, curve, share_of
from ..figures import SPAN_S, STEP_S
from ..panel import Cell, Tone, clip, pack
from ..state import State
from ..text import Glyphs, age, clean, fit, seconds
from .health import SEVERITY

Line = tuple[Cell, ...]
#: Cells of the upright axis: a label, and the line.
_LABEL, _AXIS = 8, 9
_STEPS = int(SPAN_S / STEP_S)
#: Rounds may be so many steps apart and still be joined.
_MOST_APART = 10


class Chart(NamedTuple):
    """`name`: which value of a history's points."""

    title: str
    name: str


CHAIN = (Chart("BLOCK TIME", "block_time_s"), Chart("RPC LATENCY", "rpc_p50_s"))
BRIDGE = (Chart("QUOTE LATENCY", "latency_s"), Chart("TRANSFER TIME", "quoted_s"))


class Hour(NamedTuple):
    """The last hour in steps of equal length, oldest first: values, and statuses where somebody looked."""

    values: tuple[Value, ...]
    statuses: tuple[str | None, ...]


def points_of(history: Sequence[Series], key: str | None) -> tuple[PointView, ...]:
    return next((series.points for series in history if series.key == key), ())


def hour(points: Sequence[PointView], name: str, now: float) -> Hour:
    """The steps are as long as looks are apart, so that only a look left out makes a gap."""
    apart = _apart(points)
    width_ms = apart * int(STEP_S * 1000)
    newest = int(now * 1000) // width_ms
    steps: dict[int, list[PointView]] = {}
    for point in points:
        steps.setdefault(point.at_ms // width_ms, []).append(point)
    shown = [steps.get(index, []) for index in range(newest - _STEPS // apart + 1, newest + 1)]
    return Hour(tuple(_mean(step, name) for step in shown), tuple(_worst(step) for step in shown))


def _apart(points: Sequence[PointView]) -> int:
    """The steps of the history that usually lie between two looks."""
    step_ms = int(STEP_S * 1000)
    found = Counter((b.at_ms - a.at_ms) // step_ms for a, b in pairwise(points))
    usual = found.most_common(1)[0][0] if found else 1
    return max(1, min(usual, _MOST_APART))


def _mean(step: Sequence[PointView], name: str) -> Value:
    known = [point.values[name] for point in step if name in point.values]
    return sum(known) / len(known) if known else None


def _worst(step: Sequence[PointView]) -> str | None:
    return max((point.status for point in step), key=lambda status: SEVERITY.get(status, 2), default=None)


def chart(
    state: State, which: Chart, key: str | None, points: Sequence[PointView], room: int, rows: int, glyphs: Glyphs
) -> tuple[Line, ...]:
    """`rows` lines of `room` cells."""
    as_of = state.figures.as_of(state.now)
    past = hour(points, which.name, as_of)
    width = max(1, room - _AXIS - 1)
    height = max(1, rows - 3)
    marks = tuple(_worst_of(past.statuses, column, width) for column in range(width))
    lines = [
        _title(which, key, points, as_of, room, glyphs),
        *_plot(past, marks, width, height, _empty(state), glyphs),
        (Cell(" " * _LABEL), Cell(glyphs.side, "dim"), *_marked(marks, glyphs)),
        (Cell(" " * _AXIS), Cell(_times(width), "dim")),
    ]
    return tuple(clip(line, room, glyphs) for line in lines[: max(0, rows)])


def _title(which: Chart, key: str | None, points: Sequence[PointView], as_of: float, room: int, glyphs: Glyphs) -> Line:
    title = Cell(f" {which.title} ", "strong"), Cell(clean(key or "", glyphs), "accent")
    known = [(point.at_ms / 1000, point.values[which.name]) for point in points if which.name in point.values]
    if not known:
        return pack([(0, title)], room, glyphs=glyphs)
    at, value = known[-1]
    # A point carries its step's beginning.
    ago = max(0.0, as_of - at - STEP_S)
    when = f", {age(ago)} ago" if ago > 2 * STEP_S else ""
    mean = sum(value for _, value in known) / len(known)
    last = Cell("last ", "dim"), Cell(seconds(value) + when)
    return pack([(0, title), (1, last), (2, (Cell("mean ", "dim"), Cell(seconds(mean))))], room, glyphs=glyphs)


def _empty(state: State) -> str:
    """Without an answer the tables say why."""
    return "" if state.figures.found is None else "nothing measured"


def _plot(past: Hour, marks: tuple[str | None, ...], width: int, height: int, empty: str, glyphs: Glyphs) -> list[Line]:
    ends = bounds(past.values)
    side = Cell(glyphs.side, "dim")
    if ends is None:
        texts = [f" {empty}" if row == (height - 1) // 2 else "" for row in range(height)]
        return [(Cell(" " * _LABEL), side, Cell(fit(text, width, glyphs=glyphs), "dim")) for text in texts]
    labels = {0: seconds(ends[1]), height - 1: seconds(ends[0])} if height > 1 else {0: seconds(ends[1])}
    rows = curve(past.values, width, height, ends, glyphs)
    return [
        (Cell(fit(labels.get(row, ""), _LABEL - 1, right=True) + " ", "dim"), side, *_toned(text, marks))
        for row, text in enumerate(rows)
    ]


def _toned(text: str, marks: tuple[str | None, ...]) -> Line:
    """The dots of a degraded or unhealthy step differ in colour; the marks below say it without."""
    pieces = groupby(zip(text, marks, strict=True), key=lambda pair: _tone(pair[1]))
    return tuple(Cell("".join(character for character, _ in piece), tone) for tone, piece in pieces)


def _tone(status: str | None) -> Tone:
    return "warn" if status == "degraded" else "bad" if status == "unhealthy" else "accent"


def _marked(marks: tuple[str | None, ...], glyphs: Glyphs) -> Line:
    """One mark a column: a line where all was well, a blank where nobody looked."""
    known: dict[str | None, Cell] = {
        "healthy": Cell(glyphs.rule, "dim"),
        "degraded": Cell(glyphs.warn, "warn"),
        "unhealthy": Cell(glyphs.lost, "bad"),
        "unknown": Cell(glyphs.waiting, "dim"),
        None: Cell(" "),
    }
    pieces = groupby(known.get(mark, Cell(glyphs.warn, "warn")) for mark in marks)
    return tuple(Cell("".join(cell.text for cell in piece), first.tone) for first, piece in pieces)


def _worst_of(statuses: tuple[str | None, ...], column: int, columns: int) -> str | None:
    seen = [status for index in share_of(column, columns, len(statuses)) if (status := statuses[index]) is not None]
    return max(seen, key=lambda status: SEVERITY.get(status, 2), default=None)


def _times(width: int) -> str:
    minutes = int(SPAN_S / 60)
    first, middle, last = f"-{minutes}m", f"-{minutes // 2}m", "now"
    if width < len(first) + len(last) + 1:
        return last.rjust(width)
    line = first.ljust(width - len(last)) + last
    at = (width - len(middle)) // 2
    return line[:at] + middle + line[at + len(middle) :] if width >= 24 else line
