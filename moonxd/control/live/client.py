"""One browser: what goes out to it. Frames are shared by all clients; only what its socket did not take yet is kept.

Two thousand of them must cost little: one task each, which reads. Writing needs a task only while a socket is full.
"""

from __future__ import annotations

import math
import os
from collections import deque

import trio
from wsproto.connection import Connection, ConnectionState
from wsproto.events import CloseConnection, Event, Pong
from wsproto.utilities import LocalProtocolError

from ...domain.live import Identity
from .words import GOING_AWAY, TOO_SLOW

#: Seconds that a client gets to read what closes it.
FAREWELL_S = 5.0
#: Why a connection ended, for the metric: ours by close code, the others by word.
_ENDINGS = {
    1000: "closed",
    GOING_AWAY: "shutdown",
    1003: "not-text",
    1008: "misbehaved",
    1009: "too-large",
    TOO_SLOW: "slow",
    4401: "token-expired",
    4408: "nothing-joined",
}


class Client:
    """`limit` is in bytes. Every method returns at once unless it is async."""

    __slots__ = (
        "_backlog", "_flushed", "_flushing", "_is_closed", "_limit", "_nursery", "_stream", "_wire",
        "budget", "deadline", "ended", "heard_at", "identity", "pinged_at", "rooms", "unsent",
    )  # fmt: skip

    def __init__(self, stream: trio.SocketStream, wire: Connection, nursery: trio.Nursery, *, limit: int) -> None:
        self._stream = stream
        self._wire = wire
        self._nursery = nursery
        self._limit = limit
        self._backlog: deque[bytes] = deque()
        self._flushing = False
        self._flushed: trio.Event | None = None
        self._is_closed = False
        #: Bytes of the backlog.
        self.unsent = 0
        #: Room -> the position it was told last.
        self.rooms: dict[str, int] = {}
        self.identity: Identity | None = None
        self.heard_at = self.pinged_at = trio.current_time()
        #: When it is cut off whatever it does then.
        self.deadline = math.inf
        #: Why it ended, once it does.
        self.ended: str | None = None
        #: Messages it may still send in this second.
        self.budget = 0

    @property
    def wire(self) -> Connection:
        return self._wire

    @property
    def is_open(self) -> bool:
        return self.ended is None

    def push(self, frame: bytes) -> None:
        """Send a whole frame, now or as soon as its socket takes it."""
        if self.ended is None:
            self._write(frame)
            # One message may be larger than the limit: the oldest does not count.
            if self._backlog and self.unsent - len(self._backlog[0]) > self._limit:
                self._drop_backlog()
                self.close(TOO_SLOW, "too slow: messages were lost, join again with lastEventId")

    def pong(self, payload: bytes) -> None:
        if self.ended is None:
            self.push(self._wire.send(Pong(payload=payload)))

    def close(self, code: int, reason: str) -> None:
        """Say goodbye; the connection ends when the client agrees, or FAREWELL_S later."""
        if self.ended is not None:
            return
        self.ended = _ENDINGS.get(code, "broken")
        self.deadline = trio.current_time() + FAREWELL_S
        self._say(CloseConnection(code=code, reason=reason))

    def agree(self, farewell: CloseConnection) -> None:
        """The client said goodbye, or answered ours."""
        if self.ended is None:
            self.ended = "closed" if farewell.code in (1000, 1001, 1005) else "broken"
        self.deadline = min(self.deadline, trio.current_time() + FAREWELL_S)
        if self._wire.state is ConnectionState.REMOTE_CLOSING:
            self._say(farewell.response())

    def cut(self, why: str) -> None:
        """End it now; whoever waits for its socket wakes up with ClosedResourceError."""
        self.ended = self.ended or why
        if not self._is_closed:
            self._is_closed = True
            self._backlog.clear()
            self.unsent = 0
            self._announce()
            self._stream.socket.close()

    async def drained(self) -> None:
        """Until nothing is left to send."""
        while self._backlog:
            self._flushed = self._flushed or trio.Event()
            await self._flushed.wait()

    # ---- writing -------------------------------------------------------------------------------------------------

    def _say(self, event: Event) -> None:
        try:
            self._write(self._wire.send(event))
        except LocalProtocolError:
            self.cut("broken")

    def _write(self, frame: bytes) -> None:
        if self._is_closed:
            return
        rest = frame if self._backlog else self._send(frame)
        if rest:
            self._backlog.append(rest)
            self.unsent += len(rest)
            if not self._flushing:
                self._flushing = True
                self._nursery.start_soon(self._flush)

    def _send(self, frame: bytes) -> bytes:
        """Hand over what the socket takes without waiting; the rest."""
        try:
            return frame[os.write(self._stream.socket.fileno(), frame) :]
        except BlockingIOError:
            return frame
        except OSError:
            self.cut("vanished")
            return b""

    async def _flush(self) -> None:
        try:
            while self._backlog:
                await trio.lowlevel.wait_writable(self._stream.socket)
                self._take_some()
        except trio.ClosedResourceError:
            pass
        finally:
            self._flushing = False
            self._announce()

    def _take_some(self) -> None:
        while self._backlog:
            whole = self._backlog[0]
            rest = self._send(whole)
            if self._is_closed:
                return
            self.unsent -= len(whole) - len(rest)
            if rest:
                self._backlog[0] = rest
                return
            self._backlog.popleft()

    def _drop_backlog(self) -> None:
        """All but the frame that the client may have a part of."""
        first = self._backlog[0]
        self._backlog.clear()
        self._backlog.append(first)
        self.unsent = len(first)

    def _announce(self) -> None:
        if self._flushed is not None:
            self._flushed.set()
            self._flushed = None
