"""New heads of a chain over a WebSocket (eth_subscribe)."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import unquote, urlsplit

import msgspec
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream

from ...domain.blocktime import Block
from ...domain.errors import ConfigError, MoonxdError
from ..rpc import Endpoint, Transport
from ..rpc.errors import Garbage, HttpFailure, KeyRefused, Refused, TimedOut, Unreachable
from ..rpc.jsonrpc import rpc_error
from .blocks import RawBlock, read_block

#: A header is a few kilobytes. The library holds one unread message, so this bounds the memory of a connection.
_MESSAGE_MAX = 256 * 1024
#: A server that does not agree to the end of a connection is left within this.
_FAREWELL_S = 1.0
_SCHEMES = {"ws": "http", "wss": "https"}
_SUBSCRIBE = {"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]}


class _Error(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Notice(msgspec.Struct):
    subscription: str
    result: RawBlock


class _Message(msgspec.Struct):
    """What a node says: the answer to our question, or a notice."""

    id: int | None = None
    result: str | None = None
    error: _Error | None = None
    method: str = ""
    params: _Notice | None = None


_decode = msgspec.json.Decoder(_Message).decode


class SocketHeads:
    """`url` is ws:// or wss://; nothing of it but the host is ever shown. `timeout_s` bounds connect and subscribe."""

    def __init__(self, transport: Transport, url: str, *, timeout_s: float = 10.0) -> None:
        """Raises ConfigError when `url` cannot be used."""
        scheme, _, rest = url.strip().partition(":")
        if scheme not in _SCHEMES:
            raise ConfigError(f"a WebSocket URL cannot begin with {scheme[:10]!r}: write it as wss://host[:port]/path")
        # The same rules for what is shown of a URL, whatever its scheme.
        self._endpoint = Endpoint(f"{_SCHEMES[scheme]}:{rest}")
        self._transport = transport
        self._url = urlsplit(url.strip())
        self._timeout_s = timeout_s
        self.host = self._endpoint.host

    @asynccontextmanager
    async def subscribe(self) -> AsyncGenerator[_Subscription]:
        """As the port says; the connection ends with the block."""
        try:
            stream = await self._transport.open_stream(self._endpoint.origin)
        except Unreachable as error:
            raise Unreachable(f"{self.host}: {error}") from error
        failure: Exception | None = None
        try:
            async with trio.open_nursery() as nursery:
                try:
                    socket, name = await self._agreed(nursery, stream)
                    yield _Subscription(socket, self.host, name)
                    with trio.move_on_after(_FAREWELL_S):
                        await socket.aclose()
                except Exception as error:
                    # Raised again outside: in here the nursery would wrap it into a group of one.
                    failure = error
                finally:
                    nursery.cancel_scope.cancel()
        except* ConnectionRejected as group:
            # Raised by the library's own task.
            failure = self._rejected(group)
        finally:
            # Whatever became of the handshake: the library closes only what it has opened to the end.
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)
        if failure is not None:
            raise failure

    async def _agreed(self, nursery: trio.Nursery, stream: trio.abc.Stream) -> tuple[WebSocketConnection, str]:
        """The connection, and the name of the subscription."""
        with trio.move_on_after(self._timeout_s):
            try:
                socket = await wrap_client_stream(
                    nursery,
                    stream,  # type: ignore[arg-type]  # any stream will do
                    self._url.netloc.rpartition("@")[2],
                    (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else ""),
                    extra_headers=self._login(),
                    max_message_size=_MESSAGE_MAX,
                )
                return socket, await self._subscribed(socket)
            except ConnectionClosed as error:
                raise _lost(self.host, error) from None
        raise TimedOut(f"{self.host}: no subscription to new heads within {self._timeout_s:g} s")

    def _login(self) -> list[tuple[bytes, bytes]]:
        if self._url.username is None:
            return []
        login = f"{unquote(self._url.username)}:{unquote(self._url.password or '')}"
        return [(b"Authorization", b"Basic " + base64.b64encode(login.encode()))]

    async def _subscribed(self, socket: WebSocketConnection) -> str:
        await socket.send_message(msgspec.json.encode(_SUBSCRIBE).decode())
        while True:
            answer = _read(await socket.get_message(), self.host)
            if answer.id != 1:
                continue
            if answer.error is not None:
                raise rpc_error(self._endpoint, answer.error.code, answer.error.message, "eth_subscribe", None)
            if answer.result is None:
                raise Garbage(f"{self.host}: answered garbage to eth_subscribe: it has no name")
            return answer.result

    def _rejected(self, group: BaseExceptionGroup[ConnectionRejected]) -> MoonxdError:
        status = _first_of(group).status_code
        where = f"{self.host} answered the WebSocket handshake with HTTP {status}"
        if status in (401, 402, 403):
            return KeyRefused(f"{where}; the key, the plan or our address is refused: check the endpoint's URL")
        if status in (404, 405):
            return Refused(f"{where}; there is no WebSocket at this URL, correct it")
        return HttpFailure(where, status=status)


class _Subscription:
    """A subscription that stands."""

    def __init__(self, socket: WebSocketConnection, host: str, name: str) -> None:
        self._socket = socket
        self._host = host
        self._name = name

    async def head(self) -> Block:
        """As the port says."""
        while True:
            try:
                message = _read(await self._socket.get_message(), self._host)
            except ConnectionClosed as error:
                raise _lost(self._host, error) from None
            notice = message.params
            if message.method == "eth_subscription" and notice is not None and notice.subscription == self._name:
                return read_block(notice.result, self._host)


def _first_of(group: BaseExceptionGroup[ConnectionRejected]) -> ConnectionRejected:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


def _lost(host: str, error: ConnectionClosed) -> Unreachable:
    why = error.reason.name.replace("_", " ").lower() if error.reason else "no reason given"
    return Unreachable(f"{host}: the WebSocket connection was lost: {why}")


def _read(message: str | bytes, host: str) -> _Message:
    try:
        return _decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Garbage(f"{host}: says what is no JSON-RPC over its WebSocket") from error
