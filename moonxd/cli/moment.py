"""Moments as people type them."""

from __future__ import annotations

from datetime import UTC, datetime

import typer

from .duration import parse_duration


def parse_moment(text: str, now: float) -> float:
    """Unix seconds. A time (`2026-01-31T12:00:00Z`, `2026-01-31 12:00`, UTC unless it says otherwise), `now`, unix
    seconds, or how long ago (`90s`, `15m`, `2h`, `1d`)."""
    text = text.strip()
    if text == "now":
        return now
    if text.replace(".", "", 1).isdecimal() and float(text) > 1e8:
        return float(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        pass
    else:
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    try:
        return now - parse_duration(text)
    except typer.BadParameter:
        raise typer.BadParameter(
            f"{text!r} is no time: write 2026-01-31T12:00:00Z, unix seconds, now, or how long ago (15m, 2h, 1d)"
        ) from None
