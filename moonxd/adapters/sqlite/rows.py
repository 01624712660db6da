"""Between domain types and SQLite rows: amounts as decimal text, times as ISO text in UTC of one width."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from ...domain.ledger import DeadLetter, Event, Operation, StoredEvent, raw_balance, storable, storable_json
from ...domain.token import Holding

HOLDING_COLUMNS = (
    "chain_id, token_address, token_symbol, token_name, token_decimals, balance, balance_formatted, price_usd, "
    "value_usd, logo_url, is_spam, is_verified, alchemy_data"
)
OPERATION_COLUMNS = (
    "id, user_id, wallet_address, type, status, priority, started_at, completed_at, duration_ms, tokens_synced, "
    "chains_synced, total_value_usd, error_message, retry_count, worker_id, worker_version, metadata"
)
EVENT_COLUMNS = (
    "position, event_id, event_type, topic, event_key, wallet_address, body, created_at, published_at, parked"
)
LETTER_COLUMNS = (
    "queue, job_id, name, job_timestamp, data, options, reason, stack, attempts_made, failed_at, user_id, "
    "wallet_address"
)


def time_text(seconds: float) -> str:
    """Unix seconds as text that compares in the order of time."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


def time_of(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text is not None else None


def decimal_text(value: Decimal | None) -> str | None:
    return None if value is None else format(value, "f")


def decimal_of(text: str | None) -> Decimal | None:
    return Decimal(text) if text is not None else None


def mapping_of(text: str | None) -> dict[str, Any]:
    return msgspec.json.decode(text, type=dict[str, Any]) if text else {}


def holding_row(holding: Holding) -> tuple[Any, ...]:
    """In the order of HOLDING_COLUMNS."""
    return (
        holding.chain_id,
        holding.address,
        storable(holding.symbol),
        storable(holding.name),
        holding.decimals,
        str(holding.raw),
        decimal_text(holding.amount),
        decimal_text(holding.price_usd),
        decimal_text(holding.value_usd),
        storable(holding.logo),
        holding.is_spam,
        holding.is_verified,
        storable_json(holding.said) if holding.said else None,
    )


def holding_of(row: Sequence[Any]) -> Holding:
    return Holding(
        chain_id=row[0],
        address=row[1],
        symbol=row[2],
        name=row[3],
        decimals=row[4],
        raw=raw_balance(row[5]),
        amount=decimal_of(row[6]),
        price_usd=decimal_of(row[7]),
        value_usd=decimal_of(row[8]),
        logo=row[9],
        is_spam=bool(row[10]),
        is_verified=bool(row[11]),
        said=mapping_of(row[12]),
    )


def operation_of(row: Sequence[Any]) -> Operation:
    return Operation(
        id=UUID(row[0]),
        user_id=row[1],
        wallet=row[2],
        type=row[3],
        status=row[4],
        priority=row[5],
        started_at=time_of(row[6]),
        completed_at=time_of(row[7]),
        duration_ms=row[8],
        tokens_synced=row[9],
        chains_synced=row[10],
        total_value_usd=decimal_of(row[11]),
        error=row[12],
        retry_count=row[13],
        worker_id=row[14],
        worker_version=row[15],
        metadata=mapping_of(row[16]),
    )


def event_of(row: Sequence[Any]) -> StoredEvent:
    event = Event(id=UUID(row[1]), type=row[2], topic=row[3], key=row[4], wallet=row[5], body=row[6].encode())
    return StoredEvent(
        position=row[0],
        event=event,
        created_at=datetime.fromisoformat(row[7]),
        published_at=time_of(row[8]),
        parked=row[9],
    )


def letter_row(letter: DeadLetter) -> tuple[Any, ...]:
    """In the order of LETTER_COLUMNS."""
    return (
        letter.queue,
        letter.job_id,
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
    )


def letter_of(row: Sequence[Any]) -> DeadLetter:
    return DeadLetter(
        queue=row[0],
        job_id=row[1],
        name=row[2],
        timestamp=row[3],
        data=bytes(row[4]),
        options=mapping_of(row[5]),
        reason=row[6],
        stack=msgspec.json.decode(row[7], type=tuple[str, ...]),
        attempts_made=row[8],
        failed_at=row[9],
        user_id=row[10],
        wallet=row[11],
    )
