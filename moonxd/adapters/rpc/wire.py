"""One HTTP/1.1 connection: a request out, one bounded answer in. httptools reads the wire, zlib the packed bodies."""

from __future__ import annotations

import time
import zlib
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import httptools
import trio

from .errors import EndpointError, Garbage, TooLarge, Unreachable

_READ = 65536
#: Status line and headers together; also the parser's own buffer, which has no bound of its own.
_HEADERS_MAX = 65536
#: Interim answers (1xx) before the real one.
_INTERIM_MAX = 20
#: Nobody asks us to wait longer than this and is believed.
_RETRY_AFTER_MAX_S = 24 * 3600.0


class Reply(NamedTuple):
    """An HTTP answer. `retry_after` is in seconds from now, None when the server did not say."""

    status: int
    body: bytes
    retry_after: float | None
    #: Requests that the server still grants us, and the seconds until it counts anew, where it says so
    #: (ratelimit-remaining, ratelimit-reset).
    remaining: int | None = None
    reset_s: float | None = None


class StaleConnection(Exception):
    """A kept connection had died while idle: nothing of an answer came, the request may be sent again."""


def parse_retry_after(text: str, now: float) -> float | None:
    """Seconds to wait from a Retry-After header (a number of seconds or an HTTP date); None when it is neither."""
    text = text.strip()
    try:
        seconds = float(text) if text.isdigit() else parsedate_to_datetime(text).timestamp() - now
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), _RETRY_AFTER_MAX_S)


def _count(text: bytes | None) -> int | None:
    text = b"" if text is None else text.strip()
    return int(text) if text.isdigit() and len(text) < 20 else None


def unpack(body: bytes, encoding: bytes, limit: int) -> bytes:
    """`body` without its content encoding. Raises TooLarge over `limit` bytes, Garbage when it cannot be unpacked."""
    if encoding in (b"", b"identity"):
        return body
    if encoding not in (b"gzip", b"x-gzip", b"deflate"):
        raise Garbage(f"answered garbage: unasked content encoding {encoding[:20]!r}")
    # "deflate" is a zlib stream by the standard and a bare one by some servers: the first nibble tells them apart.
    bare = encoding == b"deflate" and body[:1] and body[0] & 0x0F != 8
    inflater = zlib.decompressobj(-zlib.MAX_WBITS if bare else zlib.MAX_WBITS | 32)
    try:
        plain = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise Garbage(f"answered garbage: its {encoding.decode()} body does not unpack") from error
    if len(plain) > limit:
        raise TooLarge(f"answered garbage: the body unpacks to over {limit} bytes")
    if not inflater.eof:
        raise Garbage(f"answered garbage: its {encoding.decode()} body is cut short")
    return plain


class Connection:
    """A connection that carries one exchange at a time. The callbacks are the parser's."""

    __slots__ = (
        "_body",
        "_done",
        "_encoding",
        "_framed",
        "_headers_done",
        "_interim",
        "_limit",
        "_parser",
        "_remaining",
        "_reset",
        "_retry_after",
        "_size",
        "_status",
        "_stream",
        "_used",
        "idle_since",
        "reusable",
    )

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._used = False
        self.reusable = False
        #: trio time at which it was put back into the pool.
        self.idle_since = 0.0
        self._renew()

    def _renew(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._done = False
        self.on_message_begin()

    # ---- the parser's callbacks ----

    def on_message_begin(self) -> None:
        if self._done:
            raise Garbage("answered garbage: more bytes after the answer")
        self._body: list[bytes] = []
        self._size = 0
        self._encoding = b""
        self._retry_after: str | None = None
        self._remaining: bytes | None = None
        self._reset: bytes | None = None
        self._headers_done = self._framed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        # Lengths first: almost every header is none of ours, and this runs for each one.
        size = len(name)
        if size == 14 and name.lower() == b"content-length":
            self._framed = True
            if int(value) > self._limit:
                raise TooLarge(f"answered garbage: it announces {int(value)} bytes, the limit is {self._limit}")
        elif size == 17 and name.lower() == b"transfer-encoding":
            self._framed = True
        elif size == 16 and name.lower() == b"content-encoding":
            self._encoding = value.strip().lower()
        elif size == 11 and name.lower() == b"retry-after":
            self._retry_after = value.decode("latin-1")
        elif size == 19 and name.lower() == b"ratelimit-remaining":
            self._remaining = value
        elif size == 15 and name.lower() == b"ratelimit-reset":
            self._reset = value

    def on_headers_complete(self) -> None:
        self._headers_done = True

    def on_body(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit:
            raise TooLarge(f"answered garbage: the body is over {self._limit} bytes")
        self._body.append(data)

    def on_message_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if self._status >= 200:
            # The parser answers this truthfully only in here.
            self.reusable = self._parser.should_keep_alive()
            self._done = True
            return
        self._interim += 1
        if self._interim > _INTERIM_MAX:
            raise Garbage("answered garbage: nothing but interim answers")

    # ---- the exchange ----

    async def exchange(self, request: bytes, limit: int) -> Reply:
        """Send `request`, return the answer; its body has at most `limit` bytes, packed and unpacked.

        Raises StaleConnection when a kept connection turned out dead, else EndpointError. Unless `reusable` is true
        afterwards the connection must be closed.
        """
        self._limit = limit
        self.reusable = self._done = False
        self._interim = 0
        try:
            await self._send(request)
            await self._receive()
        except httptools.HttpParserCallbackError as error:
            self.reusable = False
            cause = error.__context__
            raise cause if isinstance(cause, EndpointError) else Garbage("answered garbage: bad headers") from None
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.reusable = False
            raise Garbage(f"answered garbage, not HTTP: {error}") from error
        self._used = True
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        wait, reset = self._retry_after, _count(self._reset)
        return Reply(
            self._status,
            unpack(body, self._encoding, limit) if self._encoding else body,
            None if wait is None else parse_retry_after(wait, time.time()),
            _count(self._remaining),
            None if reset is None else min(float(reset), _RETRY_AFTER_MAX_S),
        )

    async def _send(self, request: bytes) -> None:
        try:
            await self._stream.send_all(request)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # The server may have answered early (413) and hung up: what it said is still to be read.
            return

    async def _receive(self) -> None:
        received = 0
        while not self._done:
            try:
                data = await self._stream.receive_some(_READ)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise self._lost(received) from error
            if not data:
                self._ended(received)
                return
            received += len(data)
            if not self._headers_done and received > _HEADERS_MAX + _READ:
                raise TooLarge(f"answered garbage: headers of over {_HEADERS_MAX} bytes")
            self._parser.feed_data(bytes(data))

    def _ended(self, received: int) -> None:
        # Without a length the end of the connection ends the body; the JSON inside shows whether it is whole.
        if not self._headers_done or self._framed:
            raise self._lost(received)
        self._status = self._parser.get_status_code()
        self.reusable = False

    def _lost(self, received: int) -> Exception:
        if received == 0 and self._used:
            return StaleConnection()
        return Unreachable(f"the connection broke {'in' if received else 'before'} the answer")

    async def aclose(self) -> None:
        """Close without ceremony; never blocks."""
        await trio.aclose_forcefully(self._stream)
