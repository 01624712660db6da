"""USD prices from DefiLlama's coins API, by chain and address."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NoReturn

import trio

from ...domain import money
from ...domain.chain import CHAINS
from ...domain.token import Price, TokenRef
from ..rpc import Endpoint, Transport
from ..rpc.errors import Garbage, HttpFailure, RateLimited, TooLarge
from ..rpc.wire import Reply

#: Coins per request: 258 were seen to work, beyond that the URL is too long for them.
_BATCH = 150
#: A batch this small that is still refused is not refused for its size.
_BATCH_MIN = 10
#: What a source says of a price without a confidence: they leave it out for coins that others price.
_UNSTATED = 0.5
#: Digits and magnitude beyond these are mistakes, and would overflow what is computed from them.
_DIGITS = 60
_MAGNITUDE = 30
#: How far back the last price may lie.
_SEARCH_WIDTH = "4h"


class LlamaPrices:
    """A `ports.PriceSource`. Prices whose confidence is under `min_confidence` count as unknown."""

    name = "defillama"

    def __init__(
        self,
        transport: Transport,
        *,
        base_url: str = "https://coins.llama.fi",
        timeout_s: float = 10.0,
        min_confidence: float = 0.2,
    ) -> None:
        """Raises ConfigError when `base_url` cannot be used. `timeout_s` bounds each request."""
        self._transport = transport
        self._endpoint = Endpoint(base_url)
        self._timeout_s = timeout_s
        self._min_confidence = min_confidence

    async def prices(self, tokens: Sequence[TokenRef]) -> Mapping[TokenRef, Price]:
        """See ports.PriceSource. All or nothing: an answer that came half would make the other half look unknown."""
        wanted = {_coin(token): token for token in tokens if token.chain_id in CHAINS}
        found: dict[TokenRef, Price] = {}
        pending = list(_batches(sorted(wanted), _BATCH))
        while pending:
            batch = pending.pop()
            try:
                entries = await self._current(batch)
            except (TooLarge, RateLimited) as error:
                if len(batch) <= _BATCH_MIN or getattr(error, "retry_after", None):
                    raise
                pending += _batches(batch, (len(batch) + 1) // 2)
                continue
            for coin, entry in entries.items():
                token = wanted.get(coin.lower()) if isinstance(coin, str) else None
                price = self._price(entry)
                if token is not None and price is not None:
                    found[token] = price
        return found

    async def _current(self, coins: Sequence[str]) -> Mapping[Any, Any]:
        request = self._endpoint.get(f"/prices/current/{','.join(coins)}?searchWidth={_SEARCH_WIDTH}")
        deadline = trio.current_time() + self._timeout_s
        reply = await self._transport.request(self._endpoint, request, deadline=deadline)
        if reply.status != 200:
            self._refused(reply)
        try:
            document = json.loads(reply.body, parse_float=Decimal)
            entries = document["coins"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Garbage(f"{self._endpoint.host}: answered garbage to a price request") from error
        if not isinstance(entries, dict):
            raise Garbage(f"{self._endpoint.host}: answered garbage to a price request: no coins")
        return entries

    def _refused(self, reply: Reply) -> NoReturn:
        where = f"{self._endpoint.host} answered a price request with HTTP {reply.status}"
        if reply.status == 429:
            raise RateLimited(where, retry_after=reply.retry_after)
        if reply.status in (413, 414):
            raise TooLarge(where)
        raise HttpFailure(where, status=reply.status, retry_after=reply.retry_after)

    def _price(self, entry: Any) -> Price | None:
        if not isinstance(entry, dict):
            return None
        usd = _usd(entry.get("price"))
        stated = entry.get("confidence")
        confidence = _UNSTATED if stated is None else _number(stated, -1.0)
        if usd is None or not self._min_confidence <= confidence <= 1.0:
            return None
        return Price(usd, self.name, confidence, _number(entry.get("timestamp"), 0.0))


def _coin(token: TokenRef) -> str:
    return f"{CHAINS[token.chain_id].llama}:{token.address}"


def _batches(coins: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (coins[start : start + size] for start in range(0, len(coins), size))


def _usd(given: Any) -> Decimal | None:
    """A positive finite price of sane size, or None. Python's JSON reads booleans, NaN and infinities: none of them."""
    if isinstance(given, bool) or not isinstance(given, (int, str, Decimal)):
        return None
    price = money.parse_price(given)
    if price is None or abs(price.adjusted()) > _MAGNITUDE or len(price.as_tuple().digits) > _DIGITS:
        return None
    return price


def _number(given: Any, default: float) -> float:
    if isinstance(given, bool) or not isinstance(given, (int, Decimal)):
        return default
    try:
        return float(given)
    except (OverflowError, ValueError):
        return default
