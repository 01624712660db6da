"""USD prices of native coins and majors from Binance's spot market, in USDT."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from urllib.parse import quote

from ...domain.address import NATIVE
from ...domain.chain import CHAINS
from ...domain.token import Price, TokenRef
from ..rpc import Transport
from ..rpc.errors import HttpFailure
from .asking import Asker, usd

#: What a symbol on a curated list is traded as.
_MARKETS = {
    "ETH": "ETHUSDT", "WETH": "ETHUSDT", "BNB": "BNBUSDT", "WBNB": "BNBUSDT", "POL": "POLUSDT", "WPOL": "POLUSDT",
    "WMATIC": "POLUSDT", "WBTC": "BTCUSDT", "BTCB": "BTCUSDT", "LINK": "LINKUSDT", "UNI": "UNIUSDT",
    "AAVE": "AAVEUSDT", "ARB": "ARBUSDT", "OP": "OPUSDT",
}  # fmt: skip
#: The deepest market there is, but a tether is no dollar.
_CONFIDENCE = 0.95


class BinancePrices:
    """A `ports.PriceSource`. `listed` gives the symbols of tokens on a curated list; other tokens are unknown here."""

    name = "binance"
    most: int | None = None

    def __init__(
        self,
        transport: Transport,
        *,
        base_url: str,
        timeout_s: float = 5.0,
        listed: Mapping[TokenRef, str | None],
        now: Callable[[], float] = time.time,
    ) -> None:
        """Raises ConfigError when `base_url` cannot be used. `timeout_s` bounds each request."""
        self._asker = Asker(transport, base_url, timeout_s=timeout_s)
        self._listed = listed
        self._now = now
        #: Markets that they turned out not to have: one of them fails the whole request.
        self._absent: set[str] = set()

    async def prices(self, tokens: Sequence[TokenRef]) -> Mapping[TokenRef, Price]:
        """See ports.PriceSource."""
        wanted = {token: market for token in tokens if (market := self._market(token)) is not None}
        markets = sorted({*wanted.values()} - self._absent)
        if not markets:
            return {}
        try:
            values = await self._ask(markets)
        except HttpFailure as error:
            if error.status != 400:
                raise
            values = await self._ask_singly(markets)
        at = self._now()
        return {
            token: Price(values[market], self.name, _CONFIDENCE, at)
            for token, market in wanted.items()
            if market in values
        }

    def _market(self, token: TokenRef) -> str | None:
        if token.address == NATIVE:
            chain = CHAINS.get(token.chain_id)
            return None if chain is None else _MARKETS.get(chain.symbol)
        return _MARKETS.get((self._listed.get(token) or "").upper())

    async def _ask(self, markets: Sequence[str]) -> dict[str, Decimal]:
        question = quote(json.dumps(list(markets), separators=(",", ":")), safe="")
        rows = await self._asker.get(f"/api/v3/ticker/price?symbols={question}")
        try:
            read = {row["symbol"]: usd(row["price"]) for row in rows}
        except (TypeError, KeyError) as error:
            raise self._asker.garbage("no list of prices") from error
        return {market: value for market, value in read.items() if value is not None}

    async def _ask_singly(self, markets: Sequence[str]) -> dict[str, Decimal]:
        values: dict[str, Decimal] = {}
        for market in markets:
            try:
                values |= await self._ask([market])
            except HttpFailure as error:
                if error.status != 400:
                    raise
                self._absent.add(market)
        return values
