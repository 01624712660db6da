"""JSON-RPC over the transport: calls and batches, and the one table that says what an error means for us."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import count
from typing import Any, NamedTuple, TypeVar

import msgspec
import trio

from ...domain.text import clean_text
from .endpoint import Endpoint
from .errors import (
    FAILURES,
    EndpointError,
    Garbage,
    HttpFailure,
    KeyRefused,
    RateLimited,
    Refused,
    RpcError,
    TooLarge,
    outcome_of,
)
from .transport import MAX_BODY, Transport
from .wire import Reply

T = TypeVar("T")

#: Told (host, method, outcome, seconds) after every HTTP exchange; outcome is "ok" or an error class's label.
Observer = Callable[[str, str, str, float], None]

_TEXT_MAX = 200
_LIMITED = re.compile(r"rate.?limit|too many requests|request limit|compute units per second", re.IGNORECASE)
_UNAUTHORISED = re.compile(
    r"unauthori[sz]ed|must be authenticated|authenticat\w+ (required|failed)|(invalid|missing|disabled) api.?key"
    r"|app is inactive|monthly capacity|quota exceeded",
    re.IGNORECASE,
)
_LIMITED_CODES = frozenset((429, -32005))
_UNKNOWN_METHOD = -32601


class _Error(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Answer(msgspec.Struct):
    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw()
    error: _Error | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_answers = msgspec.json.Decoder(list[_Answer]).decode
_encode = msgspec.json.Encoder().encode


class Call(NamedTuple):
    """One call of a batch. `kind` is the type its result is decoded to."""

    method: str
    params: Sequence[Any]
    kind: Any = Any


def _clean(text: str) -> str:
    """What the other side said, fit for a log line."""
    return clean_text(text[: 2 * _TEXT_MAX], _TEXT_MAX) or ""


#: What every exchange passes through, given its methods: a limiter may hold it back, and sees how it ends.
Gate = Callable[[Sequence[str]], AbstractAsyncContextManager[None]]


class RpcClient:
    """JSON-RPC at one endpoint. `timeout_s` bounds each exchange (not the wait at `gate`), `max_body` each answer."""

    def __init__(
        self,
        transport: Transport,
        endpoint: Endpoint,
        *,
        timeout_s: float = 10.0,
        max_body: int = MAX_BODY,
        on_call: Observer | None = None,
        gate: Gate | None = None,
    ) -> None:
        self._transport = transport
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._max_body = max_body
        self._on_call = on_call
        self._gate = gate
        # Ids never repeat on an endpoint, so a late answer to another question cannot pass for ours.
        self._ids = count(1)

    @property
    def host(self) -> str:
        """The endpoint's host name: all that may be shown of it."""
        return self._endpoint.host

    async def call(self, method: str, params: Sequence[Any], kind: type[T]) -> T:
        """The result, decoded to `kind`. Raises EndpointError (Transient) or Refused (Permanent)."""
        number = next(self._ids)
        request = self._endpoint.post(_encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params}))
        # Requests are large and the wait for an answer is long: only one copy waits with us.
        del params

        def read(reply: Reply) -> T:
            answer = self._decoded(reply, method, _decode_answer)
            if answer.error is not None:
                raise self._error(answer.error, method, reply.retry_after)
            if answer.id != number:
                raise Garbage(f"{self.host}: answered garbage to {method}: the id is not the question's")
            result: T = self._result(answer, method, kind)
            return result

        return await self._pass((method,), method, request, read)

    async def batch(self, calls: Sequence[Call]) -> list[Any]:
        """The results in the order of `calls`; the place of a call that failed holds its error, not raised.

        Raises like `call` when the batch as a whole failed.
        """
        if not calls:
            return []
        numbers = [next(self._ids) for _ in calls]
        body = _encode(
            [
                {"jsonrpc": "2.0", "id": number, "method": call.method, "params": call.params}
                for number, call in zip(numbers, calls, strict=True)
            ]
        )
        label = calls[0].method if len({call.method for call in calls}) == 1 else "batch"

        def read(reply: Reply) -> list[Any]:
            if reply.body.lstrip()[:1] == b"{":
                alone = self._decoded(reply, label, _decode_answer)
                raise self._error(alone.error or _Error(message="one answer to a batch"), label, reply.retry_after)
            answers = {answer.id: answer for answer in self._decoded(reply, label, _decode_answers)}
            return [self._one(answers.get(number), call) for number, call in zip(numbers, calls, strict=True)]

        return await self._pass([call.method for call in calls], label, self._endpoint.post(body), read)

    def _one(self, answer: _Answer | None, call: Call) -> Any:
        if answer is None:
            return Garbage(f"{self.host}: answered garbage to a batch: no answer to {call.method}")
        if answer.error is not None:
            return self._error(answer.error, call.method, None)
        try:
            return self._result(answer, call.method, call.kind)
        except Garbage as error:
            return error

    async def _pass(self, methods: Sequence[str], label: str, request: bytes, read: Callable[[Reply], T]) -> T:
        if self._gate is None:
            return await self._exchange(label, request, read)
        async with self._gate(methods):
            return await self._exchange(label, request, read)

    async def _exchange(self, method: str, request: bytes, read: Callable[[Reply], T]) -> T:
        started = time.perf_counter()
        outcome = "ok"
        try:
            deadline = trio.current_time() + self._timeout_s
            reply = await self._transport.request(self._endpoint, request, deadline=deadline, max_body=self._max_body)
            return read(reply)
        except FAILURES as error:
            outcome = outcome_of(error)
            raise
        except trio.Cancelled:
            # Our own haste says nothing about the endpoint.
            outcome = ""
            raise
        finally:
            if outcome and self._on_call is not None:
                self._on_call(self.host, method, outcome, time.perf_counter() - started)

    def _decoded(self, reply: Reply, method: str, decode: Callable[[bytes], T]) -> T:
        if reply.status != 200:
            raise status_error(self._endpoint, reply, method)
        try:
            return decode(reply.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Garbage(f"{self.host}: answered garbage to {method}: not a JSON-RPC answer") from error

    def _result(self, answer: _Answer, method: str, kind: Any) -> Any:
        try:
            return msgspec.json.decode(answer.result, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Garbage(f"{self.host}: answered garbage to {method}: the result is not what it should be") from error

    def _error(self, error: _Error, method: str, retry_after: float | None) -> EndpointError | Refused:
        return rpc_error(self._endpoint, error.code, error.message, method, retry_after)


def rpc_error(
    endpoint: Endpoint, code: int, message: str, method: str, retry_after: float | None
) -> EndpointError | Refused:
    """What a JSON-RPC error object means. Only a refusal of us or of the method is for good: nodes err all the time."""
    text = _clean(endpoint.scrub(message))
    where = f"{endpoint.host} answered {method} with error {code}: {text or 'no reason given'}"
    if code in _LIMITED_CODES or _LIMITED.search(text):
        return RateLimited(where, retry_after=retry_after)
    if _UNAUTHORISED.search(text):
        return KeyRefused(f"{where}; check the endpoint's key and plan")
    if code == _UNKNOWN_METHOD:
        return Refused(f"{where}; this endpoint cannot serve us, configure another one")
    return RpcError(where, code=code, text=text)


def status_error(endpoint: Endpoint, reply: Reply, method: str) -> EndpointError | Refused:
    """What an HTTP status other than 200 means; the node's own words are kept when it gave any."""
    status = reply.status
    inner = _inner_error(reply.body)
    said = f": {text}" if inner and (text := _clean(endpoint.scrub(inner.message))) else ""
    where = f"{endpoint.host} answered {method} with HTTP {status}{said}"
    if status == 429:
        return RateLimited(where, retry_after=reply.retry_after)
    if status in (401, 402, 403):
        return KeyRefused(f"{where}; the key, the plan or our address is refused: check the endpoint's configuration")
    if status in (413, 414):
        return TooLarge(where)
    if inner is not None:
        return rpc_error(endpoint, inner.code, inner.message, method, reply.retry_after)
    if 300 <= status < 400:
        where += "; redirects are not followed: configure the address it points to"
    return HttpFailure(where, status=status, retry_after=reply.retry_after)


def _inner_error(body: bytes) -> _Error | None:
    try:
        return _decode_answer(body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
