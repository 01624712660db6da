"""A TCP server inside the test's own process whose answers are bytes the test writes: for endpoints that misbehave."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import trio

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Peer:
    """The server's end of one connection."""

    def __init__(self, server: TcpServer, stream: trio.abc.Stream) -> None:
        self.server = server
        self.stream = stream
        self._buffer = b""

    async def request(self) -> tuple[bytes, bytes]:
        """Read one request: its head (request line and headers) and its body. Raises trio.EndOfChannel at the end."""
        while b"\r\n\r\n" not in self._buffer:
            await self._more()
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        found = _LENGTH.search(head)
        size = int(found[1]) if found else 0
        self._buffer = rest
        while len(self._buffer) < size:
            await self._more()
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        self.server.requests.append((head, body))
        return head, body

    async def question(self) -> Any:
        """Read one JSON-RPC request."""
        return msgspec.json.decode((await self.request())[1])

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def answer(self, result: Any, *, number: Any) -> None:
        """Answer a JSON-RPC request."""
        await self.send(http(msgspec.json.encode({"jsonrpc": "2.0", "id": number, "result": result})))

    async def _more(self) -> None:
        data = await self.stream.receive_some(65536)
        if not data:
            raise trio.EndOfChannel
        self._buffer += data


Handler = Callable[[Peer], Awaitable[None]]


class TcpServer:
    """What the server saw. `connections` counts the accepted ones."""

    def __init__(self, port: int, scheme: str) -> None:
        self.port = port
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.connections = 0
        self.requests: list[tuple[bytes, bytes]] = []


def http(body: bytes, *, status: str = "200 OK", headers: str = "", length: int | None = None) -> bytes:
    """A whole HTTP answer; `headers` are lines that end in CRLF."""
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {size}\r\n\r\n".encode() + body


@asynccontextmanager
async def serving(handler: Handler, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[TcpServer]:
    """A server on loopback that runs `handler` for every connection; the connection ends with the handler."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    server = TcpServer(listener.socket.getsockname()[1], "https" if tls else "http")

    async def connection(plain: trio.SocketStream) -> None:
        server.connections += 1
        stream: trio.abc.Stream = trio.SSLStream(plain, tls, server_side=True, https_compatible=True) if tls else plain
        try:
            await handler(Peer(server, stream))
        except (trio.BrokenResourceError, trio.EndOfChannel, trio.ClosedResourceError):
            # The other side hung up: its right.
            return
        finally:
            with trio.move_on_after(1, shield=True):
                await trio.aclose_forcefully(plain)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, connection, [listener]))
        yield server
        nursery.cancel_scope.cancel()
