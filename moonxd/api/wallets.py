"""What the API says of wallets: holdings, their history, and the audit trail."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from .messages import Message


class HoldingView(Message, frozen=True, kw_only=True):
    """`balance` is in base units, as text; None means unknown, never zero."""

    chain_id: int
    chain: str
    address: str
    symbol: str | None
    name: str | None
    decimals: int | None
    balance: str
    amount: Decimal | None
    price_usd: Decimal | None
    value_usd: Decimal | None
    is_spam: bool
    is_verified: bool


class PortfolioView(Message, frozen=True, kw_only=True):
    """One user's view of a wallet; spam and unpriced holdings are left out of the total."""

    user_id: str
    wallet: str
    total_value_usd: Decimal
    last_sync_at: datetime | None
    sync_status: str | None
    last_error: str | None
    holdings: tuple[HoldingView, ...]


class PortfolioReply(Message, frozen=True, kw_only=True):
    wallet: str
    portfolios: tuple[PortfolioView, ...]


class PastView(Message, frozen=True, kw_only=True):
    """A wallet as one sync found it. `type`: sync | scheduled | manual | auto."""

    user_id: str
    taken_at: datetime
    type: str
    operation: UUID | None
    total_value_usd: Decimal
    holdings: tuple[HoldingView, ...]


class HistoryReply(Message, frozen=True, kw_only=True):
    """Newest first."""

    wallet: str
    snapshots: tuple[PastView, ...]


class OperationView(Message, frozen=True, kw_only=True):
    """A row of `sync_operations`."""

    id: UUID
    user_id: str
    wallet_address: str
    type: str
    status: str
    priority: str
    started_at: datetime | None
    completed_at: datetime | None
    #: Milliseconds.
    duration: int | None
    tokens_sync: int
    chains_sync: int
    total_value_usd: Decimal | None
    error: str | None
    retry_count: int
    worker_id: str | None
    metadata: dict[str, Any]


class Operations(Message, frozen=True, kw_only=True):
    operations: tuple[OperationView, ...]
