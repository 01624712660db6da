"""Tokens, balances, prices and holdings as they travel from the chains to the ledger."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, NamedTuple

import msgspec


class TokenRef(NamedTuple):
    """A token's identity: chain id and lower-case address (address.NATIVE for the chain's coin)."""

    chain_id: int
    address: str


class TokenMeta(msgspec.Struct, frozen=True):
    """What a token says of itself. `decimals` None means it would not say: such a token is never priced."""

    symbol: str | None
    name: str | None
    decimals: int | None
    logo: str | None = None
    #: The symbol or name held invisible or direction-changing characters, stripped here: a mark of spam.
    disguised: bool = False


class TokenBalance(msgspec.Struct, frozen=True):
    """One balance read from a chain: `raw` is in base units, 0 <= raw < 2**256."""

    token: TokenRef
    raw: int
    meta: TokenMeta
    #: On a curated token list of ours or of the operator's.
    verified: bool = False
    #: What the source said beside the balance, kept for readers (the column `alchemy_data`). Never a URL or a key.
    said: dict[str, Any] = msgspec.field(default_factory=dict)


class ChainSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One wallet's balances on one chain, native coin included; zero balances are left out."""

    chain_id: int
    #: Lowest and highest block the balances were read at; equal when everything was pinned to one block.
    block_low: int
    block_high: int
    balances: tuple[TokenBalance, ...]
    #: "alchemy" or "multicall".
    source: str
    #: False when the source can only see tokens it was asked for (a token list and those seen before).
    discovers: bool
    #: Tokens that could not be read and why; their last good rows stay.
    quarantined: dict[str, str] = msgspec.field(default_factory=dict)


class ChainFailure(msgspec.Struct, frozen=True):
    """A chain that could not be read: its last good holdings stay, and the result names it."""

    chain_id: int
    reason: str
    #: False when trying again cannot help (a refused key, a wrong chain id).
    transient: bool = True
    #: Seconds until it makes sense to ask again, when that is known: its breaker is open, its limit used up.
    retry_after: float | None = None


class Price(msgspec.Struct, frozen=True):
    """USD for one whole token. `confidence` is the source's own 0..1; `at` is unix seconds of the observation."""

    usd: Decimal
    source: str
    confidence: float
    at: float


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a portfolio. None means unknown, never zero and never a guess."""

    chain_id: int
    address: str
    symbol: str | None
    name: str | None
    decimals: int | None
    raw: int
    amount: Decimal | None
    price_usd: Decimal | None
    value_usd: Decimal | None
    logo: str | None = None
    is_spam: bool = False
    is_verified: bool = False
    said: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def token(self) -> TokenRef:
        return TokenRef(self.chain_id, self.address)
