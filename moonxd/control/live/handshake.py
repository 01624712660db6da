"""From a request for /v1/ws to an open WebSocket, or a refusal that says what to do."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec
import trio
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import AcceptConnection, RejectConnection, RejectData, Request
from wsproto.handshake import H11Handshake
from wsproto.utilities import RemoteProtocolError

from ...api.messages import ErrorReply, Problem
from ..socket import is_loopback
from .words import SUBPROTOCOL, TOKEN_SUBPROTOCOL

#: Seconds for the whole request; the size of its head is h11's to bound.
_REQUEST_S = 10.0
_READ = 16384


class NoUpgrade(Exception):
    """No WebSocket came of this request; it was answered."""


class Opened(msgspec.Struct, frozen=True):
    """`token` as the header or the subprotocol gave it."""

    wire: Connection
    token: str | None


async def shake_hands(
    stream: trio.SocketStream, early: bytes, closed: Problem | None, origins: frozenset[str]
) -> Opened:
    """Answer the request that began with `early`; `closed` says why nobody is let in. Raises NoUpgrade."""
    handshake = H11Handshake(ConnectionType.SERVER)
    with trio.move_on_after(_REQUEST_S):
        request = await _request(handshake, stream, early)
        headers = {bytes(name): bytes(value) for name, value in request.extra_headers}
        if closed is not None:
            raise await _refused(handshake, stream, 503, closed)
        foreign = _foreign(headers.get(b"origin"), origins)
        if foreign is not None:
            raise await _refused(handshake, stream, 403, foreign)
        subprotocol = SUBPROTOCOL if SUBPROTOCOL in request.subprotocols else None
        await stream.send_all(handshake.send(AcceptConnection(subprotocol=subprotocol)))
        assert handshake.connection is not None, "it was accepted"
        return Opened(handshake.connection, _token(headers.get(b"authorization"), request.subprotocols))
    raise NoUpgrade("too-slow")


async def _request(handshake: H11Handshake, stream: trio.SocketStream, data: bytes) -> Request:
    while True:
        try:
            handshake.receive_data(data)
        # The latter for a Host header that is no name.
        except (RemoteProtocolError, UnicodeError) as error:
            message = f"GET /v1/ws opens a WebSocket: {str(error)[:200]}"
            problem = Problem(code="upgrade-required", message=message, hint="connect with a WebSocket client")
            raise await _refused(handshake, stream, 426, problem) from None
        for event in handshake.events():
            if isinstance(event, Request):
                return event
        data = await stream.receive_some(_READ)
        if not data:
            raise NoUpgrade("gone")


async def _refused(handshake: H11Handshake, stream: trio.SocketStream, status: int, problem: Problem) -> NoUpgrade:
    body = msgspec.json.encode(ErrorReply(error=problem))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        (b"sec-websocket-version", b"13"),
    ]
    answer = handshake.send(RejectConnection(status_code=status, headers=headers, has_body=True))
    await stream.send_all(answer + handshake.send(RejectData(data=body)))
    return NoUpgrade(problem.code)


def _foreign(origin: bytes | None, allowed: frozenset[str]) -> Problem | None:
    """A browser always says whose page connects; other programs say nothing and are let through to show a token."""
    if origin is None or "*" in allowed:
        return None
    name = origin.decode("latin-1").lower()
    if name in allowed or is_loopback(_host_of(name)):
        return None
    message = f"pages of {name[:100]!r} may not use the live feed"
    return Problem(code="forbidden", message=message, hint="list the site in [live] origins")


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""


def _token(authorization: bytes | None, subprotocols: list[str]) -> str | None:
    if authorization is not None and authorization[:7].lower() == b"bearer ":
        return authorization[7:].strip().decode("latin-1")
    offered = [name for name in subprotocols if name.startswith(TOKEN_SUBPROTOCOL)]
    return offered[0].removeprefix(TOKEN_SUBPROTOCOL) if offered else None
