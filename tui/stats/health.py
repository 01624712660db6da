"""What the tables of the statistics screen say alike: health, age, and why there is nothing to show."""

from __future__ import annotations

from collections.abc import Iterable

from moonxd.api.stats import BridgeView, ChainView

from ..panel import Cell, Tone
from ..state import State
from ..text import Glyphs, age, clean

#: Seconds after which a row that nobody looked at again is called old; collectors look every minute or two.
OLD_ROW_S = 300.0
#: The worse, the higher.
SEVERITY = {"healthy": 0, "unknown": 1, "degraded": 2, "unhealthy": 3}

Looked = ChainView | BridgeView


def health(status: str, glyphs: Glyphs) -> Cell:
    known: dict[str, tuple[str, Tone]] = {
        "healthy": (glyphs.live, "good"),
        "degraded": (glyphs.warn, "warn"),
        "unhealthy": (glyphs.lost, "bad"),
        "unknown": (glyphs.waiting, "dim"),
    }
    mark, tone = known.get(status, (glyphs.warn, "warn"))
    return Cell(f"{mark} {clean(status, glyphs)}", tone)


def tally(statuses: Iterable[str], glyphs: Glyphs) -> tuple[Cell, ...]:
    """How many there are of each status, the worst first: `✗ 1  ! 2  ● 3`."""
    counted: dict[str, int] = {}
    for status in statuses:
        counted[status] = counted.get(status, 0) + 1
    worst_first = sorted(counted, key=lambda status: (-SEVERITY.get(status, 2), status))
    shown = [(health(status, glyphs), counted[status]) for status in worst_first]
    return tuple(Cell(f"{cell.text[0]} {number} ", cell.tone) for cell, number in shown)


def measured_age(row: Looked, as_of: float) -> str:
    """How long ago the values were measured."""
    return "-" if row.measured_at_ms is None else age(as_of - row.measured_at_ms / 1000)


def is_old(row: Looked, as_of: float) -> bool:
    """Nobody has looked at it for a while: what it says may no longer be so."""
    return as_of - row.at_ms / 1000 > OLD_ROW_S


def ground(row: Looked, as_of: float) -> Tone:
    """Values that the latest look did not confirm are drawn faint."""
    return "dim" if is_old(row, as_of) or row.measured_at_ms != row.at_ms else ""


def why(row: Looked, as_of: float, glyphs: Glyphs) -> Cell:
    """What keeps it from being healthy, or the last error; first of all that nobody looks."""
    said = [f"not looked at for {age(as_of - row.at_ms / 1000)}"] if is_old(row, as_of) else []
    said += [text for text in (row.reason, row.error) if text]
    tone: Tone = "bad" if row.status == "unhealthy" else "warn" if said else "dim"
    return Cell(clean("; ".join(dict.fromkeys(said)), glyphs), tone)


def nothing(state: State) -> str:
    """Why a table is empty."""
    figures = state.figures
    if not figures.is_kept:
        return "this daemon keeps no statistics"
    if figures.found is None:
        return "no data yet" if figures.reason else "asking the daemon"
    return "nothing was measured yet"


def moment(row: Looked, as_of: float) -> tuple[tuple[str, str], ...]:
    """When it was looked at, for details."""
    measured = "never" if row.measured_at_ms is None else f"{measured_age(row, as_of)} ago"
    return (("looked at", f"{age(as_of - row.at_ms / 1000)} ago"), ("values of", measured))
