"""USD prices from Alchemy's prices API, by network and contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ...domain.address import NATIVE
from ...domain.chain import CHAINS
from ...domain.token import Price, TokenRef
from ..rpc import Transport
from .asking import Asker, batches, usd

#: Addresses and networks of one request.
_BATCH = 25
_NETWORKS = 3
#: Requests of one look-up: a free key has 300 an hour.
_REQUESTS_MAX = 4
#: From decentralised markets only.
_CONFIDENCE = 0.9
_BY_NETWORK = {chain.alchemy: chain.id for chain in CHAINS.values()}


class AlchemyPrices:
    """A `ports.PriceSource` for contracts; native coins are left to others."""

    name = "alchemy"
    #: Both groups of networks may leave one request that is not full.
    most: int | None = (_REQUESTS_MAX - 1) * _BATCH

    def __init__(self, transport: Transport, *, base_url: str, api_key: str, timeout_s: float = 10.0) -> None:
        """Raises ConfigError when `base_url` cannot be used. `timeout_s` bounds each request."""
        url = f"{base_url.rstrip('/')}/{api_key}/tokens/by-address"
        self._asker = Asker(transport, url, timeout_s=timeout_s)

    async def prices(self, tokens: Sequence[TokenRef]) -> Mapping[TokenRef, Price]:
        """See ports.PriceSource."""
        wanted = sorted({token for token in tokens if token.chain_id in CHAINS and token.address != NATIVE})
        found: dict[TokenRef, Price] = {}
        for batch in _requests(wanted):
            addresses = [{"network": CHAINS[chain_id].alchemy, "address": address} for chain_id, address in batch]
            answer = await self._asker.post({"addresses": addresses})
            rows = answer.get("data") if isinstance(answer, dict) else None
            if not isinstance(rows, list):
                raise self._asker.garbage("no data")
            found |= {token: price for row in rows if (token := _token(row)) and (price := self._price(row))}
        return {token: found[token] for token in wanted if token in found}

    def _price(self, row: Any) -> Price | None:
        # A token they do not know has an error and no prices; one they know has no error, or none that is set.
        try:
            entry = next(one for one in row["prices"] if str(one["currency"]).lower() == "usd")
            value, said = usd(entry["value"]), entry.get("lastUpdatedAt")
        except (KeyError, TypeError, StopIteration):
            return None
        return None if value is None else Price(value, self.name, _CONFIDENCE, _unix(said))


def _requests(tokens: Sequence[TokenRef]) -> list[Sequence[TokenRef]]:
    chains = sorted({token.chain_id for token in tokens})
    groups = [[t for t in tokens if t.chain_id in three] for three in batches(chains, _NETWORKS)]
    return [batch for group in groups for batch in batches(group, _BATCH)]


def _token(row: Any) -> TokenRef | None:
    try:
        return TokenRef(_BY_NETWORK[row["network"]], row["address"].lower())
    except (KeyError, TypeError, AttributeError):
        return None


def _unix(said: Any) -> float:
    try:
        return datetime.fromisoformat(said).timestamp()
    except (TypeError, ValueError):
        return 0.0
