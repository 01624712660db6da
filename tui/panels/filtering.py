"""The filter that the job panels share."""

from __future__ import annotations

from ..panel import Cell
from ..state import State
from ..text import Glyphs, clean


def matches(state: State, *texts: str) -> bool:
    wanted = state.filter.casefold()
    return not wanted or any(wanted in text.casefold() for text in texts)


def filter_note(state: State, shown: int, total: int, glyphs: Glyphs) -> Cell:
    return Cell(f"/{clean(state.filter, glyphs)}: {shown} of {total}", "warn") if state.filter else Cell("")


def nothing(state: State, otherwise: str, glyphs: Glyphs) -> str:
    return f"nothing matches /{clean(state.filter, glyphs)} (esc clears it)" if state.filter else otherwise
