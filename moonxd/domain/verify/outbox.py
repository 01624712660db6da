"""The outbox from its first row to its last: whether its positions have gaps, and from where on it is complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from ..ledger import Retention, StoredEvent
from .findings import Finding

#: Seconds by which clocks of rows and of their removal may differ.
MARGIN_S = 60.0


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """From where on the outbox holds everything."""

    #: Events of changes since then are there (unix seconds); None: all that ever were.
    complete_since: float | None = None
    first_position: int = 1
    unpublished: int = 0


class Watch:
    """Feed it pages by position; what was removed for its age is no gap."""

    def __init__(self, keep: Retention, now: float, newest: int) -> None:
        self._keep = keep
        self._now = now
        self._newest = newest
        self._last: StoredEvent | None = None
        self._first: StoredEvent | None = None
        self._unplaced: StoredEvent | None = None
        self._unpublished = 0

    def feed(self, page: Iterable[StoredEvent]) -> Iterator[Finding]:
        for stored in page:
            self._unpublished += stored.published_at is None
            if not stored.position:
                self._unplaced = self._unplaced or stored
                continue
            if self._last is None:
                self._first = stored
                if stored.position > 1 and not self._removes:
                    yield _gap(0, stored.position)
            elif stored.position != self._last.position + 1:
                if self._may_be_gone_after(self._last):
                    self._first = stored
                else:
                    yield _gap(self._last.position, stored.position)
            self._last = stored

    @property
    def _removes(self) -> bool:
        return self._keep.outbox_s is not None or self._keep.outbox_rows is not None

    def _may_be_gone_after(self, stored: StoredEvent) -> bool:
        """Whether rows behind `stored` were old enough to be removed, while it stayed (it was not published yet)."""
        keep = self._keep
        by_age = keep.outbox_s is not None and stored.created_at.timestamp() < self._now - keep.outbox_s + MARGIN_S
        by_count = keep.outbox_rows is not None and stored.position <= self._newest - keep.outbox_rows
        return by_age or by_count

    def standing(self) -> Standing:
        first = self._first or self._unplaced
        if first is None:
            # Nothing is there, so nothing can be missed in it, unless nothing was ever to be removed.
            since: float | None = self._now
        else:
            since = first.created_at.timestamp() + MARGIN_S
        if not self._removes or (first is not None and first.position == 1):
            since = None
        return Standing(
            complete_since=since,
            first_position=first.position if first is not None else 1,
            unpublished=self._unpublished,
        )


def _gap(before: int, after: int) -> Finding:
    missing = f"{before + 1}" if after - before == 2 else f"{before + 1} to {after - 1}"
    return Finding("gap", missing, f"the outbox has position {after} next to {before}: {missing} is missing", "outbox")
