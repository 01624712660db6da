"""HTTP/1.1 keep-alive connections on trio streams, pooled per origin: the road to every endpoint.

Requests must be reads: one whose kept connection had died idle is sent a second time on a fresh one.
"""

from __future__ import annotations

import math
import ssl
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from .endpoint import Endpoint, Origin
from .errors import EndpointError, TimedOut, Unreachable
from .wire import Connection, Reply, StaleConnection

#: Bytes of an answer's body, packed or unpacked, unless the caller says otherwise.
MAX_BODY = 4 * 1024 * 1024


def default_tls() -> ssl.SSLContext:
    """Verifying TLS with the system's authorities, or certifi's where the system has none. Reads files."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile or (paths.capath and Path(paths.capath).is_dir()):
        return ssl.create_default_context()
    import certifi  # late: only bare machines need it

    return ssl.create_default_context(cafile=certifi.where())


def _reason(error: BaseException) -> str:
    """The plain words inside an error of the network, without addresses or groups around them."""
    while error.__cause__ is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


class _Pool:
    """Connections to one origin: at most `limit` at a time, callers beyond that wait in line."""

    def __init__(self, transport: Transport, origin: Origin, limit: int) -> None:
        self._transport = transport
        self._origin = origin
        self._slots = trio.CapacityLimiter(limit)
        self._idle: deque[Connection] = deque()

    async def exchange(self, request: bytes, limit: int) -> Reply:
        async with self._slots:
            kept = self._take()
            if kept is not None:
                try:
                    return await self._on(kept, request, limit)
                except StaleConnection:
                    # Its neighbours have most likely died with it (a restart at the other end).
                    await self.close_idle(math.inf)
            return await self._on(await self._transport.connect(self._origin), request, limit)

    def _take(self) -> Connection | None:
        # The newest first, so that a quiet pool shrinks. When even that one is too old the janitor closes them all.
        if self._idle and self._idle[-1].idle_since >= trio.current_time() - self._transport.idle_s:
            return self._idle.pop()
        return None

    async def _on(self, connection: Connection, request: bytes, limit: int) -> Reply:
        keep = False
        try:
            reply = await connection.exchange(request, limit)
            keep = connection.reusable and not self._transport.closed
            return reply
        finally:
            if keep:
                connection.idle_since = trio.current_time()
                self._idle.append(connection)
            else:
                with trio.CancelScope(shield=True):
                    await connection.aclose()

    async def close_idle(self, before: float) -> None:
        """Close connections idle since before that trio time."""
        while self._idle and self._idle[0].idle_since < before:
            connection = self._idle.popleft()
            with trio.CancelScope(shield=True):
                await connection.aclose()


class Transport:
    """Made by `open_transport`. Shared by every reader and price source; safe for any number of tasks."""

    def __init__(self, *, connections: int, idle_s: float, connect_s: float, tls: ssl.SSLContext | None) -> None:
        self._connections = connections
        self._connect_s = connect_s
        self._tls = tls
        self._tls_lock = trio.Lock()
        self._pools: dict[Origin, _Pool] = {}
        self.idle_s = idle_s
        self.closed = False
        #: Connections opened since the start, for tests and statistics.
        self.opened = 0

    async def request(self, endpoint: Endpoint, request: bytes, *, deadline: float, max_body: int = MAX_BODY) -> Reply:
        """Send a request made by `endpoint.post` or `endpoint.get`; any HTTP status is an answer.

        `deadline` is a trio time that bounds everything, the wait for a free connection included; `max_body` bounds
        the body in bytes, packed and unpacked. Raises Unreachable, TimedOut, Garbage or TooLarge, naming the host.
        """
        if self.closed:
            raise Unreachable(f"{endpoint.host}: the transport is closed, the daemon is stopping")
        pool = self._pools.get(endpoint.origin)
        if pool is None:
            pool = self._pools[endpoint.origin] = _Pool(self, endpoint.origin, self._connections)
        started = trio.current_time()
        with trio.CancelScope(deadline=deadline):
            try:
                return await pool.exchange(request, max_body)
            except EndpointError as error:
                raise type(error)(f"{endpoint.host}: {error}") from error
        raise TimedOut(f"{endpoint.host}: no complete answer within {trio.current_time() - started:.3g} s")

    async def connect(self, origin: Origin) -> Connection:
        """A fresh connection. Raises Unreachable."""
        stream = await self.open_stream(origin)
        self.opened += 1
        return Connection(stream)

    async def open_stream(self, origin: Origin) -> trio.abc.Stream:
        """A fresh stream for other protocols than ours, TLS done; the caller's to close. Raises Unreachable."""
        try:
            with trio.fail_after(self._connect_s):
                stream: trio.abc.Stream = await trio.open_tcp_stream(origin.host, origin.port)
                if origin.tls:
                    stream = await self._secured(stream, origin.host)
        except trio.TooSlowError as error:
            raise Unreachable(f"no connection within {self._connect_s:g} s") from error
        except (OSError, trio.BrokenResourceError) as error:
            raise Unreachable(f"cannot connect to port {origin.port}: {_reason(error)}") from error
        return stream

    async def _secured(self, stream: trio.abc.Stream, host: str) -> trio.abc.Stream:
        try:
            async with self._tls_lock:
                if self._tls is None:
                    self._tls = await trio.to_thread.run_sync(default_tls)
            secure = trio.SSLStream(stream, self._tls, server_hostname=host, https_compatible=True)
            await secure.do_handshake()
        except BaseException:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)
            raise
        return secure

    async def run_janitor(self) -> None:
        """Close connections that have been idle for too long, for ever."""
        while True:
            await trio.sleep(self.idle_s / 2)
            for pool in self._pools.values():
                await pool.close_idle(trio.current_time() - self.idle_s)

    async def aclose(self) -> None:
        """Close every idle connection; those in use are closed by their requests."""
        self.closed = True
        for pool in self._pools.values():
            await pool.close_idle(math.inf)


@asynccontextmanager
async def open_transport(
    *,
    connections: int = 100,
    idle_s: float = 30.0,
    connect_s: float = 5.0,
    tls: ssl.SSLContext | None = None,
) -> AsyncGenerator[Transport, None]:
    """A transport for the length of the block.

    `connections` is the most at a time per origin (scheme, host and port); a connection unused for `idle_s` seconds
    is closed; connecting, TLS included, takes `connect_s` seconds at most. `tls` replaces the default context.
    """
    transport = Transport(connections=connections, idle_s=idle_s, connect_s=connect_s, tls=tls)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.run_janitor)
        try:
            yield transport
        except Exception as error:
            # Raised again outside: in here the nursery would wrap it into a group of one.
            failure = error
        finally:
            await transport.aclose()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
