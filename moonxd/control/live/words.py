"""What is said on the wire: clients' messages, our answers, close codes. docs/contract.md shows them to programmers."""

from __future__ import annotations

import msgspec
from wsproto.connection import Connection, ConnectionType
from wsproto.events import Ping, TextMessage

#: Bytes of one message of a client; a join with a long token has 2,000.
MAX_MESSAGE = 16384
SUBPROTOCOL = "moonxd.v1"
#: A browser cannot set a header: it offers its token as a second subprotocol.
TOKEN_SUBPROTOCOL = "token."

# Close codes. 1000 to 1011 are the protocol's own.
GOING_AWAY = 1001
NOT_TEXT = 1003
MISBEHAVED = 1008
TOO_LARGE = 1009
TOO_SLOW = 4008
TOKEN_EXPIRED = 4401
NOTHING_JOINED = 4408


class Join(msgspec.Struct, tag="join_room", tag_field="type", rename="camel"):
    room: str
    token: str | None = None
    #: `id` of the last message that the client had of this room.
    last_event_id: int | str | None = None


class Leave(msgspec.Struct, tag="leave_room", tag_field="type"):
    room: str


class AppPing(msgspec.Struct, tag="ping", tag_field="type"):
    """For pages, which cannot send the protocol's own."""


class Joined(msgspec.Struct, tag="joined", tag_field="type"):
    """Events of `room` behind `id` follow."""

    room: str
    id: int


class Left(msgspec.Struct, tag="left", tag_field="type"):
    room: str


class Resync(msgspec.Struct, tag="resync", tag_field="type"):
    """More was missed than is kept: load what is shown anew; events of `room` behind `id` follow."""

    room: str
    id: int


class AppPong(msgspec.Struct, tag="pong", tag_field="type"):
    pass


class Complaint(msgspec.Struct, tag="error", tag_field="type", omit_defaults=True):
    """`code`: malformed | unknown_room | token_required | token_invalid | token_expired | other_user | forbidden |
    too_many_rooms | unavailable"""

    code: str
    message: str
    room: str | None = None


Said = Join | Leave | AppPing
Answer = Joined | Left | Resync | AppPong | Complaint

_SAID = msgspec.json.Decoder(Said)
#: A server's frames are not masked, so one connection can write those of all. Only text and pings: they change nothing.
_WRITER = Connection(ConnectionType.SERVER)


def frame(body: bytes) -> bytes:
    """A whole text message on the wire, the same for every client."""
    return _WRITER.send(TextMessage(data=body.decode()))


PING = _WRITER.send(Ping())


def answer(said: Answer) -> bytes:
    return frame(msgspec.json.encode(said))


def understood(text: str) -> Said | None:
    """None when it is no message of a client."""
    try:
        said: Said = _SAID.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
    return said


def event_id(given: int | str) -> int | None:
    """An id as it was sent, or as text; None when it is none."""
    if isinstance(given, str):
        given = int(given) if given.isascii() and given.isdigit() and len(given) < 20 else -1
    return given if given >= 0 else None
