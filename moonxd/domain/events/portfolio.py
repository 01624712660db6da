"""What a wallet holds, and what changed of it."""

from __future__ import annotations

from decimal import Decimal

from .envelope import Data


class Token(Data, frozen=True, kw_only=True):
    """One token of the wallet. Null is unknown, never zero."""

    chain_id: int
    #: Lower case; 0x0...0 is the chain's own coin.
    address: str
    symbol: str | None
    #: Whole tokens as text; null when the token does not say its scale.
    balance: str | None
    value_usd: Decimal | None
    #: Percent.
    change24h: Decimal | None = None


class TokenChange(Data, frozen=True, kw_only=True):
    """A token before and after; what was not there before, or is gone, is null on that side."""

    chain_id: int
    address: str
    symbol: str | None
    balance: str | None
    previous_balance: str | None
    value_usd: Decimal | None
    previous_value_usd: Decimal | None


class Changes(Data, frozen=True, kw_only=True):
    """Against the wallet's rows before this sync, in the order of chain and address."""

    #: Tokens that are new here.
    added: tuple[TokenChange, ...]
    #: Tokens that are gone, or turned out to be spam.
    removed: tuple[TokenChange, ...]
    #: Tokens whose balance, symbol or value is another one.
    changed: tuple[TokenChange, ...]
    #: Of the last portfolio.updated of this wallet; null: this is the first, or nobody remembers.
    previous_total_value_usd: Decimal | None


class PortfolioUpdated(Data, frozen=True, kw_only=True):
    """This wallet's portfolio as it stands now, without spam. Sent only when it really changed."""

    total_value_usd: Decimal
    total_tokens: int
    total_chains: int
    tokens: tuple[Token, ...]
    changes: Changes
    sync_duration: int
    updated_at: int
