"""The panels of the live view: one file and one line here each, in the order of their number keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..panel import Details, Panel
from ..state import State
from ..text import Glyphs
from . import breakers, chains, failures, parts, queue, running, throughput


class Section(NamedTuple):
    """`build(state, width, glyphs)` draws it; `explain(state, row key, glyphs)` says all about one row."""

    name: str
    build: Callable[[State, int, Glyphs], Panel]
    explain: Callable[[State, str, Glyphs], Details | None] | None = None


SECTIONS = (
    Section("queue", queue.panel),
    Section("chains", chains.panel, chains.details),
    Section("throughput", throughput.panel),
    Section("running", running.panel, running.details),
    Section("failures", failures.panel, failures.details),
    Section("breakers", breakers.panel, breakers.details),
    Section("parts", parts.panel, parts.details),
)
