"""Serving an ASGI app on our own Trio listeners with hypercorn's protocol code.

Hypercorn's own `serve` hides who connects and never ends while one client does not read (it shields its sends). Here
each connection carries its peer's credentials and can be cut, so that stopping takes at most `grace` seconds.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, cast

import trio
from hypercorn.config import Config
from hypercorn.events import Event, Updated
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import wrap_app

from .socket import peer_credentials

log = logging.getLogger("moonxd.control")

App = Callable[[Any, Any, Any], Awaitable[None]]
#: A runaway client must not eat the daemon's file descriptors.
MAX_CONNECTIONS = 256
#: Those that did not say yet what they want: two thousand browsers come back in one second.
_MAX_ARRIVING = 1024
_KEEP_ALIVE_S = 15
_READ = 65536


class Detour(Protocol):
    """Serves the requests of one path instead of the HTTP server."""

    #: "GET /path"
    start: bytes

    async def serve(self, stream: trio.SocketStream, early: bytes) -> None:
        """Converse with who sent `early` so far; closes the stream."""
        ...

    async def ended(self) -> None:
        """Until no conversation is left."""
        ...

    def cut(self) -> None:
        """End every conversation now."""
        ...


class _Begun:
    """A stream whose first bytes were read before."""

    def __init__(self, stream: trio.SocketStream, early: bytes) -> None:
        self._early = early
        self._stream = stream
        self.socket = stream.socket
        self.send_all = stream.send_all
        self.send_eof = stream.send_eof
        self.aclose = stream.aclose

    async def receive_some(self, most: int) -> bytes:
        if self._early:
            await trio.lowlevel.checkpoint()
            early, self._early = self._early, b""
            return early
        return bytes(await self._stream.receive_some(most))


class Connection:
    """One client. In an ASGI scope it is `scope["state"]["connection"]`."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.pid: int | None = None
        self.uid: int | None = None
        if stream.socket.family == socket.AF_UNIX:
            self.pid, self.uid, _ = peer_credentials(stream.socket)

    @property
    def is_local_socket(self) -> bool:
        """Over the unix socket, so the file's permissions let this peer in."""
        return self.uid is not None

    def cut(self) -> None:
        """Close at once. Whoever is sending or receiving on it, shielded or not, wakes up with ClosedResourceError."""
        self._stream.socket.close()


class _Server(TCPServer):
    """Hypercorn keeps a connection until its idle time is over, though the client has gone: quick callers would soon
    be too many."""

    _ended = False

    async def _read_data(self) -> None:
        await super()._read_data()
        self._ended = True
        await self.idle_task.stop()

    async def protocol_send(self, event: Event) -> None:
        # An answer that ends now starts no idle time.
        if not (self._ended and isinstance(event, Updated)):
            await super().protocol_send(event)


class _Connections:
    def __init__(self, app: App, detour: Detour | None) -> None:
        self._detour = detour
        self._arriving: set[trio.CancelScope] = set()
        self._config = Config()
        self._config.errorlog = logging.getLogger("moonxd.control.http")
        self._config.keep_alive_timeout = _KEEP_ALIVE_S
        self._config.include_server_header = False
        self._app: AppWrapper = wrap_app(cast(Any, app), self._config.wsgi_max_body_size, "asgi")
        self._context = WorkerContext(None)
        self._open: set[Connection] = set()
        self._gone = trio.Event()

    async def handle(self, stream: trio.SocketStream) -> None:
        detour = self._detour
        if detour is None:
            await self._serve_http(stream, b"")
            return
        early = await self._first_bytes(stream, detour.start)
        if early is None:
            await trio.aclose_forcefully(stream)
        elif early.startswith(detour.start) and early[len(detour.start) : len(detour.start) + 1] in b" ?":
            await self._take_detour(detour, stream, early)
        else:
            await self._serve_http(stream, early)

    async def _first_bytes(self, stream: trio.SocketStream, start: bytes) -> bytes | None:
        """Enough of the request to tell whether it begins with `start`; None when nothing came of it."""
        early = b""
        if len(self._arriving) >= _MAX_ARRIVING:
            return None
        with trio.move_on_after(_KEEP_ALIVE_S) as patience:
            self._arriving.add(patience)
            try:
                while len(early) <= len(start) and start.startswith(early[: len(start)]):
                    more = await stream.receive_some(_READ)
                    if not more:
                        return early or None
                    early += more
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                return None
            finally:
                self._arriving.discard(patience)
            return early
        return None

    async def _take_detour(self, detour: Detour, stream: trio.SocketStream, early: bytes) -> None:
        try:
            await detour.serve(stream, early)
        except Exception:
            log.exception("a conversation failed")

    async def _serve_http(self, stream: trio.SocketStream, early: bytes) -> None:
        if len(self._open) >= MAX_CONNECTIONS:
            log.warning("refused a connection: too many are open", extra={"open": len(self._open)})
            await trio.aclose_forcefully(stream)
            return
        connection = Connection(stream)
        self._open.add(connection)
        try:
            await self._converse(_Begun(stream, early), connection)
        finally:
            self._open.discard(connection)
            if not self._open:
                self._gone.set()

    async def _converse(self, stream: _Begun, connection: Connection) -> None:
        state = ConnectionState({"connection": connection})
        server = _Server(self._app, self._config, self._context, cast(Any, state), cast(Any, stream))
        try:
            await server.run()
        except* (trio.ClosedResourceError, trio.BrokenResourceError):
            log.debug("a client went away")
        except* Exception:
            log.exception("a control connection failed")

    async def finish(self, grace: float) -> None:
        """Let running requests end for `grace` seconds, then cut what is left."""
        await self._context.terminated.set()
        for patience in self._arriving:
            patience.cancel()
        self._gone = trio.Event()
        with trio.move_on_after(grace):
            if self._open:
                await self._gone.wait()
            if self._detour is not None:
                await self._detour.ended()
        if self._open:
            log.warning("cut connections that did not end in time", extra={"open": len(self._open)})
        self.cut()

    def cut(self) -> None:
        for connection in tuple(self._open):
            connection.cut()
        if self._detour is not None:
            self._detour.cut()


async def serve_app(
    app: App,
    listeners: Sequence[trio.SocketListener],
    stop: trio.Event,
    *,
    grace: float = 2.0,
    detour: Detour | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stop` is set, then at most `grace` seconds more. A cancellation cuts every connection at once."""
    connections = _Connections(app, detour)
    async with trio.open_nursery() as conversations:
        try:
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    accepting.start_soon(_accept, connections.handle, listener, conversations)
                task_status.started()
                await stop.wait()
                accepting.cancel_scope.cancel()
            await connections.finish(grace)
            conversations.cancel_scope.cancel()
        finally:
            # Hypercorn shields its sends: only a closed socket ends one to a client that does not read.
            connections.cut()


async def _accept(
    handle: Callable[[trio.SocketStream], Awaitable[None]], listener: trio.SocketListener, conversations: trio.Nursery
) -> None:
    await trio.serve_listeners(handle, [listener], handler_nursery=conversations)
