"""GET /v1/ws: one browser from its request to its last frame. connections.py hands its sockets over before the HTTP
server sees them: docs/adr/0058 says why."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass

import trio
from wsproto.connection import Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.utilities import ProtocolError

from ...api.messages import Problem
from ...domain.live import Identity, TokenRefused, is_room, may_enter
from ...ports import Outbox
from .client import Client
from .handshake import NoUpgrade, Opened, shake_hands
from .hub import BUDGET, Hub, Meter
from .tail import Tail
from .window import Window
from .words import (
    GOING_AWAY,
    MAX_MESSAGE,
    MISBEHAVED,
    NOT_TEXT,
    TOKEN_EXPIRED,
    TOO_LARGE,
    AppPing,
    AppPong,
    Complaint,
    Join,
    Leave,
    Left,
    answer,
    event_id,
    understood,
)

log = logging.getLogger("moonxd.control.live")

_READ = 4096
#: Bytes that the kernel takes for a client.
_SEND_BUFFER = 65536
#: Seconds until a client has to be in a room.
_JOIN_S = 10.0
#: Seconds that a join waits for the outbox to be read.
_READY_S = 5.0
#: A page shows one user, the statistics and perhaps the system.
_MAX_ROOMS = 16


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What holds for all clients. Times are in seconds."""

    public_stats: bool = False
    origins: frozenset[str] = frozenset()
    max_clients: int = 5000
    backlog_bytes: int = 262_144
    ping_s: float = 20.0
    replay_events: int = 10_000


