"""Between domain types and the JSON documents that the database's functions take and give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from ...domain.ledger import (
    Admitted,
    AlreadyCommitted,
    BreakerOpen,
    Busy,
    DeadLetter,
    Decision,
    Event,
    LetterFilter,
    Operation,
    Orphan,
    PastPortfolio,
    Portfolio,
    Pruned,
    RateLimited,
    StoredEvent,
    storable,
    storable_json,
)
from ...domain.money import total
from ...domain.token import Holding, TokenRef

OPERATION_COLUMNS = (
    "id::text, user_id::text, wallet_address, type::text, status::text, priority::text, started_at, completed_at, "
    "duration_ms, tokens_synced, chains_synced, total_value_usd, error_message, retry_count, worker_id, "
    "worker_version, metadata::text"
)
EVENT_COLUMNS = (
    "position, event_id, event_type, topic, event_key, wallet_address, body, created_at, published_at, parked"
)
LETTER_COLUMNS = (
    "queue, job_id, name, job_timestamp, data, options, reason, stack, attempts_made, failed_at, user_id, "
    "wallet_address"
)


class _Admitted(msgspec.Struct, tag_field="decision", tag="admitted"):
    fence: int
    previous: tuple[Holding, ...]
    seen: tuple[TokenRef, ...]
    snapshot_at: datetime | None


class _Busy(msgspec.Struct, tag_field="decision", tag="busy"):
    operation: UUID
    until: datetime


class _Committed(msgspec.Struct, tag_field="decision", tag="committed"):
    result: dict[str, Any]


class _Limited(msgspec.Struct, tag_field="decision", tag="limited"):
    retry_at: datetime


class _Open(msgspec.Struct, tag_field="decision", tag="open"):
    retry_at: datetime


class _Past(msgspec.Struct):
    user_id: str
    taken_at: datetime
    type: str
    operation: UUID | None
    holdings: tuple[Holding, ...]


class _View(msgspec.Struct):
    user_id: str
    holdings: tuple[Holding, ...]
    last_sync_at: datetime | None
    sync_status: str | None
    last_error: str | None


_decode_decision = msgspec.json.Decoder(_Admitted | _Busy | _Committed | _Limited | _Open).decode
_decode_history = msgspec.json.Decoder(tuple[_Past, ...]).decode
_decode_pruned = msgspec.json.Decoder(Pruned).decode
_decode_views = msgspec.json.Decoder(tuple[_View, ...]).decode


def decision(document: str, told_value_usd: Decimal | None = None, snapshot_owed: bool = False) -> Decision:
    answer = _decode_decision(document)
    if isinstance(answer, _Busy):
        return Busy(answer.operation, answer.until)
    if isinstance(answer, _Committed):
        return AlreadyCommitted(answer.result)
    if isinstance(answer, _Limited):
        return RateLimited(answer.retry_at)
    if isinstance(answer, _Open):
        return BreakerOpen(answer.retry_at)
    seen = dict.fromkeys(answer.seen)
    # Rows that an older program put there were seen as well.
    seen.update(dict.fromkeys(holding.token for holding in answer.previous))
    return Admitted(
        fence=answer.fence,
        previous=answer.previous,
        seen=tuple(seen),
        snapshot_at=answer.snapshot_at,
        snapshot_owed=snapshot_owed,
        told_value_usd=told_value_usd,
    )


def orphan(row: Sequence[Any]) -> Orphan:
    return Orphan(operation=row[0], user_id=row[1], wallet=row[2], fence=row[3], attempt=row[4])


def closing(one: Orphan, told: Callable[[Orphan], Event] | None) -> dict[str, Any]:
    """What moonxd_close_orphans is given."""
    events = [] if told is None else [told(one)]
    return {"operation": one.operation, "user_id": one.user_id, "wallet": one.wallet, "events": events}


def portfolios(document: str, wallet: str) -> tuple[Portfolio, ...]:
    return tuple(
        Portfolio(
            user_id=view.user_id,
            wallet=wallet,
            holdings=view.holdings,
            total_value_usd=total(
                [row.value_usd for row in view.holdings if row.value_usd is not None and not row.is_spam]
            ),
            last_sync_at=view.last_sync_at,
            sync_status=view.sync_status,
            last_error=view.last_error,
        )
        for view in _decode_views(document)
    )


def history(document: str, wallet: str) -> tuple[PastPortfolio, ...]:
    return tuple(
        PastPortfolio(
            user_id=one.user_id,
            wallet=wallet,
            taken_at=one.taken_at,
            type=one.type,
            operation=one.operation,
            holdings=one.holdings,
            total_value_usd=total(
                [row.value_usd for row in one.holdings if row.value_usd is not None and not row.is_spam]
            ),
        )
        for one in _decode_history(document)
    )


def pruned(document: str) -> Pruned:
    return _decode_pruned(document)


def letters_where(queue: str, wanted: LetterFilter) -> tuple[str, list[Any]]:
    """The condition on moonxd_dead_letters, and its values."""
    clauses: list[tuple[str, Any]] = [
        ("queue = %s", queue),
        ("job_id = ANY(%s)", None if wanted.ids is None else [storable(one) for one in wanted.ids]),
        ("strpos(lower(reason), lower(%s)) > 0", wanted.reason),
        ("name = %s", wanted.name),
        ("user_id = %s", wanted.user),
        ("failed_at < %s", wanted.before),
        ("failed_at >= %s", wanted.since),
    ]
    given = [(clause, value) for clause, value in clauses if value is not None]
    return " AND ".join(clause for clause, _ in given), [value for _, value in given]


def _utc(at: datetime | None) -> datetime | None:
    # An older database may have columns without a zone; the session's is UTC.
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at


def operation(row: Sequence[Any]) -> Operation:
    return Operation(
        id=UUID(row[0]),
        user_id=row[1],
        wallet=row[2],
        type=row[3],
        status=row[4],
        priority=row[5],
        started_at=_utc(row[6]),
        completed_at=_utc(row[7]),
        duration_ms=None if row[8] is None else int(row[8]),
        tokens_synced=row[9] or 0,
        chains_synced=row[10] or 0,
        total_value_usd=None if row[11] is None else Decimal(row[11]),
        error=row[12],
        retry_count=row[13] or 0,
        worker_id=row[14],
        worker_version=row[15],
        metadata=msgspec.json.decode(row[16], type=dict[str, Any]) if row[16] else {},
    )


def stored_event(row: Sequence[Any]) -> StoredEvent:
    event = Event(id=row[1], type=row[2], topic=row[3], key=row[4], wallet=row[5], body=row[6].encode())
    return StoredEvent(position=row[0], event=event, created_at=row[7], published_at=row[8], parked=row[9])


def letter_row(letter: DeadLetter) -> list[Any]:
    """In the order of LETTER_COLUMNS."""
    return [
        storable(letter.queue),
        storable(letter.job_id),
        storable(letter.name),
        letter.timestamp,
        letter.data,
        storable_json(letter.options),
        storable(letter.reason),
        storable_json(letter.stack),
        letter.attempts_made,
        letter.failed_at,
        storable(letter.user_id),
        storable(letter.wallet),
    ]


def letter(row: Sequence[Any]) -> DeadLetter:
    return DeadLetter(
        queue=row[0],
        job_id=row[1],
        name=row[2],
        timestamp=row[3],
        data=bytes(row[4]),
        options=msgspec.json.decode(row[5], type=dict[str, Any]),
        reason=row[6],
        stack=msgspec.json.decode(row[7], type=tuple[str, ...]),
        attempts_made=row[8],
        failed_at=row[9],
        user_id=row[10],
        wallet=row[11],
    )
