"""One connection to one Redis server: dialling, introducing ourselves, and asking one thing at a time.

redis-py serves nowhere here: its connections own their I/O (asyncio or threads) and importing it costs 50 ms, while
what it would spare us (URLs, Sentinel discovery) is a page of code.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Sequence
from typing import Any, NamedTuple

import hiredis
import trio

from .errors import RedisRefused, RedisReplyError, RedisUnavailable
from .settings import RedisSettings

Argument = bytes | str | int | float
#: Codes of replies that say "not now" or "not me": the command did not run, another connection or moment may do.
NOT_NOW = frozenset({"LOADING", "BUSY", "READONLY", "MASTERDOWN"})
_REFUSALS = frozenset({"WRONGPASS", "NOAUTH", "NOPERM"})
CLIENT_NAME = "moonxd"
CHUNK = 65536


class Address(NamedTuple):
    """A TCP endpoint."""

    host: str
    port: int


def pack(args: Sequence[Argument]) -> bytes:
    """A command in RESP. Raises TypeError for arguments that are not bytes, str, int or float."""
    packed: bytes = hiredis.pack_command(tuple(args))  # type: ignore[arg-type]  # its stub says 1-tuple
    return packed


class Wire:
    """An open stream with its parser. `reader` yields RedisReplyError values for error replies."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.reader = hiredis.Reader(replyError=RedisReplyError, notEnoughData=...)
        self._direct = _second_handle(stream)

    def send_now(self, data: bytes) -> int:
        """Hand the kernel what it takes at once, without a scheduler pass; how many bytes that were.

        Only while nobody uses the stream for sending. 0 on TLS, and for a connection that is breaking: the next use of
        the stream says why.
        """
        if self._direct is None:
            return 0
        try:
            return self._direct.send(data)
        except OSError:
            return 0

    async def ask(self, *commands: Sequence[Argument]) -> list[Any]:
        """Send `commands` in one write and return their replies. Only while nobody else uses the stream.

        Raises OSError-like trio errors when the connection breaks; after a cancellation the wire must be closed.
        """
        await self.stream.send_all(b"".join(pack(command) for command in commands))
        replies: list[Any] = []
        while len(replies) < len(commands):
            reply = self.reader.gets()
            if reply is ...:
                data = await self.stream.receive_some(CHUNK)
                if not data:
                    raise trio.BrokenResourceError("Redis closed the connection")
                self.reader.feed(data)  # type: ignore[arg-type]  # a bytearray would do as well
            else:
                replies.append(reply)
        return replies

    async def close(self) -> None:
        """At once and even when cancelled: no farewell is waited for."""
        if self._direct is not None:
            self._direct.close()
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self.stream)


def _second_handle(stream: trio.abc.Stream) -> socket.socket | None:
    """The same connection as a plain socket that does not block: trio's own can only send from an async function."""
    if not isinstance(stream, trio.SocketStream):
        return None
    handle = socket.socket(fileno=os.dup(stream.socket.fileno()))
    handle.setblocking(False)
    return handle


async def dial(
    address: Address | str, tls: ssl.SSLContext | None, *, server_name: str | None = None
) -> trio.abc.Stream:
    """A stream to a TCP address, or to the unix socket whose path is given. Raises OSError."""
    if isinstance(address, str):
        return await trio.open_unix_socket(address)
    plain = await trio.open_tcp_stream(address.host, address.port)
    # Idle blocking waits would otherwise never learn that the other machine is gone.
    plain.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_KEEPALIVE, True)
    if tls is None:
        return plain
    # Redis closes without TLS's farewell, as HTTP servers do.
    stream = trio.SSLStream(plain, tls, server_hostname=server_name or address.host, https_compatible=True)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


def _greeting(settings: RedisSettings) -> list[tuple[Argument, ...]]:
    """The first commands on a connection; PING is last because it is refused while Redis loads or is busy."""
    commands: list[tuple[Argument, ...]] = []
    if settings.password is not None:
        user = (settings.username,) if settings.username else ()
        commands.append(("AUTH", *user, settings.password))
    commands.append(("CLIENT", "SETNAME", CLIENT_NAME))
    if settings.db:
        commands.append(("SELECT", settings.db))
    commands.append(("PING",))
    return commands


async def introduce(wire: Wire, settings: RedisSettings) -> None:
    """Authenticate, name ourselves, select the database. Raises RedisRefused or RedisUnavailable."""
    commands = _greeting(settings)
    for command, reply in zip(commands, await wire.ask(*commands), strict=True):
        if isinstance(reply, RedisReplyError):
            _judge(str(command[0]), reply, settings)


def _judge(command: str, reply: RedisReplyError, settings: RedisSettings) -> None:
    """Turn an error reply of the greeting into our error, naming the user and never the password."""
    where, user = settings.where, settings.username or "default"
    if command == "CLIENT":
        return  # a proxy or an ACL may forbid names; they are for people only
    if reply.code == "NOAUTH":
        raise RedisRefused(f"Redis at {where} wants a password and none is configured (redis.password)")
    if command == "AUTH" and reply.code not in NOT_NOW:
        # The server's text is left out: it may quote what it was sent.
        why = "wrong user name or password" if reply.code in _REFUSALS else "it has no password set, or no such user"
        raise RedisRefused(f"Redis at {where} did not accept the credentials of user {user!r}: {why}")
    if command == "SELECT" and reply.code not in NOT_NOW:
        raise RedisRefused(f"Redis at {where} has no database {settings.db} for user {user!r}: {reply}")
    if reply.code in _REFUSALS:
        raise RedisRefused(f"Redis at {where} allows user {user!r} too little: {reply}")
    raise RedisUnavailable(f"Redis at {where} is not ready: {reply}", maybe_executed=False)
