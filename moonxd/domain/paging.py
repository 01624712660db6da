"""How many events are read at a time: rows while they are small, bytes once they are large."""

from __future__ import annotations

from collections.abc import Sequence

from .ledger import StoredEvent

#: What a page should weigh at most; a portfolio of thousands of tokens is hundreds of kilobytes by itself.
PAGE_BYTES = 4_000_000


def next_rows(page: Sequence[StoredEvent], most: int) -> int:
    """Rows to ask for after `page`, at least one and at most `most`, if the next ones are as large as these."""
    if not page:
        return most
    mean = sum(len(one.event.body) for one in page) // len(page)
    return max(1, min(most, PAGE_BYTES // max(1, mean)))
