"""Durations as people type them."""

from __future__ import annotations

import re

import typer

_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)\Z")


def parse_duration(text: str) -> float:
    """Seconds. `90`, `90s`, `1.5m`, `2h`, `500ms`, `1d`; anything else is a usage error."""
    form = _FORM.match(text.strip().lower())
    if form is None:
        raise typer.BadParameter(f"{text!r} is not a duration: write 90, 90s, 1.5m, 2h, 500ms or 1d")
    return float(form[1]) * _UNITS[form[2]]
