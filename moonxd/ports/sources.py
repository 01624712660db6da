"""Where balances and prices come from, and what they may cost. The rules are those of the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from ..domain.chain import Chain
from ..domain.quota import Charge
from ..domain.token import ChainSnapshot, Price, TokenMeta, TokenRef


class ChainReader(Protocol):
    """Reads wallets on one chain."""

    @property
    def chain(self) -> Chain: ...

    async def read(self, wallet: str, seen: Sequence[str], *, refresh_metadata: bool = False) -> ChainSnapshot:
        """The wallet's balances; `seen` are token addresses to look at besides those the reader finds itself.

        Raises Transient or Permanent when the chain as a whole could not be read; never an empty snapshot instead.
        """
        ...


@runtime_checkable
class ManyReader(ChainReader, Protocol):
    """A chain reader that can share its requests between wallets."""

    async def read_many(
        self, wallets: Sequence[tuple[str, Sequence[str]]], *, refresh_metadata: bool = False
    ) -> tuple[ChainSnapshot, ...]:
        """As `read` for each (wallet, seen), all at one block, in the order given; raises for all of them or none."""
        ...


@runtime_checkable
class TokenReader(ChainReader, Protocol):
    """A chain reader that can ask tokens what they are."""

    async def describe(self, tokens: Sequence[str]) -> Mapping[str, TokenMeta]:
        """What each address says of itself now (unknown parts None), remembered for later reads."""
        ...


class PriceSource(Protocol):
    """Prices from one vendor, batched."""

    @property
    def name(self) -> str: ...

    @property
    def most(self) -> int | None:
        """How many tokens one call may ask about; None: any number."""
        ...

    async def prices(self, tokens: Sequence[TokenRef]) -> Mapping[TokenRef, Price]:
        """What the source knows of at most `most` tokens; unknown ones are absent.

        Raises Transient when the source as a whole is away.
        """
        ...


class Quota(Protocol):
    """Budgets of requests or other units that providers grant, shared by whoever shares the quota."""

    async def take(self, charges: Sequence[Charge]) -> float:
        """Take all of the charges, or none: 0 when taken, else the seconds until they may fit. Never raises."""
        ...


class Cache(Protocol):
    """A shared cache; losing it costs time, never truth. Keys are our own, values opaque bytes."""

    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes]: ...

    async def put_many(self, entries: Mapping[str, bytes], ttl_s: float) -> None: ...
