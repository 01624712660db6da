"""The lines around the tables and charts: what all of them come to, and how old it is; what must be read now."""

from __future__ import annotations

from ..lines import Keys, Line, clock, header, notice, sentences
from ..panel import Cell, pack
from ..state import State
from ..text import UNICODE, Glyphs, age, clean
from .health import tally

KEYS: Keys = (
    (0, "q", "quit"),
    (0, "?", "help"),
    (0, "esc", "back"),
    (2, "tab", "next table"),
    (1, "up down", "row"),
    (3, "enter", "details"),
)
#: An answer that takes longer (seconds) is mentioned.
_SLOW_S = 3.0


def top(state: State, room: int, glyphs: Glyphs = UNICODE) -> tuple[Line, Line]:
    return header(state, room, glyphs)[0], pack(_sums(state, glyphs), room, glyphs=glyphs)


def _sums(state: State, glyphs: Glyphs) -> list[tuple[int, Line]]:
    figures, found = state.figures, state.figures.found
    said: list[tuple[int, Line]] = [(0, (Cell(" STATISTICS", "strong"),))]
    if not figures.is_current(state.now) and figures.heard_at is not None:
        said.append((0, (Cell(f"as of {clock(figures.heard_at)}", "warn"),)))
    waited = 0.0 if figures.asked_at is None else state.now - figures.asked_at
    if waited > _SLOW_S:
        said.append((1, (Cell(f"{glyphs.retry} asking for {age(waited)}", "warn"),)))
    if found is None:
        return said
    chains = tally((row.status for row in found.chains.chains), glyphs)
    bridges = tally((row.status for row in found.bridges.bridges), glyphs)
    said.append((2, (Cell("chains ", "dim"), *(chains or (Cell("-"),)))))
    said.append((3, (Cell("bridges ", "dim"), *(bridges or (Cell("-"),)))))
    return said


def warning(state: State, glyphs: Glyphs = UNICODE) -> Cell | None:
    """As on the screen of the panels; when all is well there, why there are no statistics."""
    said = notice(state, glyphs)
    figures = state.figures
    if said is not None or not figures.reason:
        return said
    text = clean(sentences(figures.reason, figures.hint), glyphs)
    return Cell(f"{glyphs.lost} {text}", "bad") if figures.is_kept else Cell(f"{glyphs.dot} {text}", "strong")
