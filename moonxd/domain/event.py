"""The events other programs read from Kafka, built here in one place. Shapes are the contract's (docs/contract.md).

An event's id derives from its operation, so a redelivered job repeats ids instead of inventing new ones.
`sequence` and `partition` of the envelope are the relay's to add: only it knows the order of publication.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from .ledger import Event
from .operation import event_id, operation_id
from .token import Holding

SOURCE = "moonxd"
EVENT_VERSION = "1.0"
SYNC_EVENTS = "sync.events"
PORTFOLIO_UPDATES = "portfolio.updates"
SYSTEM_ALERTS = "system.alerts"
#: Key of events that are about no user.
SYSTEM = "system"

#: Values in USD are JSON numbers for the programs that read them; balances are strings.
JSON = msgspec.json.Encoder(decimal_format="number")


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What an event is about: one operation on one user's wallet, told at `at_ms` by `version`."""

    operation: UUID
    user_id: str
    wallet: str
    version: str
    at_ms: int


def started(about: Subject, *, attempt: int, sync_type: str, chains: Sequence[int]) -> Event:
    return _event(about, "sync.started", {"syncType": sync_type, "chains": list(chains)}, str(attempt))


def completed(about: Subject, *, result: dict[str, Any]) -> Event:
    data = {key: result[key] for key in ("processingTime", "tokensSync", "chainsSync", "totalValueUsd", "success")}
    return _event(about, "sync.completed", data | {"completedAt": about.at_ms})


def retrying(about: Subject, *, attempt: int, error: str, duration_ms: int, delay_ms: int) -> Event:
    data = {"error": error, "processingTime": duration_ms, "retryCount": attempt, "retryAt": about.at_ms + delay_ms}
    return _event(about, "sync.retrying", data, str(attempt))


def failed(about: Subject, *, attempt: int, error: str, duration_ms: int) -> Event:
    data = {"error": error, "processingTime": duration_ms, "retryCount": attempt - 1, "failedAt": about.at_ms}
    return _event(about, "sync.failed", data, str(attempt))


def cancelled(about: Subject, *, attempt: int, reason: str, duration_ms: int) -> Event:
    data = {"reason": reason, "processingTime": duration_ms, "cancelledAt": about.at_ms}
    return _event(about, "sync.cancelled", data, str(attempt))


def rejected(about: Subject, *, reason: str) -> Event:
    return _event(about, "sync.rejected", {"reason": reason, "rejectedAt": about.at_ms})


def alert(
    kind: str, message: str, *, severity: str, service: str, version: str, at_ms: int, metadata: dict[str, Any]
) -> Event:
    """`severity`: info | warning | critical. Told twice by one service in one millisecond it is one alert."""
    about = Subject(
        operation=operation_id("system.alert", f"{service}\0{kind}", at_ms),
        user_id=SYSTEM,
        wallet="",
        version=version,
        at_ms=at_ms,
    )
    data = {"alertType": kind, "message": message, "severity": severity, "service": service, "metadata": metadata}
    return _event(about, "system.alert", data, topic=SYSTEM_ALERTS)


def portfolio_updated(
    about: Subject, *, holdings: Sequence[Holding], total_value_usd: Decimal, duration_ms: int
) -> Event:
    """The wallet's portfolio as it stands now; spam is left out, as from the totals."""
    shown = [row for row in holdings if not row.is_spam]
    data = {
        "totalValueUsd": total_value_usd,
        "totalTokens": len(shown),
        "totalChains": len({row.chain_id for row in shown}),
        "tokens": [_token(row) for row in shown],
        "syncDuration": duration_ms,
        "updatedAt": about.at_ms,
    }
    return _event(about, "portfolio.updated", data, topic=PORTFOLIO_UPDATES)


def _token(row: Holding) -> dict[str, Any]:
    return {
        "chainId": row.chain_id,
        "address": row.address,
        "symbol": row.symbol,
        "balance": None if row.amount is None else format(row.amount, "f"),
        "valueUsd": row.value_usd,
        "change24h": None,
    }


def _event(
    about: Subject, event_type: str, data: dict[str, Any], discriminator: str = "", *, topic: str = SYNC_EVENTS
) -> Event:
    identity = event_id(about.operation, event_type, discriminator)
    metadata = {
        "eventId": str(identity),
        "eventType": event_type,
        "eventVersion": EVENT_VERSION,
        "correlationId": str(about.operation),
        "timestamp": about.at_ms,
        "source": SOURCE,
        "sourceVersion": about.version,
        "userId": about.user_id,
        "dataClassification": "internal",
    }
    body = {
        "metadata": metadata,
        "userId": about.user_id,
        "walletAddress": about.wallet,
        "type": event_type,
        "data": data,
    }
    return Event(
        id=identity, type=event_type, topic=topic, key=about.user_id, wallet=about.wallet, body=JSON.encode(body)
    )
