"""LI.FI: GET /quote. Without a key it grants 200 requests in two hours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from ...domain.breakers import Breakers
from ...domain.bridge import ASKING_ADDRESS, Route, Sight
from ..rpc import Endpoint, Transport
from ..rpc.errors import Garbage
from ..upstream import Kept, Manners, Upstream
from .asking import Asker, not_served, seconds

#: Somewhat less than they grant: what is left is for others behind the same address.
KEYLESS = (180, 7200.0)
KEYED = (150, 60.0)
_CHAINS_S = 3600.0
_CHAINS_TIMEOUT_S = 3.0


class LiFi:
    """A `ports.BridgeProbe`."""

    provider = "LI.FI"

    def __init__(
        self,
        transport: Transport,
        breakers: Breakers,
        routes: Sequence[Route],
        *,
        base_url: str,
        api_key: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        """Raises ConfigError when `base_url` cannot be used."""
        self.routes = tuple(routes)
        headers = {"x-lifi-api-key": api_key} if api_key else {}
        self._endpoint = Endpoint(base_url, headers=headers)
        most, window_s = KEYED if api_key else KEYLESS
        upstream = Upstream("stats/lifi", breakers, Manners(timeout_s=timeout_s, most=most, window_s=window_s))
        self._asker = Asker(transport, upstream, api_key)
        self._chains = Kept(self._fetch_chains, ttl_s=_CHAINS_S)

    async def quote(self, route: Route) -> Sight:
        """See ports.BridgeProbe."""
        unserved = not_served(route, await self._chains.get(), self._endpoint.host)
        if unserved is not None:
            return unserved
        query = {
            "fromChain": route.sent.chain.id,
            "toChain": route.received.chain.id,
            "fromToken": route.sent.address,
            "toToken": route.received.address,
            "fromAmount": route.amount,
            "fromAddress": ASKING_ADDRESS,
            "integrator": "moonxd",
            "skipSimulation": "true",
        }
        return await self._asker.sight(self._endpoint, self._endpoint.get(f"/quote?{urlencode(query)}"), _quoted)

    async def _fetch_chains(self) -> frozenset[int]:
        request = self._endpoint.get("/chains?chainTypes=EVM")
        answer = await self._asker.upstream.aside(
            lambda deadline: self._asker.answer(self._endpoint, request, deadline), timeout_s=_CHAINS_TIMEOUT_S
        )
        try:
            return frozenset(int(row["id"]) for row in answer.content["chains"])
        except (LookupError, TypeError, ValueError) as error:
            raise Garbage(f"{self._endpoint.host}: answered garbage: no list of chains") from error


def _quoted(content: dict[str, Any]) -> float | None:
    return seconds(content["estimate"].get("executionDuration"))
