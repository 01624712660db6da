"""Numbers of repeated measurements: medians with their spread, and ratios of what was measured in one round."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

import msgspec


class Spread(msgspec.Struct, frozen=True):
    """A median and between what it was measured, over `n` rounds."""

    median: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.median:.4g} [{self.low:.4g}-{self.high:.4g}]"


def spread(values: Iterable[float], digits: int = 4) -> Spread:
    """Raises StatisticsError without values."""
    ordered = sorted(values)
    return Spread(
        round(statistics.median(ordered), digits), round(ordered[0], digits), round(ordered[-1], digits), len(ordered)
    )


def ratios(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Of pairs that were measured one right after the other: what the machine did meanwhile cancels out."""
    return spread(a / b for a, b in zip(over, under, strict=True))


def nearest_rank(values: Iterable[float], share: float) -> float:
    """The percentile `share` (0..1) of at least one value."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
