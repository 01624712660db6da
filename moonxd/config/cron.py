"""Whether a cron pattern can be read; when it is due next is domain/cron.py's business."""

from __future__ import annotations

import re

from ..domain.cron import FIELDS


def check_cron(text: str) -> str:
    """`text` with single blanks. Raises ValueError naming the field that cannot be read."""
    parts = text.split()
    if len(parts) not in (5, 6):
        raise ValueError(f"this one has {len(parts)}")
    for part, field in zip(reversed(parts), reversed(FIELDS), strict=False):
        for item in part.split(","):
            _check_item(item, *field)
    return " ".join(parts)


def _check_item(item: str, field: str, low: int, high: int, names: tuple[str, ...]) -> None:
    match = re.fullmatch(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d+))?", item)
    if match is None or (match[3] is not None and not 0 < int(match[3]) <= high + 1):
        raise ValueError(f"{item!r} is no {field}")
    bounds = [_number(bound, low, names) for bound in match.groups()[:2] if bound is not None]
    if any(bound is None or not low <= bound <= high for bound in bounds) or bounds != sorted(
        bounds, key=lambda b: b or 0
    ):
        raise ValueError(f"{item!r} is no {field} ({low} to {high})")


def _number(text: str, low: int, names: tuple[str, ...]) -> int | None:
    if text.isdecimal():
        return int(text)
    return names.index(text.lower()) + low if text.lower() in names else None
