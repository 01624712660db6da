"""What every bridge provider is asked alike: one request, its time, and what its failures mean."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import msgspec

from ...domain.bridge import Route, Sight
from ...domain.errors import Transient
from ...domain.stats import Probe
from ...domain.text import clean_text
from ..rpc import Endpoint, Transport
from ..rpc.errors import (
    EndpointError,
    Garbage,
    HttpFailure,
    KeyRefused,
    RateLimited,
    Refused,
    TimedOut,
    Unreachable,
)
from ..rpc.wire import Reply
from ..upstream import Held, Upstream

#: Bytes of an answer: quotes carry whole transactions, lists of chains their logos.
MAX_BODY = 2 * 1024 * 1024
_WORDS = 160
#: Answers to a question that has no quote.
_UNANSWERABLE = (400, 404, 409, 422)


class NoQuote(Exception):
    """An answer that is fine and says that there is no quote; the message is why."""


def not_served(route: Route, served: Collection[int] | None, host: str) -> Sight | None:
    """What there is to say without asking, when one end of `route` is not among the chains; None or none: ask."""
    lacking = [end.chain.slug for end in (route.sent, route.received) if served and end.chain.id not in served]
    return Sight(outcome=Probe.NO_ROUTE, error=f"{host} does not serve {lacking[0]} now") if lacking else None


class Answer(NamedTuple):
    """A JSON object and the seconds it took. `said`: the provider has no quote, in its own words."""

    content: dict[str, Any]
    seconds: float
    said: str | None = None


class Asker:
    """Requests to one provider. `secret` is kept out of everything it says."""

    def __init__(self, transport: Transport, upstream: Upstream, secret: str | None) -> None:
        self._transport = transport
        self._secret = secret
        self.upstream = upstream

    async def sight(
        self, endpoint: Endpoint, request: bytes, quoted: Callable[[dict[str, Any]], float | None]
    ) -> Sight:
        """Ask for a quote. `quoted` finds in it how long the transfer takes; it raises LookupError, TypeError or
        ValueError when the answer is none, NoQuote when it says that there is none."""

        async def once(deadline: float) -> Sight:
            answer = await self.answer(endpoint, request, deadline)
            try:
                if answer.said is not None:
                    raise NoQuote(answer.said)
                seconds = quoted(answer.content)
            except NoQuote as error:
                return Sight(outcome=Probe.NO_ROUTE, error=f"{endpoint.host} has no quote for this route: {error}")
            except (LookupError, TypeError, ValueError) as error:
                raise Garbage(f"{endpoint.host}: answered garbage: no quote in its answer") from error
            return Sight(outcome=Probe.OK, latency_s=answer.seconds, quoted_s=seconds)

        try:
            return await self.upstream.ask(once)
        except (Transient, Refused) as error:
            return Sight(outcome=_outcome(error), asked=not isinstance(error, Held), error=str(error))

    async def answer(self, endpoint: Endpoint, request: bytes, deadline: float) -> Answer:
        """One exchange. Raises EndpointError or KeyRefused."""
        began = time.perf_counter()
        reply = await self._transport.request(endpoint, request, deadline=deadline, max_body=MAX_BODY)
        seconds = time.perf_counter() - began
        self.upstream.heard(reply)
        if reply.status != 200 and reply.status not in _UNANSWERABLE:
            raise _refusal(endpoint.host, reply)
        content = _object(reply.body)
        if content is None:
            raise Garbage(f"{endpoint.host}: answered garbage: HTTP {reply.status} without a JSON object")
        said = None if reply.status == 200 else self._words(endpoint, content, reply.status)
        return Answer(content, seconds, said)

    def _words(self, endpoint: Endpoint, content: dict[str, Any], status: int) -> str:
        found = next((content[key] for key in ("message", "description", "error") if key in content), None)
        text = endpoint.scrub(found if isinstance(found, str) else f"HTTP {status}")
        if self._secret:
            text = text.replace(self._secret, "***")
        return clean_text(text, _WORDS) or f"HTTP {status}"


def seconds(given: Any) -> float | None:
    """A duration from an answer, None when it gives none. Raises TypeError or ValueError for what is no duration."""
    if given is None:
        return None
    value = float(given)
    if isinstance(given, bool) or not 0 <= value < 1e7:
        raise ValueError("no duration")
    return value


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        content = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _refusal(host: str, reply: Reply) -> EndpointError | Refused:
    where = f"{host} answered a quote request with HTTP {reply.status}"
    if reply.status == 429:
        return RateLimited(where, retry_after=reply.retry_after)
    if reply.status in (401, 402, 403):
        return KeyRefused(f"{where}: the key or our address is refused, check its api_key in [stats]")
    return HttpFailure(where, status=reply.status, retry_after=reply.retry_after)


def _outcome(error: Exception) -> Probe | None:
    match error:
        case RateLimited() | Held(limited=True):
            return Probe.RATE_LIMITED
        case Held():
            return None
        case Refused():
            return Probe.REFUSED
        case TimedOut():
            return Probe.TIMEOUT
        case Unreachable():
            return Probe.NETWORK
        case _:
            return Probe.SERVER_ERROR
