"""Relay.link: POST /quote/v2. It grants 50 quotes a minute without a key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ...domain.breakers import Breakers
from ...domain.bridge import ASKING_ADDRESS, Route, Sight
from ..rpc import Endpoint, Transport
from ..rpc.errors import Garbage
from ..upstream import Kept, Manners, Upstream
from .asking import Asker, not_served, seconds

_GRANTED = (40, 60.0)
#: It switches chains off while they are in trouble: this is looked at more often than it changes.
_CHAINS_S = 300.0
_CHAINS_TIMEOUT_S = 3.0


class Relay:
    """A `ports.BridgeProbe`."""

    provider = "Relay.link"

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
        self._base = Endpoint(base_url)
        self._quote = Endpoint(f"{base_url.rstrip('/')}/quote/v2")
        upstream = Upstream(
            "stats/relay", breakers, Manners(timeout_s=timeout_s, most=_GRANTED[0], window_s=_GRANTED[1])
        )
        self._asker = Asker(transport, upstream, None)
        self._open = Kept(self._fetch_open, ttl_s=_CHAINS_S)

    async def quote(self, route: Route) -> Sight:
        """See ports.BridgeProbe."""
        unserved = not_served(route, await self._open.get(), self._base.host)
        if unserved is not None:
            return unserved
        question = {
            "user": ASKING_ADDRESS,
            "originChainId": route.sent.chain.id,
            "destinationChainId": route.received.chain.id,
            "originCurrency": route.sent.address,
            "destinationCurrency": route.received.address,
            "amount": str(route.amount),
            "tradeType": "EXACT_INPUT",
            "referrer": "moonxd",
        }
        return await self._asker.sight(self._quote, self._quote.post(msgspec.json.encode(question)), _quoted)

    async def _fetch_open(self) -> frozenset[int]:
        """The chains that are neither switched off nor closed for deposits."""
        request = self._base.get("/chains")
        answer = await self._asker.upstream.aside(
            lambda deadline: self._asker.answer(self._base, request, deadline), timeout_s=_CHAINS_TIMEOUT_S
        )
        try:
            return frozenset(
                int(row["id"])
                for row in answer.content["chains"]
                if not row.get("disabled") and row.get("depositEnabled", True)
            )
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise Garbage(f"{self._base.host}: answered garbage: no list of chains") from error


def _quoted(content: dict[str, Any]) -> float | None:
    if not isinstance(content["steps"], list):
        raise TypeError("no steps")
    return seconds(content["details"].get("timeEstimate"))
