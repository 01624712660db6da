"""ports.Sink in memory, for tests and for trying out: it keeps what it was given, and fails when told to."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from ...domain.errors import SinkBroken, Transient, Undeliverable
from ...domain.message import Message
from ...domain.partition import partition_of


class MemorySink:
    """ports.Sink. Set the fields to make it fail."""

    def __init__(self, *, partitions: int = 4, most_bytes: int = 1_000_000) -> None:
        self.partitions = partitions
        #: The largest value that it takes.
        self.most_bytes = most_bytes
        #: Everything acknowledged or taken all the same, in order.
        self.taken: list[Message] = []
        #: Calls of `send`, whatever became of them.
        self.sends = 0
        self.is_away = False
        self.is_broken = False
        #: The next send takes this many of its messages, then says that it does not know.
        self.breaks_after: int | None = None

    async def partition(self, topic: str, key: str) -> int:
        await trio.lowlevel.checkpoint()
        if self.is_away:
            raise Transient("the sink is away")
        return partition_of(key, self.partitions)

    async def send(self, messages: Sequence[Message]) -> None:
        self.sends += 1
        await trio.lowlevel.checkpoint()
        if self.is_broken:
            raise SinkBroken("the sink is broken")
        if self.is_away:
            raise Transient("the sink is away")
        for position, message in enumerate(messages):
            if len(message.value) > self.most_bytes:
                raise Undeliverable(
                    f"a message of {len(message.value)} bytes for topic {message.topic}", positions=(position,)
                )
        if self.breaks_after is not None:
            self.taken += messages[: self.breaks_after]
            self.breaks_after = None
            raise Transient("the sink went away in the middle")
        self.taken += messages
