"""ports.Records on PostgreSQL: pages in short statements, so that nothing waits for us."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

from ...domain.ledger import DeadLetter, Page, StoredEvent
from ...domain.verify import Row
from ...domain.verify.facts import of_row
from . import wire
from .publication import Ask

_ROWS = """
SELECT o.id::text, o.user_id::text, o.wallet_address, o.type::text, o.status::text, o.priority::text, o.started_at,
    o.completed_at, o.duration_ms, o.tokens_synced, o.chains_synced, o.total_value_usd, o.error_message, o.retry_count,
    o.worker_id, o.worker_version, o.metadata::text, extract(epoch FROM o.created_at::timestamptz)::float8,
    extract(epoch FROM o.updated_at::timestamptz)::float8, extract(epoch FROM w.lease_expires_at)::float8
FROM (SELECT * FROM sync_operations p WHERE p.id > %s AND p.created_at >= %s ORDER BY p.id LIMIT %s) o
LEFT JOIN moonxd_wallets w ON w.user_id = o.user_id::text AND w.wallet_address = o.wallet_address
    AND w.lease_operation::text = o.id::text
ORDER BY o.id
"""
_PLACED = f"SELECT {wire.EVENT_COLUMNS} FROM moonxd_outbox WHERE position > %s ORDER BY position LIMIT %s"
_UNPLACED = (
    f"SELECT {wire.EVENT_COLUMNS.replace('position', '0')} FROM moonxd_outbox WHERE position IS NULL "
    "ORDER BY id LIMIT %s"
)
_FIRST = UUID(int=0)


class Whole(Protocol):
    """What the ledger answers itself."""

    async def newest(self) -> int: ...

    async def letters(self, queue: str, *, limit: int, after: Page | None) -> tuple[DeadLetter, ...]: ...


class PostgresRecords:
    """See ports.Records. `ask` runs a statement on any connection."""

    def __init__(self, ask: Ask, ledger: Whole) -> None:
        self._ask = ask
        self._ledger = ledger

    async def newest(self) -> int:
        return await self._ledger.newest()

    async def letters(self, queue: str, *, limit: int, after: Page | None) -> tuple[DeadLetter, ...]:
        return await self._ledger.letters(queue, limit=limit, after=after)

    async def rows(self, after: UUID | None, limit: int, *, since: float | None = None) -> tuple[Row, ...]:
        created = datetime.fromtimestamp(since or 0.0, UTC)
        # The column may be text in a database that another program made.
        found = await self._ask("reading operations", _ROWS, [str(after or _FIRST), created, limit])
        return tuple(of_row(wire.operation(row), row[17], row[18], row[19]) for row in found)

    async def placed(self, after: int, limit: int) -> tuple[StoredEvent, ...]:
        return tuple(map(wire.stored_event, await self._ask("reading events", _PLACED, [after, limit])))

    async def unplaced(self, limit: int) -> tuple[StoredEvent, ...]:
        return tuple(map(wire.stored_event, await self._ask("reading new events", _UNPLACED, [limit])))
