"""USD prices from DefiLlama's coins API, by chain and address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...domain.chain import CHAINS
from ...domain.token import Price, TokenRef
from ..rpc import Transport
from ..rpc.errors import RateLimited, TooLarge
from .asking import Asker, batches, number, usd

#: Coins per request: 258 were seen to work, beyond that the URL is too long for them.
_BATCH = 150
#: A batch this small that is still refused is not refused for its size.
_BATCH_MIN = 10
#: What a source says of a price without a confidence: they leave it out for coins that others price.
_UNSTATED = 0.5
#: How far back the last price may lie.
_SEARCH_WIDTH = "4h"


class LlamaPrices:
    """A `ports.PriceSource`. Prices whose confidence is under `min_confidence` count as unknown."""

    name = "defillama"
    most: int | None = None

    def __init__(
        self,
        transport: Transport,
        *,
        base_url: str = "https://coins.llama.fi",
        timeout_s: float = 10.0,
        min_confidence: float = 0.2,
    ) -> None:
        """Raises ConfigError when `base_url` cannot be used. `timeout_s` bounds each request."""
        self._asker = Asker(transport, base_url, timeout_s=timeout_s)
        self._min_confidence = min_confidence

    async def prices(self, tokens: Sequence[TokenRef]) -> Mapping[TokenRef, Price]:
        """See ports.PriceSource. All or nothing: an answer that came half would make the other half look unknown."""
        wanted = {_coin(token): token for token in tokens if token.chain_id in CHAINS}
        found: dict[TokenRef, Price] = {}
        pending = list(batches(sorted(wanted), _BATCH))
        while pending:
            batch = pending.pop()
            try:
                entries = await self._current(batch)
            except (TooLarge, RateLimited) as error:
                if len(batch) <= _BATCH_MIN or getattr(error, "retry_after", None):
                    raise
                pending += batches(batch, (len(batch) + 1) // 2)
                continue
            for coin, entry in entries.items():
                token = wanted.get(coin.lower()) if isinstance(coin, str) else None
                price = self._price(entry)
                if token is not None and price is not None:
                    found[token] = price
        return found

    async def _current(self, coins: Sequence[str]) -> Mapping[Any, Any]:
        document = await self._asker.get(f"/prices/current/{','.join(coins)}?searchWidth={_SEARCH_WIDTH}")
        entries = document.get("coins") if isinstance(document, dict) else None
        if not isinstance(entries, dict):
            raise self._asker.garbage("no coins")
        return entries

    def _price(self, entry: Any) -> Price | None:
        if not isinstance(entry, dict):
            return None
        value = usd(entry.get("price"))
        stated = entry.get("confidence")
        confidence = _UNSTATED if stated is None else number(stated, -1.0)
        if value is None or not self._min_confidence <= confidence <= 1.0:
            return None
        return Price(value, self.name, confidence, number(entry.get("timestamp"), 0.0))


def _coin(token: TokenRef) -> str:
    return f"{CHAINS[token.chain_id].llama}:{token.address}"
