"""Lets attempts that run side by side share what they ask of a chain: each asks for its wallet, one asks for all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from ..domain.chain import Chain
from ..domain.errors import MoonxdError, Transient
from ..domain.portfolio import PriceLookup, unpriced
from ..domain.token import ChainSnapshot, TokenRef
from ..ports import ManyReader

Prices = Callable[[Sequence[TokenRef]], Awaitable[PriceLookup]]


class _Ask:
    """One wallet's question. Its answer is a snapshot or an error."""

    __slots__ = ("answer", "answered", "refresh", "seen", "wallet")

    def __init__(self, wallet: str, seen: Sequence[str], refresh: bool) -> None:
        self.wallet = wallet
        self.seen = seen
        self.refresh = refresh
        self.answered = trio.Event()
        self.answer: ChainSnapshot | MoonxdError = Transient("the shared read ended without an answer")


class Gatherer:
    """A ports.ChainReader for `expected` attempts: their reads wait for each other and go out together.

    Each attempt must `leave()` once when it ends, whether it read or not; `run()` does the reading. The prices of all
    that was found are looked up together too: the attempts find them in the cache.
    """

    def __init__(self, reader: ManyReader, prices: Prices, expected: int) -> None:
        self._reader = reader
        self._prices = prices
        self._outstanding = expected
        self._asks: list[_Ask] = []
        self._news = trio.Event()

    @property
    def chain(self) -> Chain:
        return self._reader.chain

    async def read(self, wallet: str, seen: Sequence[str], *, refresh_metadata: bool = False) -> ChainSnapshot:
        """See ports.ChainReader."""
        ask = _Ask(wallet, seen, refresh_metadata)
        self._asks.append(ask)
        self._tell()
        try:
            await ask.answered.wait()
        except trio.Cancelled:
            if ask in self._asks:
                self._asks.remove(ask)
            raise
        if isinstance(ask.answer, MoonxdError):
            raise ask.answer
        return ask.answer

    def leave(self) -> None:
        """One attempt has ended."""
        self._outstanding -= 1
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    async def run(self) -> None:
        """Until every attempt has left: read for all as soon as all that are left have asked."""
        while self._outstanding > 0:
            if len(self._asks) < self._outstanding:
                await self._news.wait()
                continue
            asks, self._asks = self._asks, []
            try:
                await self._answer(asks)
            finally:
                for ask in asks:
                    ask.answered.set()
            await trio.lowlevel.checkpoint()

    async def _answer(self, asks: Sequence[_Ask]) -> None:
        wallets = [(ask.wallet, ask.seen) for ask in asks]
        try:
            snapshots = await self._reader.read_many(wallets, refresh_metadata=any(ask.refresh for ask in asks))
        except MoonxdError as error:
            for ask in asks:
                ask.answer = error
            return
        await self._prices(tuple(dict.fromkeys(unpriced(snapshots))))
        for ask, snapshot in zip(asks, snapshots, strict=True):
            ask.answer = snapshot
