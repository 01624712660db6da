"""Attempts that failed, the newest first, and whether that was final."""

from __future__ import annotations

import time

from moonxd.api.schema import Failure

from ..panel import NO_DATA, Cell, Column, Details, Panel, Row
from ..state import State
from ..text import UNICODE, Glyphs, age, clean
from .filtering import filter_note, matches, nothing

COLUMNS = (
    Column("ago", 7, right=True),
    Column("outcome", 7),
    Column("try", 3, right=True),
    Column("job", 8, most=24),
    Column("user", 8, most=24, drop=1),
    Column("type", 14, drop=3),
    Column("wallet", 11, drop=2, middle=True),
    Column("reason", 38, fill=True),
)


def failure_key(failure: Failure) -> str:
    return f"{failure.job_id}#{failure.attempt}@{failure.at}"


def panel(state: State, room: int, glyphs: Glyphs = UNICODE) -> Panel:
    snapshot = state.snapshot
    if snapshot is None:
        return Panel(5, "FAILURES", COLUMNS, empty=NO_DATA)
    shown = [f for f in snapshot.failures if matches(state, f.job_id, f.name, f.user, f.wallet, f.reason)]
    shown.sort(key=lambda failure: -failure.at)
    rows = tuple(_failure_row(failure, state.as_of, glyphs) for failure in shown)
    final = sum(failure.final for failure in shown)
    note = filter_note(state, len(shown), len(snapshot.failures), glyphs)
    if not note.text and shown:
        note = Cell(f"{final} final", "bad") if final else Cell("all will retry", "dim")
    return Panel(5, "FAILURES", COLUMNS, rows, note=note, empty=nothing(state, "no recent failure", glyphs))


def outcome(failure: Failure, glyphs: Glyphs = UNICODE) -> Cell:
    return Cell(f"{glyphs.lost} final", "bad") if failure.final else Cell(f"{glyphs.retry} retry", "warn")


def _failure_row(failure: Failure, as_of: float, glyphs: Glyphs) -> Row:
    cells = (
        Cell(age(as_of - failure.at), "dim"),
        outcome(failure, glyphs),
        Cell(str(failure.attempt), "dim"),
        Cell(clean(failure.job_id, glyphs)),
        Cell(clean(failure.user, glyphs)),
        Cell(clean(failure.name, glyphs), "dim"),
        Cell(clean(failure.wallet, glyphs), "dim"),
        Cell(clean(failure.reason, glyphs)),
    )
    return Row(failure_key(failure), cells)


def details(state: State, key: str, glyphs: Glyphs = UNICODE) -> Details | None:
    known = state.snapshot.failures if state.snapshot else ()
    found = next((failure for failure in known if failure_key(failure) == key), None)
    if found is None:
        return None
    verdict = "final: it is in the dead letters" if found.final else "it will be retried by itself"
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.at))
    fields = (
        ("reason", clean(found.reason, glyphs)),
        ("outcome", verdict),
        ("job", clean(found.job_id, glyphs)),
        ("type", clean(found.name, glyphs)),
        ("user", clean(found.user, glyphs)),
        ("wallet", clean(found.wallet, glyphs)),
        ("attempt", str(found.attempt)),
        ("at", f"{when} ({age(state.as_of - found.at)} ago)"),
    )
    return Details("Failed attempt", fields)
