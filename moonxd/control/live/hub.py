"""Rooms and who is in them. Joining reads the window and enters the room in one step, and every client knows how far it
was told: so nothing is missed between the two, and nothing is told twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

import trio

from .client import Client
from .window import Told, Window
from .words import NOTHING_JOINED, PING, TOKEN_EXPIRED, TOO_SLOW, Joined, Resync, answer

#: Sends between two looks at what else the loop has to do; about a millisecond.
_SLICE = 50
#: Bytes on their way to a client that reads what it missed, before we wait for it; and how long.
_REPLAY_AHEAD = 65536
_REPLAY_S = 60.0
#: Pings that may stay unanswered.
_SILENT_PINGS = 2.5
#: Messages a client may send in a second.
BUDGET = 50


class Meter(Protocol):
    """Where the feed counts. No label names a user."""

    def live_clients(self, count: int) -> None: ...

    def live_sent(self, kind: str, count: int, lag_s: float) -> None: ...

    def live_ended(self, why: str) -> None: ...


class Hub:
    """All clients of this daemon."""

    def __init__(self, window: Window, meter: Meter, *, ping_s: float) -> None:
        self.window = window
        self.clients: set[Client] = set()
        self._rooms: dict[str, dict[Client, None]] = {}
        self._meter = meter
        self._ping_s = ping_s
        #: Set while somebody is here.
        self.watched = trio.Event()
        self._emptied = trio.Event()
        #: Set once the window holds what it should.
        self.ready = trio.Event()

    def enter(self, client: Client) -> None:
        self.clients.add(client)
        self.watched.set()
        self._meter.live_clients(len(self.clients))

    def leave(self, client: Client) -> None:
        self.clients.discard(client)
        for room in tuple(client.rooms):
            self.leave_room(client, room)
        self._meter.live_clients(len(self.clients))
        self._meter.live_ended(client.ended or "vanished")
        if not self.clients:
            self.watched = trio.Event()
            self._emptied.set()
            self._emptied = trio.Event()

    async def empty(self) -> None:
        while self.clients:
            await self._emptied.wait()

    def leave_room(self, client: Client, room: str) -> None:
        client.rooms.pop(room, None)
        members = self._rooms.get(room)
        if members is not None:
            members.pop(client, None)
            if not members:
                del self._rooms[room]

    async def join(self, client: Client, room: str, after: int | None) -> None:
        """Enter a room; with `after`, what happened there behind that position is told first."""
        window = self.window
        if after is None and room in client.rooms:
            # Only the token is newer.
            client.push(answer(Joined(room, client.rooms[room])))
            return
        self.leave_room(client, room)
        at = window.head if after is None or not window.knows(after) else after
        client.push(answer(Joined(room, at)))
        if after is not None and not window.knows(after):
            client.push(answer(Resync(room, at)))
        await self._replay(client, room, at)

    async def _replay(self, client: Client, room: str, at: int) -> None:
        with trio.move_on_after(_REPLAY_S) as patience:
            while client.is_open:
                if not self.window.knows(at):
                    # It read so slowly that the window went past it.
                    at = self.window.head
                    client.push(answer(Resync(room, at)))
                missed = self.window.missed(room, at)
                if not missed:
                    # Nothing may wait between this look and the entry.
                    client.rooms[room] = at
                    self._rooms.setdefault(room, {})[client] = None
                    return
                at = await self._tell(client, missed)
        if patience.cancelled_caught:
            client.close(TOO_SLOW, "too slow: join again with lastEventId")

    async def _tell(self, client: Client, missed: list[Told]) -> int:
        for number, one in enumerate(missed, 1):
            client.push(one.frame)
            if client.unsent > _REPLAY_AHEAD:
                await client.drained()
            elif number % _SLICE == 0:
                await trio.lowlevel.checkpoint()
            if not client.is_open:
                break
        return missed[-1].position

    async def publish(self, one: Told) -> None:
        """Tell a room. Whoever joins meanwhile hears of it from the window."""
        members = tuple(self._rooms.get(one.room, ()))
        self.window.add(one)
        sent = 0
        for client in members:
            if client.rooms.get(one.room, one.position) < one.position:
                client.rooms[one.room] = one.position
                client.push(one.frame)
                sent += 1
                if sent % _SLICE == 0:
                    await trio.lowlevel.checkpoint()
        if sent:
            self._meter.live_sent(one.type, sent, max(0.0, time.time() - one.at))

    def close_all(self, code: int, reason: str) -> None:
        for client in tuple(self.clients):
            client.close(code, reason)

    def cut_all(self) -> None:
        for client in tuple(self.clients):
            client.cut("shutdown")

    # ---- who is gone, whose time is over -------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Until cancelled."""
        period = min(1.0, self._ping_s / 4)
        while True:
            await trio.sleep(period)
            for _ in slices(self._look_at_all()):
                await trio.lowlevel.checkpoint()

    def _look_at_all(self) -> Iterator[None]:
        for client in tuple(self.clients):
            self._look_at(client, trio.current_time(), time.time())
            yield

    def _look_at(self, client: Client, now: float, wall: float) -> None:
        client.budget = BUDGET
        if now > client.deadline:
            if client.is_open:
                client.close(NOTHING_JOINED, "no room was joined in time")
            else:
                client.cut("")
        elif client.identity is not None and wall > client.identity.expires_at:
            client.close(TOKEN_EXPIRED, "the token has expired: connect again with a new one")
        elif now - client.heard_at > _SILENT_PINGS * self._ping_s:
            client.cut("silent")
        elif now - client.pinged_at >= self._ping_s:
            client.pinged_at = now
            client.push(PING)


def slices(steps: Iterator[None]) -> Iterator[None]:
    """Something to wait at after every _SLICE steps."""
    for number, _ in enumerate(steps, 1):
        if number % _SLICE == 0:
            yield
