"""The jobs that this worker holds, the oldest first."""

from __future__ import annotations

from moonxd.api.schema import RunningJob

from ..panel import NO_DATA, Cell, Column, Details, Panel, Row
from ..state import State
from ..text import UNICODE, Glyphs, age, clean, count
from .filtering import filter_note, matches, nothing

#: A running job is called slow past this many seconds, or three times the usual p95 if that is longer.
SLOW_S = 10.0

COLUMNS = (
    Column("job", 10, most=40),
    Column("type", 14, drop=2),
    Column("user", 10, most=40, drop=1),
    Column("wallet", 11, most=42, drop=3, middle=True),
    Column("step", 7),
    Column("try", 3, right=True),
    Column("age", 7, right=True),
)


def job_key(job: RunningJob) -> str:
    return f"{job.id}#{job.attempt}"


def panel(state: State, room: int, glyphs: Glyphs = UNICODE) -> Panel:
    snapshot = state.snapshot
    if snapshot is None:
        return Panel(4, "RUNNING", COLUMNS, empty=NO_DATA)
    usual = snapshot.rates.p95
    slow = SLOW_S if usual is None else max(SLOW_S, 3 * usual)
    shown = [j for j in snapshot.running if matches(state, j.id, j.name, j.user, j.wallet, j.step)]
    shown.sort(key=lambda job: (job.started_at, job.id))
    rows = tuple(_running_row(job, state.as_of - job.started_at, slow, glyphs) for job in shown)
    note = filter_note(state, len(shown), len(snapshot.running), glyphs)
    if not note.text:
        note = Cell(f"{count(len(shown))}")
    return Panel(4, "RUNNING", COLUMNS, rows, note=note, empty=nothing(state, "no job is running", glyphs))


def _running_row(job: RunningJob, running_for: float, slow: float, glyphs: Glyphs) -> Row:
    late = running_for > slow
    cells = (
        Cell(clean(job.id, glyphs)),
        Cell(clean(job.name, glyphs), "dim"),
        Cell(clean(job.user, glyphs)),
        Cell(clean(job.wallet, glyphs), "dim"),
        Cell(clean(job.step, glyphs), "accent"),
        Cell(str(job.attempt), "warn" if job.attempt > 1 else "dim"),
        Cell(age(running_for), "warn" if late else ""),
    )
    return Row(job_key(job), cells, Cell(glyphs.warn, "warn") if late else Cell(""))


def details(state: State, key: str, glyphs: Glyphs = UNICODE) -> Details | None:
    found = next((job for job in (state.snapshot.running if state.snapshot else ()) if job_key(job) == key), None)
    if found is None:
        return None
    fields = (
        ("job", clean(found.id, glyphs)),
        ("type", clean(found.name, glyphs)),
        ("user", clean(found.user, glyphs)),
        ("wallet", clean(found.wallet, glyphs)),
        ("attempt", str(found.attempt)),
        ("step", clean(found.step, glyphs)),
        ("running for", age(state.as_of - found.started_at)),
    )
    return Details("Running job", fields)
