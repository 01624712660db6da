"""`sync_operations` from nothing but its events: what a reader of the topic knows, and what the ledger must agree with.

Times are the workers' own, those of the table the database's: they differ by what a round trip and two clocks do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from .events import EVENT_TYPES, sync
from .events.envelope import Envelope

D = TypeVar("D")


class Rebuilt(msgspec.Struct, kw_only=True):
    """One operation. Names are the table's columns; times are epoch ms."""

    id: UUID
    user_id: str
    wallet_address: str
    #: queued: it waits and has no row yet; else as in the table.
    status: str = "queued"
    type: str | None = None
    priority: str | None = None
    queued_at: int | None = None
    started_at: int | None = None
    completed_at: int | None = None
    duration_ms: int | None = None
    tokens_synced: int = 0
    chains_synced: int = 0
    total_value_usd: Decimal | None = None
    error_message: str | None = None
    retry_count: int = 0
    max_retries: int | None = None
    worker_id: str | None = None
    worker_version: str | None = None


#: What the events say exactly as the table does.
COLUMNS = (
    "id", "user_id", "wallet_address", "status", "type", "priority", "duration_ms", "tokens_synced", "chains_synced",
    "total_value_usd", "error_message", "retry_count", "worker_id",
)  # fmt: skip


class Rebuild:
    """Feed it bodies in the order of their publication; repetitions change nothing."""

    def __init__(self) -> None:
        self.operations: dict[UUID, Rebuilt] = {}
        self._seen: set[UUID] = set()

    def feed(self, bodies: Iterable[bytes]) -> None:
        for body in bodies:
            self._take(body)

    def _take(self, body: bytes) -> None:
        kind = msgspec.json.decode(body, type=_Kind).type
        known = _TAKE.get(kind)
        if known is None:
            return
        decode, apply = known
        event = decode(body)
        if event.metadata.event_id in self._seen:
            return
        self._seen.add(event.metadata.event_id)
        row = self.operations.setdefault(
            event.metadata.correlation_id,
            Rebuilt(id=event.metadata.correlation_id, user_id=event.user_id, wallet_address=event.wallet_address),
        )
        apply(row, event.data)


def rebuild(bodies: Iterable[bytes]) -> dict[UUID, Rebuilt]:
    """The operations that have a row, by id."""
    found = Rebuild()
    found.feed(bodies)
    return {key: row for key, row in found.operations.items() if row.status != "queued"}


class _Kind(msgspec.Struct):
    type: str


def _queued(row: Rebuilt, data: sync.SyncQueued) -> None:
    row.type, row.priority, row.queued_at = data.sync_type, data.priority, data.queued_at


def _started(row: Rebuilt, data: sync.SyncStarted) -> None:
    # One that had ended was requeued: its attempts start anew, and so does their count.
    if row.status in ("queued", "failed", "cancelled"):
        row.retry_count = data.attempt - 1
    row.status, row.type, row.priority = "running", data.sync_type, data.priority
    row.started_at, row.completed_at, row.duration_ms = data.started_at, None, None
    row.max_retries, row.worker_id, row.worker_version = data.max_attempts - 1, data.worker_id, data.worker_version


def _completed(row: Rebuilt, data: sync.SyncCompleted) -> None:
    _end(row, "completed", data.completed_at, data.processing_time, None)
    row.tokens_synced, row.chains_synced = data.tokens_total, data.chains_sync
    row.total_value_usd = data.total_value_usd


def _retrying(row: Rebuilt, data: sync.SyncRetrying) -> None:
    row.status, row.completed_at, row.duration_ms = "pending", None, data.processing_time
    row.retry_count += not data.handed_back
    row.error_message = data.error or row.error_message


def _failed(row: Rebuilt, data: sync.SyncFailed) -> None:
    _end(row, "failed", data.failed_at, data.processing_time, data.error)


def _cancelled(row: Rebuilt, data: sync.SyncCancelled) -> None:
    _called_off(row, data.worker_id)
    _end(row, "cancelled", data.cancelled_at, data.processing_time, data.reason)


def _rejected(row: Rebuilt, data: sync.SyncRejected) -> None:
    _called_off(row, data.worker_id)
    _end(row, "cancelled", data.rejected_at, None, data.reason)


def _called_off(row: Rebuilt, worker_id: str) -> None:
    """One that never started is opened by whoever calls it off."""
    if row.status == "queued":
        row.worker_id = worker_id


def _end(row: Rebuilt, status: str, at: int, duration_ms: int | None, error: str | None) -> None:
    row.status, row.completed_at, row.duration_ms, row.error_message = status, at, duration_ms, error


def _decoder(name: str) -> Callable[[bytes], Envelope[Any]]:
    return msgspec.json.Decoder(Envelope[EVENT_TYPES[name].struct]).decode  # type: ignore[misc]


_APPLY: dict[str, Callable[[Rebuilt, Any], None]] = {
    "sync.queued": _queued,
    "sync.started": _started,
    "sync.completed": _completed,
    "sync.retrying": _retrying,
    "sync.failed": _failed,
    "sync.cancelled": _cancelled,
    "sync.rejected": _rejected,
}
_TAKE = {name: (_decoder(name), apply) for name, apply in _APPLY.items()}
