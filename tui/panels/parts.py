"""The supervised parts of the daemon, the troubled ones first."""

from __future__ import annotations

from moonxd.api.schema import Child

from ..panel import NO_DATA, Cell, Column, Details, Panel, Row, Tone
from ..state import State
from ..text import UNICODE, Glyphs, age, clean, count

COLUMNS = (
    Column("part", 13, most=28),
    Column("state", 13),
    Column("restarts", 8, right=True),
    Column("for", 7, right=True, drop=2),
    Column("last error", 12, fill=True, drop=3),
)


def child_state(child: Child, glyphs: Glyphs = UNICODE) -> Cell:
    known: dict[str, Cell] = {
        "running": Cell(f"{glyphs.live} running", "good"),
        "starting": Cell(f"{glyphs.waiting} starting", "warn"),
        "backing-off": Cell(f"{glyphs.retry} backing off", "warn"),
        "failing": Cell(f"{glyphs.warn} failing", "bad"),
        "failed": Cell(f"{glyphs.lost} FAILED", "bad"),
        "stopped": Cell(f"{glyphs.waiting} stopped", "dim"),
    }
    return known.get(child.state, Cell(clean(child.state, glyphs), "warn"))


#: States that want a look, the worst first.
_TROUBLE = {"failed": 0, "failing": 1, "backing-off": 2, "starting": 3}


def panel(state: State, room: int, glyphs: Glyphs = UNICODE) -> Panel:
    snapshot = state.snapshot
    if snapshot is None:
        return Panel(7, "PARTS", COLUMNS, empty=NO_DATA)
    ordered = sorted(snapshot.children, key=lambda child: (_TROUBLE.get(child.state, len(_TROUBLE)), child.name))
    rows = tuple(_child_row(child, state.as_of, glyphs) for child in ordered)
    summary = _summary(ordered, glyphs)
    return Panel(7, "PARTS", COLUMNS, rows, summary=summary, empty="nothing is supervised yet")


def _summary(ordered: list[Child], glyphs: Glyphs) -> tuple[Cell, ...]:
    """The worst first; how often the others were restarted is worth a glance only when nothing is wrong now."""
    if not ordered:
        return ()
    troubled = sum(child.state in _TROUBLE for child in ordered)
    if troubled:
        shown = child_state(ordered[0], glyphs)
        more = (Cell(f"+{troubled - 1}", shown.tone),) if troubled > 1 else ()
        return (Cell(f"{shown.text}: {clean(ordered[0].name, glyphs)}", shown.tone), *more)
    restarts = sum(child.restarts for child in ordered)
    again: Tone = "warn" if restarts else "dim"
    tally = Cell(f"{restarts} restart{'' if restarts == 1 else 's'}", again)
    return (Cell(f"{glyphs.live} {len(ordered)} running", "good"), tally)


def _child_row(child: Child, as_of: float, glyphs: Glyphs) -> Row:
    cells = (
        Cell(clean(child.name, glyphs)),
        child_state(child, glyphs),
        Cell(count(child.restarts), "warn" if child.restarts else "dim"),
        Cell(age(as_of - child.since), "dim"),
        Cell(clean(child.last_error or "", glyphs), "dim"),
    )
    return Row(child.name, cells)


def details(state: State, key: str, glyphs: Glyphs = UNICODE) -> Details | None:
    found = next((child for child in (state.snapshot.children if state.snapshot else ()) if child.name == key), None)
    if found is None:
        return None
    weight = "critical: the daemon stops when it cannot be kept up" if found.critical else "not critical"
    fields = (
        ("part", clean(found.name, glyphs)),
        ("state", f"{clean(found.state, glyphs)} for {age(state.as_of - found.since)}"),
        ("weight", weight),
        ("restarts", f"{found.restarts:,}"),
        ("last error", clean(found.last_error or "none", glyphs)),
    )
    return Details("Supervised part", fields)
