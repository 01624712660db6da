"""1inch: a quote of its cross-chain swaps. It answers nobody without a key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from ...domain.breakers import Breakers
from ...domain.bridge import ASKING_ADDRESS, Route, Sight
from ..rpc import Endpoint, Transport
from ..upstream import Manners, Upstream
from .asking import Asker, seconds

_PATH = "/fusion-plus/quoter/v1.0/quote/receive"
_GRANTED = (30, 60.0)


class OneInch:
    """A `ports.BridgeProbe`."""

    provider = "1inch"

    def __init__(
        self,
        transport: Transport,
        breakers: Breakers,
        routes: Sequence[Route],
        *,
        base_url: str,
        api_key: str,
        timeout_s: float = 10.0,
    ) -> None:
        """Raises ConfigError when `base_url` cannot be used."""
        self.routes = tuple(routes)
        self._endpoint = Endpoint(base_url, headers={"Authorization": f"Bearer {api_key}"})
        manners = Manners(timeout_s=timeout_s, most=_GRANTED[0], window_s=_GRANTED[1])
        self._asker = Asker(transport, Upstream("stats/oneinch", breakers, manners), api_key)

    async def quote(self, route: Route) -> Sight:
        """See ports.BridgeProbe."""
        query = {
            "srcChain": route.sent.chain.id,
            "dstChain": route.received.chain.id,
            "srcTokenAddress": route.sent.address,
            "dstTokenAddress": route.received.address,
            "amount": route.amount,
            "walletAddress": ASKING_ADDRESS,
            "enableEstimate": "false",
            "source": "moonxd",
        }
        return await self._asker.sight(self._endpoint, self._endpoint.get(f"{_PATH}?{urlencode(query)}"), _quoted)


def _quoted(content: dict[str, Any]) -> float | None:
    """How long the auction of the recommended preset runs: whoever fills the order does so within it."""
    preset = content["presets"][content["recommendedPreset"]]
    return seconds(preset.get("auctionDuration"))
