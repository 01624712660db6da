"""Circuit breakers, the tripped ones first."""

from __future__ import annotations

from moonxd.api.schema import Breaker

from ..panel import NO_DATA, Cell, Column, Details, Panel, Row
from ..state import State
from ..text import UNICODE, Glyphs, age, clean, count

COLUMNS = (
    Column("name", 11, most=32),
    Column("state", 11),
    Column("fails", 5, right=True),
    Column("open", 7, right=True),
    Column("reason", 12, fill=True, drop=1),
)

_ORDER = {"open": 0, "half-open": 1, "cordoned": 2, "closed": 3}


def breaker_state(breaker: Breaker, glyphs: Glyphs = UNICODE) -> Cell:
    known: dict[str, Cell] = {
        "closed": Cell(f"{glyphs.live} closed", "good"),
        "half-open": Cell(f"{glyphs.retry} half-open", "warn"),
        "cordoned": Cell(f"{glyphs.paused} cordoned", "warn"),
        "open": Cell(f"{glyphs.lost} OPEN", "bad"),
    }
    return known.get(breaker.state, Cell(clean(breaker.state, glyphs), "warn"))


def panel(state: State, room: int, glyphs: Glyphs = UNICODE) -> Panel:
    snapshot = state.snapshot
    if snapshot is None:
        return Panel(6, "BREAKERS", COLUMNS, empty=NO_DATA)
    if snapshot.breakers is None:
        nothing = "no breakers configured"
        return Panel(6, "BREAKERS", COLUMNS, empty=nothing, summary=(Cell("none configured", "dim"),))
    ordered = sorted(snapshot.breakers, key=lambda breaker: (_ORDER.get(breaker.state, 1), breaker.name))
    rows = tuple(_breaker_row(breaker, state.as_of, glyphs) for breaker in ordered)
    summary = _summary(ordered, glyphs)
    return Panel(6, "BREAKERS", COLUMNS, rows, summary=summary, empty="none has tripped yet")


def _summary(ordered: list[Breaker], glyphs: Glyphs) -> tuple[Cell, ...]:
    tripped = [breaker for breaker in ordered if breaker.state != "closed"]
    if not tripped:
        return (Cell(f"{len(ordered)} closed", "good" if ordered else "dim"),)
    shown = breaker_state(tripped[0], glyphs)
    others = (Cell(f"+{len(tripped) - 1}", "bad"),) if len(tripped) > 1 else ()
    return (Cell(f"{shown.text} {clean(tripped[0].name, glyphs)}", shown.tone), *others)


def _breaker_row(breaker: Breaker, as_of: float, glyphs: Glyphs) -> Row:
    shown = breaker_state(breaker, glyphs)
    cells = (
        Cell(clean(breaker.name, glyphs)),
        shown,
        Cell(count(breaker.failures), "" if breaker.failures else "dim"),
        Cell("" if breaker.opened_at is None else age(as_of - breaker.opened_at)),
        Cell(clean(breaker.reason or "", glyphs), "dim"),
    )
    return Row(breaker.name, cells)


def details(state: State, key: str, glyphs: Glyphs = UNICODE) -> Details | None:
    known = (state.snapshot.breakers if state.snapshot else None) or ()
    found = next((breaker for breaker in known if breaker.name == key), None)
    if found is None:
        return None
    opened = "-" if found.opened_at is None else f"{age(state.as_of - found.opened_at)} ago"
    fields = (
        ("breaker", clean(found.name, glyphs)),
        ("state", clean(found.state, glyphs)),
        ("failures", f"{found.failures:,}"),
        ("opened", opened),
        ("reason", clean(found.reason or "none given", glyphs)),
    )
    return Details("Breaker", fields)
