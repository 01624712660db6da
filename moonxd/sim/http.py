"""HTTP/1.1 as cheaply as it goes: httptools on a trio stream, one task per connection, requests answered in order."""

from __future__ import annotations

import gzip
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import parse_qs, unquote

import httptools
import trio

from .reply import Reply, as_json

_log = logging.getLogger("moonxd.sim")

_READ = 65536
_MAX_HEADER_BYTES = 64 << 10
_MAX_BODY_BYTES = 16 << 20
#: A connection that is silent for so long is closed.
_IDLE_S = 300.0
#: Smaller bodies are not worth compressing.
_GZIP_FROM = 1400
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


class Request:
    """One request. Only the headers that matter here are kept."""

    __slots__ = ("authorization", "body", "gzip", "keep_alive", "method", "target", "websocket_key")

    def __init__(self) -> None:
        self.method = ""
        self.target = b""
        self.body = b""
        self.gzip = False
        self.keep_alive = True
        self.websocket_key: bytes | None = None
        self.authorization = b""

    @property
    def path(self) -> str:
        return unquote(self.target.partition(b"?")[0].decode("latin-1"))

    @property
    def query(self) -> dict[str, str]:
        """Query parameters; the last one of a name counts."""
        fields = parse_qs(self.target.partition(b"?")[2].decode("latin-1"), keep_blank_values=True)
        return {name: values[-1] for name, values in fields.items()}


class NoAnswer(Exception):
    """The request will not be answered: `hang` keeps the connection open and silent, else it is closed."""

    def __init__(self, *, hang: bool) -> None:
        super().__init__("no answer")
        self.hang = hang


class _TooLarge(Exception):
    pass


Handler = Callable[[Request], Awaitable[Reply]]
Upgrade = Callable[[trio.SocketStream, Request, bytes], Awaitable[None]]


class Connection:
    """One client."""

    def __init__(self, stream: trio.SocketStream, handle: Handler, upgrade: Upgrade) -> None:
        self._stream = stream
        self._handle = handle
        self._upgrade = upgrade
        self._parser = httptools.HttpRequestParser(self)
        self._ready: deque[Request] = deque()
        self._request = Request()
        self._parts: list[bytes] = []
        self._header_bytes = 0
        self._body_bytes = 0

    # What httptools calls while it reads.

    def on_message_begin(self) -> None:
        self._request = Request()
        self._parts = []
        self._header_bytes = self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._count_header(url)
        self._request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(name + value)
        size = len(name)
        if size == 15 and name.lower() == b"accept-encoding":
            self._request.gzip = b"gzip" in value.lower()
        elif size == 17 and name.lower() == b"sec-websocket-key":
            self._request.websocket_key = value
        elif size == 13 and name.lower() == b"authorization":
            self._request.authorization = value

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._body_bytes > _MAX_BODY_BYTES:
            raise _TooLarge
        self._parts.append(data)

    def on_message_complete(self) -> None:
        request = self._request
        request.method = self._parser.get_method().decode("latin-1")
        request.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        # The parser knows it only in here; afterwards it always says no.
        request.keep_alive = self._parser.should_keep_alive()
        self._ready.append(request)

    def _count_header(self, data: bytes) -> None:
        self._header_bytes += len(data)
        if self._header_bytes > _MAX_HEADER_BYTES:
            raise _TooLarge

    async def serve(self) -> None:
        """Until the client goes, asks to close, or is silent for too long."""
        try:
            with trio.CancelScope(deadline=trio.current_time() + _IDLE_S) as idle:
                while await self._read():
                    while self._ready:
                        if not await self._respond(self._ready.popleft()):
                            return
                    idle.deadline = trio.current_time() + _IDLE_S
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        except Exception:
            # One client's accident must not take the simulated world down for everybody else.
            _log.exception("a connection ended by a mistake of the simulator")
        finally:
            await trio.aclose_forcefully(self._stream)

    async def _read(self) -> bool:
        data = await self._stream.receive_some(_READ)
        if not data:
            return False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            request = self._ready.pop()
            while self._ready:
                await self._respond(self._ready.popleft())
            await self._upgrade(self._stream, request, bytes(data[upgrade.args[0] :]))
            return False
        except httptools.HttpParserError as error:
            await self._refuse(too_large=isinstance(error.__context__, _TooLarge))
            return False
        return True

    async def _refuse(self, *, too_large: bool) -> None:
        reply = as_json({"error": "request too large"}, 413) if too_large else as_json({"error": "not HTTP"}, 400)
        await self._stream.send_all(_encode(reply, keep_alive=False))

    async def _respond(self, request: Request) -> bool:
        """Whether the connection goes on."""
        try:
            reply = await self._handle(request)
        except NoAnswer as fault:
            if fault.hang:
                await self._stay_silent()
            return False
        except Exception:
            _log.exception("a request could not be answered", extra={"method": request.method})
            reply = as_json({"error": "the simulator failed; its log says why"}, 500)
        if request.gzip and len(reply.body) >= _GZIP_FROM:
            packed = gzip.compress(reply.body, compresslevel=1, mtime=0)
            reply = reply._replace(body=packed, headers=reply.headers + b"Content-Encoding: gzip\r\n")
        await self._stream.send_all(_encode(reply, keep_alive=request.keep_alive))
        return request.keep_alive

    async def _stay_silent(self) -> None:
        while await self._stream.receive_some(_READ):
            pass


def _encode(reply: Reply, *, keep_alive: bool) -> bytes:
    return b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\n%bContent-Length: %d\r\n%b\r\n%b" % (
        reply.status,
        _REASONS.get(reply.status, b"Unknown"),
        reply.content_type,
        reply.headers,
        len(reply.body),
        b"" if keep_alive else b"Connection: close\r\n",
        reply.body,
    )
