"""What every price source does alike: one request, its failures as ours, and numbers that are sane."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, TypeVar

import trio

from ...domain import money
from ..rpc import Endpoint, Transport
from ..rpc.errors import Garbage, HttpFailure, KeyRefused, RateLimited, TooLarge
from ..rpc.wire import Reply

T = TypeVar("T")

#: Digits and magnitude beyond these are mistakes, and would overflow what is computed from them.
_DIGITS = 60
_MAGNITUDE = 30
#: 418 is Binance's way to say that a 429 was not heeded.
_LIMITED = (418, 429)


class Asker:
    """Requests to one price source. `timeout_s` bounds each of them."""

    def __init__(
        self, transport: Transport, base_url: str, *, timeout_s: float, headers: dict[str, str] | None = None
    ) -> None:
        """Raises ConfigError when `base_url` cannot be used."""
        self._transport = transport
        self._endpoint = Endpoint(base_url, headers=headers)
        self._timeout_s = timeout_s

    @property
    def host(self) -> str:
        return self._endpoint.host

    async def get(self, path: str) -> Any:
        """The JSON answer, its fractions as Decimal. Raises EndpointError or KeyRefused."""
        return await self._ask(self._endpoint.get(path))

    async def post(self, body: Any) -> Any:
        """The same for a JSON body sent to the base URL."""
        return await self._ask(self._endpoint.post(json.dumps(body).encode()))

    async def _ask(self, request: bytes) -> Any:
        deadline = trio.current_time() + self._timeout_s
        reply = await self._transport.request(self._endpoint, request, deadline=deadline)
        if reply.status != 200:
            raise self._refusal(reply)
        try:
            return json.loads(reply.body, parse_float=Decimal)
        except (ValueError, RecursionError) as error:
            raise self.garbage("not JSON") from error

    def garbage(self, why: str) -> Garbage:
        return Garbage(f"{self.host}: answered garbage to a price request: {why}")

    def _refusal(self, reply: Reply) -> Exception:
        where = f"{self.host} answered a price request with HTTP {reply.status}"
        if reply.status in _LIMITED:
            return RateLimited(where, retry_after=reply.retry_after)
        if reply.status in (401, 402, 403):
            return KeyRefused(f"{where}; the key or our address is refused: check the source's configuration")
        if reply.status in (413, 414):
            return TooLarge(where)
        return HttpFailure(where, status=reply.status, retry_after=reply.retry_after)


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def usd(given: Any) -> Decimal | None:
    """A positive finite price of sane size, or None. Python's JSON reads booleans, NaN and infinities: none of them."""
    if isinstance(given, bool) or not isinstance(given, (int, str, Decimal)):
        return None
    price = money.parse_price(given)
    if price is None or abs(price.adjusted()) > _MAGNITUDE or len(price.as_tuple().digits) > _DIGITS:
        return None
    return price


def number(given: Any, default: float) -> float:
    """A number as float, `default` for anything else."""
    if isinstance(given, bool) or not isinstance(given, (int, Decimal)):
        return default
    try:
        return float(given)
    except (OverflowError, ValueError):
        return default
