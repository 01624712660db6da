"""Joining while a room is being told: the steps of both in every order that the loop may choose."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest
import trio
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from moonxd.control.live.client import Client
from moonxd.control.live.hub import Hub
from moonxd.control.live.window import Told, Window
from moonxd.control.live.words import frame
from tests.control.live_harness import Counts

ROOM = "stats"
#: More than are told without a pause.
MEMBERS = 130
EVENTS = 12


def one(position: int) -> Told:
    return Told(position, ROOM, "t", frame(json.dumps({"id": position}).encode()), 0.0)


class Member:
    """A client of the hub, and what arrived at the other end of its socket."""

    def __init__(self, nursery: trio.Nursery) -> None:
        near, self._far = trio.socket.socketpair()
        self.stream = trio.SocketStream(near)
        self.client = Client(self.stream, Connection(ConnectionType.SERVER), nursery, limit=1 << 20)

    async def told(self) -> list[int]:
        """Ends the connection."""
        self.client.cut("")
        wire = Connection(ConnectionType.CLIENT)
        while data := await self._far.recv(65536):
            wire.receive_data(data)
        self._far.close()
        return list(_ids(wire))


def _ids(wire: Connection) -> Iterator[int]:
    text = ""
    for event in wire.events():
        assert isinstance(event, TextMessage)
        text += str(event.data)
        if event.message_finished:
            said, text = json.loads(text), ""
            if "type" not in said:
                yield said["id"]


@pytest.mark.parametrize("seed", range(6))
async def test_nobody_misses_anything_or_hears_it_twice(seed: int) -> None:
    chance = random.Random(seed)
    hub = Hub(Window(1000), Counts(), ping_s=20)
    async with trio.open_nursery() as nursery:
        members = [Member(nursery) for _ in range(MEMBERS)]
        for member in members:
            hub.enter(member.client)
            await hub.join(member.client, ROOM, 0)

        async def rejoin(member: Member) -> None:
            for _ in range(chance.randrange(12)):
                await trio.lowlevel.checkpoint()
            last = member.client.rooms[ROOM]
            hub.leave_room(member.client, ROOM)
            for _ in range(chance.randrange(4)):
                await trio.lowlevel.checkpoint()
            await hub.join(member.client, ROOM, last)

        for position in range(1, EVENTS + 1):
            async with trio.open_nursery() as together:
                together.start_soon(hub.publish, one(position))
                for member in chance.sample(members, 40):
                    together.start_soon(rejoin, member)
        for member in members:
            assert await member.told() == list(range(1, EVENTS + 1))
