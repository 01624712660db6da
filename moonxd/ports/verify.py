"""What comparing all stores with each other asks of them. The rules are those of the package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from ..domain.ledger import DeadLetter, Page, StoredEvent
from ..domain.verify import Row


class Records(Protocol):
    """All rows of the ledger, page by page, in short transactions of their own. Changes nothing."""

    async def rows(self, after: UUID | None, limit: int, *, since: float | None = None) -> tuple[Row, ...]:
        """Operations by id, those behind `after`; `since`: only those that were created then or later."""
        ...

    async def placed(self, after: int, limit: int) -> tuple[StoredEvent, ...]:
        """Events that have a position, by position."""
        ...

    async def unplaced(self, limit: int) -> tuple[StoredEvent, ...]:
        """The oldest events that no reader has given a position yet; theirs is 0."""
        ...

    async def newest(self) -> int:
        """The position given last; 0 when none was."""
        ...

    async def letters(self, queue: str, *, limit: int, after: Page | None) -> tuple[DeadLetter, ...]:
        """Copies of dead letters, newest first; `after` is where the page before ended."""
        ...


class Scratch(Protocol):
    """Room outside of memory for more than fits into it: puts equal keys together."""

    async def put(self, entries: Sequence[tuple[str, bytes]]) -> None: ...

    @property
    def shares(self) -> int:
        """Into how many shares it is cut; all entries of a key are in one of them."""
        ...

    async def share(self, number: int) -> dict[str, list[bytes]]:
        """By key, in the order in which they were put."""
        ...

    async def clear(self) -> None: ...
