"""Pages of events are bounded by what they weigh."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from moonxd.domain.ledger import StoredEvent
from moonxd.domain.paging import PAGE_BYTES, next_rows
from tests.conformance.ledger_data import event

SOME = event("0x" + "ab" * 20, "portfolio.updated")


def page(*sizes: int) -> list[StoredEvent]:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        StoredEvent(position=place, event=msgspec.structs.replace(SOME, body=b"x" * size), created_at=at)
        for place, size in enumerate(sizes, 1)
    ]


@pytest.mark.parametrize(
    ("sizes", "rows"),
    [
        ((), 500),
        ((1000, 1000), 500),
        ((300_000,) * 3, PAGE_BYTES // 300_000),
        ((100, 600_000), PAGE_BYTES // 300_050),
        ((PAGE_BYTES * 2,), 1),
        ((0,), 500),
    ],
)
def test_rows_of_the_next_page(sizes: tuple[int, ...], rows: int) -> None:
    assert next_rows(page(*sizes), 500) == rows
