"""How fast each bridge answers a quote, and how long it says that a transfer takes."""

from __future__ import annotations

from moonxd.api.stats import BridgeView

from ..panel import Cell, Column, Details, Panel, Row, Tone
from ..state import State
from ..text import UNICODE, Glyphs, clean, seconds
from .health import ground, health, measured_age, moment, nothing, tally, why

COLUMNS = (
    Column("bridge", 6, most=14),
    Column("route", 16, most=34, middle=True),
    Column("status", 11),
    Column("quote", 7, right=True),
    Column("p95", 7, right=True, drop=4),
    Column("transfer", 8, right=True, drop=2),
    Column("last", 12, drop=1),
    Column("seen", 7, right=True, drop=5),
    Column("why", 12, fill=True, drop=3),
)


def panel(state: State, room: int, glyphs: Glyphs = UNICODE) -> Panel:
    found = state.figures.found
    if found is None:
        return Panel(2, "BRIDGES", COLUMNS, empty=nothing(state))
    as_of = state.figures.as_of(state.now)
    rows = tuple(_row(row, as_of, glyphs) for row in found.bridges.bridges)
    summary = tally((row.status for row in found.bridges.bridges), glyphs)
    return Panel(2, "BRIDGES", COLUMNS, rows, summary=summary, empty=nothing(state))


def bridge_key(row: BridgeView) -> str:
    """As the history names it."""
    return f"{row.provider} {row.route}"


def _row(row: BridgeView, as_of: float, glyphs: Glyphs) -> Row:
    tone = ground(row, as_of)
    ended: Tone = "dim" if row.outcome == "ok" else "" if row.outcome == "no_route" else "warn"
    cells = (
        Cell(clean(row.provider, glyphs)),
        Cell(clean(row.route, glyphs), "dim"),
        health(row.status, glyphs),
        Cell(seconds(row.latency_s), tone or "strong"),
        Cell(seconds(row.p95_s), tone),
        Cell(seconds(row.quoted_s), tone),
        Cell(clean(row.outcome.replace("_", " "), glyphs), ended),
        Cell(measured_age(row, as_of), "dim"),
        why(row, as_of, glyphs),
    )
    return Row(bridge_key(row), cells)


def details(state: State, key: str, glyphs: Glyphs = UNICODE) -> Details | None:
    found = state.figures.found
    row = next((each for each in (found.bridges.bridges if found else ()) if bridge_key(each) == key), None)
    if row is None:
        return None
    as_of = state.figures.as_of(state.now)
    fields = (
        ("bridge", clean(row.provider, glyphs)),
        ("route", clean(row.route, glyphs)),
        ("chains", f"from id {row.from_chain} to id {row.to_chain}"),
        ("status", health(row.status, glyphs).text),
        ("why", why(row, as_of, glyphs).text or "nothing to complain about"),
        ("last quote", clean(row.outcome.replace("_", " "), glyphs)),
        *moment(row, as_of),
        ("quote latency", f"{seconds(row.latency_s)}, p50 {seconds(row.p50_s)}, p95 {seconds(row.p95_s)}"),
        ("transfer", f"{seconds(row.quoted_s)}, as the provider says"),
    )
    return Details("Bridge", fields)
