"""USD prices from CoinGecko, by platform and contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...domain.address import NATIVE
from ...domain.token import Price, TokenRef
from ..rpc import Transport
from ..rpc.errors import HttpFailure, RateLimited, TooLarge
from .asking import Asker, batches, number, usd

_PLATFORMS = {
    1: "ethereum",
    56: "binance-smart-chain",
    137: "polygon-pos",
    10: "optimistic-ethereum",
    42161: "arbitrum-one",
    8453: "base",
}
#: Contracts per request; without a key they are said to allow one only, which is found out by their refusal.
_BATCH = 50
#: Requests of one look-up: what is left over is for the next one, once the first ones' prices are cached.
_REQUESTS_MAX = 20
#: They list what people trade, by hand.
_CONFIDENCE = 0.95


class CoinGeckoPrices:
    """A `ports.PriceSource` for contracts; native coins are left to others."""

    name = "coingecko"

    def __init__(
        self, transport: Transport, *, base_url: str, api_key: str | None = None, timeout_s: float = 10.0
    ) -> None:
        """Raises ConfigError when `base_url` cannot be used. `timeout_s` bounds each request."""
        plan = "pro" if "pro-api" in base_url else "demo"
        headers = {f"x-cg-{plan}-api-key": api_key} if api_key else {}
        self._asker = Asker(transport, base_url, timeout_s=timeout_s, headers=headers)
        self._batch = _BATCH

    @property
    def most(self) -> int | None:
        """Every platform may leave one request that is not full."""
        return (_REQUESTS_MAX - len(_PLATFORMS)) * self._batch

    async def prices(self, tokens: Sequence[TokenRef]) -> Mapping[TokenRef, Price]:
        """See ports.PriceSource."""
        found: dict[TokenRef, Price] = {}
        pending: list[tuple[int, Sequence[str]]] = []
        for chain_id in _PLATFORMS:
            held = sorted({token.address for token in tokens if token.chain_id == chain_id} - {NATIVE})
            pending += [(chain_id, batch) for batch in batches(held, self._batch)]
        asked = 0
        while pending:
            if asked == _REQUESTS_MAX:
                raise RateLimited(f"{self._asker.host}: {len(pending)} requests more would be too many at once")
            asked += 1
            chain_id, batch = pending.pop()
            try:
                entries = await self._ask(chain_id, batch)
            except (TooLarge, HttpFailure) as error:
                if len(batch) == 1 or (isinstance(error, HttpFailure) and error.status not in (400, 422)):
                    raise
                self._batch = (len(batch) + 1) // 2
                pending += [(chain_id, smaller) for smaller in batches(batch, self._batch)]
                continue
            for address in batch:
                price = self._price(entries.get(address))
                if price is not None:
                    found[TokenRef(chain_id, address)] = price
        return found

    async def _ask(self, chain_id: int, addresses: Sequence[str]) -> dict[str, Any]:
        entries = await self._asker.get(
            f"/simple/token_price/{_PLATFORMS[chain_id]}?contract_addresses={','.join(addresses)}"
            "&vs_currencies=usd&include_last_updated_at=true&precision=full"
        )
        if not isinstance(entries, dict):
            raise self._asker.garbage("no object")
        return {str(address).lower(): entry for address, entry in entries.items()}

    def _price(self, entry: Any) -> Price | None:
        value = usd(entry.get("usd")) if isinstance(entry, dict) else None
        return (
            None if value is None else Price(value, self.name, _CONFIDENCE, number(entry.get("last_updated_at"), 0.0))
        )
