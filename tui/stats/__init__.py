"""The tables of the statistics screen: one file and one line here each, in the order of their number keys."""

from __future__ import annotations

from ..panels import Section
from . import bridges, chains, collectors

TABLES = (
    Section("stats-chains", chains.panel, chains.details),
    Section("stats-bridges", bridges.panel, bridges.details),
    Section("stats-collectors", collectors.panel, collectors.details),
)
