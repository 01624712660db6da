"""Across: GET /suggested-fees, which its makers call legacy; off unless it is switched on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from ...domain.breakers import Breakers
from ...domain.bridge import Route, Sight
from ..rpc import Endpoint, Transport
from ..upstream import Manners, Upstream
from .asking import Asker, NoQuote, seconds

_GRANTED = (30, 60.0)
#: Its names for how long a transfer takes.
_TIMES = ("estimatedFillTimeSec", "expectedFillTimeSec")


class Across:
    """A `ports.BridgeProbe`."""

    provider = "Across"

    def __init__(
        self,
        transport: Transport,
        breakers: Breakers,
        routes: Sequence[Route],
        *,
        base_url: str,
        timeout_s: float = 10.0,
    ) -> None:
        """Raises ConfigError when `base_url` cannot be used."""
        self.routes = tuple(routes)
        self._endpoint = Endpoint(base_url)
        manners = Manners(timeout_s=timeout_s, most=_GRANTED[0], window_s=_GRANTED[1])
        self._asker = Asker(transport, Upstream("stats/across", breakers, manners), None)

    async def quote(self, route: Route) -> Sight:
        """See ports.BridgeProbe."""
        query = {
            "inputToken": route.sent.address,
            "outputToken": route.received.address,
            "originChainId": route.sent.chain.id,
            "destinationChainId": route.received.chain.id,
            "amount": route.amount,
        }
        request = self._endpoint.get(f"/suggested-fees?{urlencode(query)}")
        return await self._asker.sight(self._endpoint, request, _quoted)


def _quoted(content: dict[str, Any]) -> float | None:
    if content.get("isAmountTooLow") is True:
        raise NoQuote("the amount is too low")
    if not isinstance(content["totalRelayFee"], dict):
        raise TypeError("no fee")
    return seconds(next((content[name] for name in _TIMES if name in content), None))
