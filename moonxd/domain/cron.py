"""When something is due next, as the domain sees it. What reads patterns is in config/cron.py."""

from __future__ import annotations

from typing import Protocol


class Cron(Protocol):
    """A pattern of instants, in UTC."""

    @property
    def pattern(self) -> str: ...

    def after(self, second: int) -> int | None:
        """The first unix second later than `second` at which the pattern fires; None when it never does."""
        ...
