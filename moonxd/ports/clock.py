"""Wall time."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Wall time, for what others read. Deadlines use trio's monotonic clock instead."""

    def now(self) -> float:
        """Unix seconds."""
        ...
