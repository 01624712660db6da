"""JSON-RPC over WebSocket, with newHeads."""

from __future__ import annotations

import base64
import hashlib
import math
from typing import Any

import msgspec
import trio
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.utilities import ACCEPT_GUID, ProtocolError

from . import blocks
from .http import NoAnswer, Request
from .router import Router, suffer
from .rpc import Endpoint

_READ = 65536
_MAX_MESSAGE = 16 << 20
_IDLE_S = 600.0
#: How long we wait for the client to agree to an end that we began.
_FAREWELL_S = 5.0
#: A client that fell behind further than this is told of the newest heads only.
_MOST_HEADS = 16


def handshake(key: bytes) -> bytes:
    """The answer that turns an HTTP connection into a WebSocket."""
    accept = base64.b64encode(hashlib.sha1(key + ACCEPT_GUID, usedforsecurity=False).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
    )


class _Closed(Exception):
    """The connection is over."""


class Session:
    """One WebSocket client of one chain."""

    def __init__(self, stream: trio.SocketStream, endpoint: Endpoint, early: bytes) -> None:
        self._stream = stream
        self._endpoint = endpoint
        self._wire = Connection(ConnectionType.SERVER, trailing_data=early)
        self._sending = trio.Lock()
        self._subscriptions: dict[str, trio.CancelScope] = {}
        self._named = 0
        self._text: list[str] = []

    async def serve(self) -> None:
        """Until either side closes or is silent for too long."""
        try:
            async with trio.open_nursery() as nursery:
                await self._converse(nursery)
                nursery.cancel_scope.cancel()
        except* (_Closed, NoAnswer, ProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _converse(self, nursery: trio.Nursery) -> None:
        with trio.CancelScope() as idle:
            while True:
                await self._events(nursery)
                is_open = self._wire.state is ConnectionState.OPEN
                idle.deadline = trio.current_time() + (_IDLE_S if is_open else _FAREWELL_S)
                self._wire.receive_data(await self._stream.receive_some(_READ) or None)

    async def _events(self, nursery: trio.Nursery) -> None:
        for event in self._wire.events():
            if isinstance(event, TextMessage) and self._wire.state is ConnectionState.OPEN:
                await self._on_text(event, nursery)
            elif isinstance(event, Ping):
                await self._send(event.response())
            elif isinstance(event, CloseConnection):
                if self._wire.state is ConnectionState.REMOTE_CLOSING:
                    await self._send(event.response())
                raise _Closed
            elif isinstance(event, BytesMessage) and self._wire.state is ConnectionState.OPEN:
                await self._send(CloseConnection(code=1003, reason="text only"))

    async def _on_text(self, event: TextMessage, nursery: trio.Nursery) -> None:
        self._text.append(event.data)
        if sum(map(len, self._text)) > _MAX_MESSAGE:
            await self._send(CloseConnection(code=1009, reason="too large"))
        elif event.message_finished:
            message, self._text = "".join(self._text), []
            await self._on_message(message.encode(), nursery)

    async def _on_message(self, body: bytes, nursery: trio.Nursery) -> None:
        answer = self._subscription(body, nursery)
        if answer is None:
            exchange = self._endpoint.exchange(body)
            answer = (await suffer(exchange.fate, self._endpoint.upstream, exchange.reply)).body
        await self._say(answer)

    def _subscription(self, body: bytes, nursery: trio.Nursery) -> bytes | None:
        """Answer (un)subscribing; None when the message is something else."""
        try:
            call = msgspec.json.decode(body)
        except msgspec.DecodeError:
            return None
        if not isinstance(call, dict) or call.get("method") not in ("eth_subscribe", "eth_unsubscribe"):
            return None
        params = call.get("params")
        return msgspec.json.encode(
            {"jsonrpc": "2.0", "id": call.get("id"), **self._subscribed(call["method"], params, nursery)}
        )

    def _subscribed(self, method: str, params: Any, nursery: trio.Nursery) -> dict[str, Any]:
        self._endpoint.upstream.methods[method] += 1
        if not isinstance(params, list) or not params:
            return {"error": {"code": -32602, "message": "invalid params"}}
        if method == "eth_unsubscribe":
            scope = self._subscriptions.pop(str(params[0]), None)
            if scope is not None:
                scope.cancel()
            return {"result": scope is not None}
        if self._endpoint.chain.node.knobs.no_subscriptions:
            return {"error": {"code": -32601, "message": "the method eth_subscribe does not exist/is not available"}}
        if params[0] != "newHeads":
            return {"error": {"code": -32602, "message": "unsupported subscription"}}
        self._named += 1
        name = f"0x{self._named:032x}"
        scope = self._subscriptions[name] = trio.CancelScope()
        nursery.start_soon(self._new_heads, name, scope)
        return {"result": name}

    async def _new_heads(self, name: str, scope: trio.CancelScope) -> None:
        chain, world = self._endpoint.chain, self._endpoint.world
        with scope:
            told = self._endpoint.newest()
            while True:
                changed, next_at = world.changed, chain.head.next_at(world.now())
                with trio.move_on_after(math.inf if next_at is None else max(0.0, next_at - world.now())):
                    await changed.wait()
                newest = self._endpoint.newest()
                if chain.node.knobs.mute_heads:
                    told = newest
                for height in range(max(told + 1, newest - _MOST_HEADS + 1), newest + 1):
                    await self._notify(name, blocks.header(chain, height))
                told = max(told, newest)

    async def _notify(self, name: str, head: dict[str, Any]) -> None:
        params = {"subscription": name, "result": head}
        await self._say(msgspec.json.encode({"jsonrpc": "2.0", "method": "eth_subscription", "params": params}))

    async def _say(self, text: bytes) -> None:
        await self._send(TextMessage(data=text.decode()))

    async def _send(self, event: Any) -> None:
        async with self._sending:
            await self._stream.send_all(self._wire.send(event))


async def upgrade(router: Router, stream: trio.SocketStream, request: Request, early: bytes) -> None:
    """Serve a connection that asked to become a WebSocket; closes nothing."""
    endpoint = router.endpoint(request)
    if endpoint is None or request.websocket_key is None:
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        return
    await stream.send_all(handshake(request.websocket_key))
    await Session(stream, endpoint, early).serve()