class LiveFeed:
    """The live feed of one daemon. `check` says whose a token is, or raises TokenRefused; None: the feed is off."""

    start = b"GET /v1/ws"

    def __init__(self, check: Callable[[str], Identity] | None, outbox: Outbox, meter: Meter, terms: Terms) -> None:
        self._check = check
        self._terms = terms
        self.hub = Hub(Window(terms.replay_events), meter, ping_s=terms.ping_s)
        self._tail = Tail(outbox, self.hub, keep=terms.replay_events)
        self._is_closing = False
        self._nursery: trio.Nursery | None = None

    def nudge(self) -> None:
        """Events were committed in this process."""
        self._tail.nudge()

    async def run(self) -> None:
        """What runs beside the conversations, until cancelled."""
        if self._check is None:
            return
        async with trio.open_nursery() as nursery:
            # Clients whose socket is full write from here; such a task ends with its socket.
            self._nursery = nursery
            nursery.start_soon(self._tail.run)
            nursery.start_soon(self.hub.sweep)

    def open(self) -> None:
        """Let clients in (again)."""
        self._is_closing = False

    def quiet(self) -> None:
        """The daemon stops: say goodbye to everybody."""
        self._is_closing = True
        self.hub.close_all(GOING_AWAY, "the daemon stops: connect again in a moment")

    async def ended(self) -> None:
        await self.hub.empty()

    def cut(self) -> None:
        self.hub.cut_all()

    async def serve(self, stream: trio.SocketStream, early: bytes) -> None:
        """Converse with a client whose request began with `early`."""
        try:
            async with stream:
                opened = await shake_hands(stream, early, self._closed(), self._terms.origins)
                await self._admit(stream, opened)
        except NoUpgrade as refused:
            log.debug("a request for the live feed became no WebSocket", extra={"reason": str(refused)})
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            log.debug("a client of the live feed went away")

    def _closed(self) -> Problem | None:
        if self._check is None:
            return Problem(code="off", message="the live feed is off", hint="set a key in [live] to check tokens with")
        if self._is_closing or self._nursery is None:
            return Problem(code="unavailable", message="the daemon stops", hint="connect again in a moment")
        if len(self.hub.clients) >= self._terms.max_clients:
            return Problem(code="busy", message="too many clients are connected", hint="raise [live] max_clients")
        return None

    async def _admit(self, stream: trio.SocketStream, opened: Opened) -> None:
        assert self._nursery is not None, "_closed() looked"
        # Else the kernel would keep megabytes for a client that does not read.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        client = Client(stream, opened.wire, self._nursery, limit=self._terms.backlog_bytes)
        client.deadline, client.budget = trio.current_time() + _JOIN_S, BUDGET
        self.hub.enter(client)
        try:
            if self._is_closing:
                # Its handshake was on the way when everybody was told.
                self.quiet()
            if opened.token is not None:
                self._identify_first(client, opened.token)
            await self._listen(client, stream)
        finally:
            client.cut("vanished")
            self.hub.leave(client)

    def _identify_first(self, client: Client, token: str) -> None:
        try:
            client.identity = self._identity(token)
        except TokenRefused as refused:
            client.push(answer(Complaint(refused.code, str(refused))))
            client.close(TOKEN_EXPIRED, "the token was refused")

    # ---- what a client says --------------------------------------------------------------------------------------

    async def _listen(self, client: Client, stream: trio.SocketStream) -> None:
        wire, text = client.wire, ""
        while wire.state is not ConnectionState.CLOSED:
            data = await stream.receive_some(_READ)
            if not data:
                client.cut("vanished")
                return
            client.heard_at = trio.current_time()
            try:
                wire.receive_data(data)
                text = await self._events(client, wire, text)
            except ProtocolError:
                client.cut("broken")
                return
        await client.drained()

    async def _events(self, client: Client, wire: Connection, text: str) -> str:
        """`text` is what came of a message so far; the same afterwards."""
        for event in wire.events():
            if isinstance(event, CloseConnection):
                if wire.state is ConnectionState.OPEN:
                    # A frame that could not be parsed: this is the code to say so.
                    client.close(int(event.code), "protocol error")
                else:
                    client.agree(event)
            elif not client.is_open:
                continue
            elif isinstance(event, Ping):
                client.pong(bytes(event.payload))
            elif isinstance(event, BytesMessage):
                client.close(NOT_TEXT, "messages are JSON in text frames")
            elif isinstance(event, TextMessage):
                text += event.data
                if len(text) > MAX_MESSAGE:
                    client.close(TOO_LARGE, f"a message has at most {MAX_MESSAGE} characters")
                elif event.message_finished:
                    whole, text = text, ""
                    await self._hear(client, whole)
        return text

    async def _hear(self, client: Client, text: str) -> None:
        client.budget -= 1
        if client.budget < 0:
            client.close(MISBEHAVED, f"more than {BUDGET} messages a second")
            return
        match understood(text):
            case Join() as join:
                await self._join(client, join)
            case Leave(room):
                self.hub.leave_room(client, room)
                client.push(answer(Left(room[:300])))
            case AppPing():
                client.push(answer(AppPong()))
            case None:
                message = "this is no message of a client: send join_room, leave_room or ping as JSON"
                client.push(answer(Complaint("malformed", message)))

    async def _join(self, client: Client, join: Join) -> None:
        complaint = self._let_in(client, join)
        after = event_id(join.last_event_id) if join.last_event_id is not None else None
        if complaint is None and join.last_event_id is not None and after is None:
            complaint = Complaint("malformed", "lastEventId is the id of a message: a whole number", join.room)
        if complaint is None:
            with trio.move_on_after(_READY_S) as patience:
                await self.hub.ready.wait()
            if patience.cancelled_caught:
                complaint = Complaint("unavailable", "events cannot be read now: join again in a moment", join.room)
        if complaint is not None:
            client.push(answer(complaint))
        elif client.is_open:
            await self.hub.join(client, join.room, after)
            client.deadline = client.deadline if not client.is_open else float("inf")

    def _let_in(self, client: Client, join: Join) -> Complaint | None:
        """Why not, or None. A token that fits becomes the client's, in place of an older one."""
        room = join.room
        if not is_room(room):
            return Complaint("unknown_room", "rooms are user:<id>, stats and system", room[:300])
        try:
            shown = self._identity(join.token) if join.token is not None else None
        except TokenRefused as refused:
            return Complaint(refused.code, str(refused), room)
        if shown is not None and client.identity is not None and shown.user_id != client.identity.user_id:
            return Complaint("other_user", "this connection is another user's: open one of your own", room)
        client.identity = shown or client.identity
        if not may_enter(room, client.identity, public_stats=self._terms.public_stats):
            if client.identity is None:
                return Complaint("token_required", "show a token: {type, room, token}", room)
            return Complaint("forbidden", "the token does not let into this room", room)
        if room not in client.rooms and len(client.rooms) >= _MAX_ROOMS:
            return Complaint("too_many_rooms", f"at most {_MAX_ROOMS} rooms a connection", room)
        return None

    def _identity(self, token: str) -> Identity:
        assert self._check is not None, "nobody is let in without"
        return self._check(token)
