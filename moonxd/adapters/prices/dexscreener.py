"""USD prices from DexScreener: of each token's pairs the one with the deepest pool."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...domain.address import NATIVE
from ...domain.pricing import liquidity_confidence
from ...domain.token import Price, TokenRef
from ..rpc import Transport
from .asking import Asker, batches, number, usd

_CHAINS = {1: "ethereum", 56: "bsc", 137: "polygon", 10: "optimism", 42161: "arbitrum", 8453: "base"}
_BATCH = 30
#: Requests of one look-up, of the 300 a minute that they allow.
_REQUESTS_MAX = 20


class DexScreenerPrices:
    """A `ports.PriceSource` for contracts. How far a price is trusted follows from the pool it comes from."""

    name = "dexscreener"
    #: Every chain may leave one request that is not full.
    most: int | None = (_REQUESTS_MAX - len(_CHAINS)) * _BATCH

    def __init__(
        self, transport: Transport, *, base_url: str, timeout_s: float = 5.0, now: Callable[[], float] = time.time
    ) -> None:
        """Raises ConfigError when `base_url` cannot be used. `timeout_s` bounds each request."""
        self._asker = Asker(transport, base_url.rstrip("/").removesuffix("/latest"), timeout_s=timeout_s)
        self._now = now

    async def prices(self, tokens: Sequence[TokenRef]) -> Mapping[TokenRef, Price]:
        """See ports.PriceSource."""
        asks = [
            (chain_id, batch)
            for chain_id in _CHAINS
            for batch in batches(sorted({t.address for t in tokens if t.chain_id == chain_id} - {NATIVE}), _BATCH)
        ]
        found: dict[TokenRef, Price] = {}
        for chain_id, batch in asks:
            pairs = await self._asker.get(f"/tokens/v1/{_CHAINS[chain_id]}/{','.join(batch)}")
            if not isinstance(pairs, list):
                raise self._asker.garbage("no list of pairs")
            best = self._deepest(pairs, _CHAINS[chain_id])
            found |= {TokenRef(chain_id, address): best[address] for address in batch if address in best}
        return found

    def _deepest(self, pairs: Sequence[Any], chain: str) -> dict[str, Price]:
        pools: dict[str, float] = {}
        prices: dict[str, Price] = {}
        for pair in pairs:
            try:
                # The price is the base token's; pairs with our token on the other side are about somebody else.
                address = pair["baseToken"]["address"].lower()
                pool = number((pair.get("liquidity") or {}).get("usd"), 0.0)
                value, place = usd(pair.get("priceUsd")), pair.get("chainId")
            except (KeyError, TypeError, AttributeError):
                continue
            confidence = liquidity_confidence(pool)
            if place == chain and value is not None and confidence is not None and pool > pools.get(address, 0.0):
                pools[address], prices[address] = pool, Price(value, self.name, confidence, self._now())
        return prices
