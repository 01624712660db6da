"""New heads of a chain over a WebSocket (eth_subscribe)."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import unquote, urlsplit

import msgspec
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    DisconnectionTimeout,
    HandshakeError,
    WebSocketConnection,
    open_websocket_url,
)

from ...domain.blocktime import Block
from ...domain.errors import MoonxdError
from ..rpc import Endpoint
from ..rpc.errors import Garbage, HttpFailure, KeyRefused, Refused, TimedOut, Unreachable
from ..rpc.jsonrpc import rpc_error
from ..rpc.transport import default_tls
from .blocks import RawBlock, read_block

#: A header is a few kilobytes. The library holds one unread message, so this bounds the memory of a connection.
_MESSAGE_MAX = 256 * 1024
#: A server that does not agree to the end of a connection is left within this.
_FAREWELL_S = 1.0
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

    def __init__(self, url: str, *, timeout_s: float = 10.0, tls: ssl.SSLContext | None = None) -> None:
        """Raises ConfigError when `url` cannot be used."""
        # The same rules for what is shown of a URL, whatever its scheme.
        self._endpoint = Endpoint("http" + url.strip().removeprefix("ws"))
        self._url = url.strip()
        self._timeout_s = timeout_s
        self._tls = tls
        self.host = self._endpoint.host

    @asynccontextmanager
    async def subscribe(self) -> AsyncGenerator[_Subscription]:
        """As the port says; the connection ends with the block."""
        tls = await self._tls_context()
        try:
            async with open_websocket_url(
                self._url,
                tls,
                extra_headers=self._login(),
                max_message_size=_MESSAGE_MAX,
                connect_timeout=self._timeout_s,
                disconnect_timeout=_FAREWELL_S,
            ) as socket:
                with trio.move_on_after(self._timeout_s) as answering:
                    name = await self._subscribed(socket)
                if answering.cancelled_caught:
                    raise TimedOut(f"{self.host}: eth_subscribe was not answered within {self._timeout_s:g} s")
                yield _Subscription(socket, self.host, name)
        except MoonxdError:
            raise
        except ConnectionRejected as error:
            raise self._rejected(error.status_code) from None
        except DisconnectionTimeout:
            # It would not say goodbye; it is gone all the same.
            return
        except HandshakeError as error:
            reason = error.__cause__ or type(error).__name__
            raise Unreachable(f"{self.host}: no WebSocket connection: {self._endpoint.scrub(str(reason))}") from None
        except ConnectionClosed as error:
            raise _lost(self.host, error) from None

    async def _tls_context(self) -> ssl.SSLContext | None:
        if self._tls is None and self._url.startswith("wss:"):
            self._tls = await trio.to_thread.run_sync(default_tls)
        return self._tls

    def _login(self) -> list[tuple[bytes, bytes]]:
        parts = urlsplit(self._url)
        if parts.username is None:
            return []
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
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

    def _rejected(self, status: int) -> MoonxdError:
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


def _lost(host: str, error: ConnectionClosed) -> Unreachable:
    why = error.reason.name.replace("_", " ").lower() if error.reason else "no reason given"
    return Unreachable(f"{host}: the WebSocket connection was lost: {why}")


def _read(message: str | bytes, host: str) -> _Message:
    try:
        return _decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Garbage(f"{host}: says what is no JSON-RPC over its WebSocket") from error
