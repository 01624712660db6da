"""Requests, errors and latency per endpoint of each chain."""

from __future__ import annotations

from moonxd.api.schema import ChainHealth

from ..panel import NO_DATA, Cell, Column, Details, Panel, Row, Tone
from ..state import State
from ..text import UNICODE, Glyphs, clean, count, percent, seconds

#: Share of failed requests from which an endpoint deserves a look, and from which it is in trouble. Public endpoints
#: refuse a few all the time, and retries hide them.
WARN_SHARE = 0.02
BAD_SHARE = 0.1

COLUMNS = (
    Column("chain", 8, most=16),
    Column("provider", 16, most=40, drop=4),
    Column("reqs", 6, right=True, drop=2),
    Column("errs", 5, right=True),
    Column("err %", 6, right=True, drop=5),
    Column("p50", 7, right=True, drop=3),
    Column("p95", 7, right=True),
    Column("last error", 12, fill=True, drop=6),
)


def panel(state: State, room: int, glyphs: Glyphs = UNICODE) -> Panel:
    snapshot = state.snapshot
    if snapshot is None:
        return Panel(2, "CHAINS", COLUMNS, empty=NO_DATA)
    ordered = sorted(snapshot.chains, key=lambda health: (health.chain, health.provider))
    rows = tuple(_chain_row(health, glyphs) for health in ordered)
    troubled = sum(row.mark.tone == "bad" for row in rows)
    note = Cell(f"{glyphs.lost} {troubled}", "bad") if troubled else Cell("")
    return Panel(2, "CHAINS", COLUMNS, rows, note=note, empty="no requests yet")


def chain_key(health: ChainHealth) -> str:
    return f"{health.chain_id}:{health.provider}"


def _chain_row(health: ChainHealth, glyphs: Glyphs) -> Row:
    share = health.errors / health.requests if health.requests else 0.0
    tone: Tone = "bad" if share >= BAD_SHARE else "warn" if share >= WARN_SHARE else ""
    quiet: Tone = "" if health.requests else "dim"
    cells = (
        Cell(clean(health.chain, glyphs), tone or quiet),
        Cell(clean(health.provider, glyphs), "dim"),
        Cell(count(health.requests), quiet),
        Cell(count(health.errors), tone or ("" if health.errors else "dim")),
        Cell(percent(share), tone or "dim"),
        Cell(seconds(health.p50), quiet),
        Cell(seconds(health.p95), quiet),
        Cell(clean(health.last_error or "", glyphs), tone),
    )
    marks = {"bad": Cell(glyphs.lost, "bad"), "warn": Cell(glyphs.warn, "warn")}
    return Row(chain_key(health), cells, marks.get(tone, Cell("")))


def details(state: State, key: str, glyphs: Glyphs = UNICODE) -> Details | None:
    found = next((each for each in (state.snapshot.chains if state.snapshot else ()) if chain_key(each) == key), None)
    if found is None:
        return None
    fields = (
        ("chain", f"{clean(found.chain, glyphs)} (id {found.chain_id})"),
        ("provider", clean(found.provider, glyphs)),
        ("requests", f"{found.requests:,} in the last few minutes"),
        ("errors", f"{found.errors:,}"),
        ("p50, p95", f"{seconds(found.p50)}, {seconds(found.p95)}"),
        ("last error", clean(found.last_error or "none", glyphs)),
    )
    return Details("Chain endpoint", fields)
