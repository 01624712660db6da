"""Which committed events somebody wants to see."""

from __future__ import annotations

from datetime import datetime
from fnmatch import fnmatchcase

import msgspec

from .ledger import StoredEvent


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What is empty or None does not matter. `types` may hold patterns ("sync.*"); since <= time < until."""

    types: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    wallet: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def matches(self, stored: StoredEvent) -> bool:
        event = stored.event
        return (
            (not self.types or any(fnmatchcase(event.type, pattern) for pattern in self.types))
            and (not self.topics or event.topic in self.topics)
            and (not self.users or event.key in self.users)
            and self.wallet in (None, event.wallet)
            and (self.since is None or stored.created_at >= self.since)
            and (self.until is None or stored.created_at < self.until)
        )
