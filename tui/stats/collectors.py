"""Who collects the statistics, and whether they get round to it."""

from __future__ import annotations

from moonxd.api.stats import CollectorView

from ..panel import Cell, Column, Details, Panel, Row, Tone
from ..state import State
from ..text import UNICODE, Glyphs, age, clean, count, seconds
from .health import nothing

COLUMNS = (
    Column("collector", 17, most=24),
    Column("where", 9),
    Column("last round", 12),
    Column("ago", 7, right=True),
    Column("took", 7, right=True, drop=3),
    Column("missed", 6, right=True, drop=1),
    Column("rounds", 6, right=True, drop=4),
    Column("next", 7, right=True, drop=2),
    Column("last error", 12, fill=True, drop=5),
)
#: How the last round ended: what it means.
_TROUBLE = ("partial", "failed", "timeout")


def panel(state: State, room: int, glyphs: Glyphs = UNICODE) -> Panel:
    found = state.figures.found
    if found is None:
        return Panel(3, "COLLECTORS", COLUMNS, empty=nothing(state))
    as_of = state.figures.as_of(state.now)
    rows = tuple(_row(each, as_of, glyphs) for each in found.collectors)
    summary = _summary(found.collectors, as_of, glyphs)
    return Panel(3, "COLLECTORS", COLUMNS, rows, summary=summary, empty="none runs in this daemon")


def _summary(collectors: tuple[CollectorView, ...], as_of: float, glyphs: Glyphs) -> tuple[Cell, ...]:
    """All of them in one line: what went wrong, else that nothing did; who collects, and when the next round is."""
    if not collectors:
        return (Cell("none runs in this daemon", "dim"),)
    ours = [each for each in collectors if each.is_ours]
    if not ours:
        return (Cell("another daemon collects", "dim"),)
    wrong = [each for each in ours if each.outcome in _TROUBLE]
    said = [
        Cell(f"{_ended(each, glyphs).text} {clean(each.name, glyphs)}", _ended(each, glyphs).tone) for each in wrong[:2]
    ]
    if not wrong:
        said = [Cell(f"{glyphs.live} {len(ours)} ours", "good")]
    missed = sum(each.missed for each in ours)
    said += [Cell(f"missed {count(missed)}", "warn")] if missed else []
    due = min((each.next_at for each in ours if each.next_at is not None), default=None)
    last = max((each.last_at for each in ours if each.last_at is not None), default=None)
    said.append(Cell("no round yet" if last is None else f"last {age(as_of - last)} ago", "dim"))
    return (*said, Cell(f"next in {age(due - as_of)}", "dim")) if due is not None else tuple(said)


def _ended(each: CollectorView, glyphs: Glyphs) -> Cell:
    """The last round; one under way is said beside it by its time."""
    if each.is_running:
        return Cell(f"{glyphs.retry} running", "accent")
    outcomes: dict[str | None, tuple[str, Tone]] = {
        "ok": (glyphs.live, "good"),
        "partial": (glyphs.warn, "warn"),
        "failed": (glyphs.lost, "bad"),
        "timeout": (glyphs.lost, "bad"),
        None: (glyphs.waiting, "dim"),
    }
    mark, tone = outcomes.get(each.outcome, (glyphs.warn, "warn"))
    return Cell(f"{mark} {clean(each.outcome or 'none yet', glyphs)}", tone)


def _row(each: CollectorView, as_of: float, glyphs: Glyphs) -> Row:
    cells = (
        Cell(clean(each.name, glyphs)),
        Cell("ours") if each.is_ours else Cell("elsewhere", "dim"),
        _ended(each, glyphs),
        Cell(_ago(each.last_at, as_of)),
        Cell(seconds(each.took_s), "dim"),
        Cell(count(each.missed), "warn" if each.missed else "dim"),
        Cell(count(each.rounds), "dim"),
        Cell("-" if each.next_at is None else age(each.next_at - as_of), "dim"),
        Cell(clean(each.error or "", glyphs), "warn"),
    )
    return Row(each.name, cells)


def _ago(at: float | None, as_of: float) -> str:
    return "-" if at is None else age(as_of - at)


def details(state: State, key: str, glyphs: Glyphs = UNICODE) -> Details | None:
    found = state.figures.found
    each = next((one for one in (found.collectors if found else ()) if one.name == key), None)
    if each is None:
        return None
    as_of = state.figures.as_of(state.now)
    fields = (
        ("collector", clean(each.name, glyphs)),
        ("where", "this daemon" if each.is_ours else "another daemon of the fleet has the lease"),
        ("last round", f"{_ended(each, glyphs).text}, {_ago(each.last_at, as_of)} ago, took {seconds(each.took_s)}"),
        ("last good", "none" if each.good_at is None else f"{_ago(each.good_at, as_of)} ago"),
        ("rounds", f"{each.rounds:,}, missed {each.missed:,}"),
        ("next", "not known" if each.next_at is None else f"in {age(each.next_at - as_of)}"),
        ("last error", clean(each.error or "none", glyphs)),
    )
    return Details("Collector", fields)
