"""The newest events, in memory: what clients that come back have missed is answered from here."""

from __future__ import annotations

from collections import deque

import msgspec

from ...domain.live import Update
from .words import frame

#: Whatever their number: these many bytes of messages are kept at most.
MAX_BYTES = 32 << 20


class Told(msgspec.Struct, frozen=True):
    """An update, ready to be sent."""

    position: int
    room: str
    type: str
    frame: bytes
    #: Unix seconds of the commit.
    at: float


def told(update: Update) -> Told:
    return Told(update.position, update.room, update.type, frame(update.body), update.at)


class Window:
    """Everything behind `floor`, up to `head`; both are positions of the outbox."""

    def __init__(self, most: int, *, most_bytes: int = MAX_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._all: deque[Told] = deque()
        self._rooms: dict[str, deque[Told]] = {}
        self.floor = 0
        self.head = 0

    def restart(self, at: int) -> None:
        """Forget everything; events behind `at` will follow."""
        self._all.clear()
        self._rooms.clear()
        self._bytes = 0
        self.floor = self.head = at

    def pass_by(self, position: int) -> None:
        """Everything up to here was seen, whether it was for browsers or not."""
        self.head = max(self.head, position)

    def add(self, one: Told) -> None:
        self.head = one.position
        self._all.append(one)
        self._rooms.setdefault(one.room, deque()).append(one)
        self._bytes += len(one.frame)
        while len(self._all) > self._most or self._bytes > self._most_bytes:
            self._forget_oldest()

    def missed(self, room: str, after: int) -> list[Told]:
        """Oldest first."""
        return [one for one in self._rooms.get(room, ()) if one.position > after]

    def knows(self, position: int) -> bool:
        """Whether nothing behind `position` is missing here."""
        return self.floor <= position <= self.head

    def _forget_oldest(self) -> None:
        oldest = self._all.popleft()
        self.floor = oldest.position
        self._bytes -= len(oldest.frame)
        room = self._rooms[oldest.room]
        room.popleft()
        if not room:
            del self._rooms[oldest.room]
