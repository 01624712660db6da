"""How events travel: out of the outbox into a broker, and out of a broker to us. The rules are those of the package."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from ..domain.ledger import Backlog, StoredEvent
from ..domain.message import Message, Received


class Sink(Protocol):
    """Where messages go: Kafka. One instance stands for one producer; a broken one is replaced, never mended."""

    async def partition(self, topic: str, key: str) -> int:
        """The partition that messages of `key` go to. Raises Transient while the broker cannot say."""
        ...

    async def send(self, messages: Sequence[Message]) -> None:
        """Hand over all of them, in the order given per key; returns once every one is acknowledged.

        Raises Transient when some may not have arrived: sending all of them again repeats ids, never order of the
        unsent. Raises SinkBroken when this producer will never send again. Raises Undeliverable when some will never
        be taken, being too large: send the others again without them. One call at a time.
        """
        ...


class Feed(Protocol):
    """Messages of some topics, shared with every daemon of one group; each is handed out at least once."""

    async def next(self, timeout: float) -> tuple[Received, ...]:
        """Some messages, in order per partition; none after `timeout` seconds without any, also with no broker."""
        ...

    async def commit(self) -> None:
        """Whatever `next` handed out is done with: a restart goes on behind it. Uncommitted messages come again."""
        ...


class Topic(Protocol):
    """All messages of one topic, read once and without a group: nobody else notices."""

    async def page(self) -> tuple[Received, ...]:
        """The next ones of those that were there when reading began, in order per partition; none at their end."""
        ...

    async def next(self, timeout: float) -> tuple[Received, ...]:
        """The next ones, whenever they were written; none after `timeout` seconds without any."""
        ...


class Drain(Protocol):
    """The outbox from the side of the one relay that empties it. Opened by `Publication.hold`.

    Every method raises LeaseLost once the right to publish is gone, Transient when the database only failed.
    """

    async def unpublished(self, after: int, limit: int) -> tuple[StoredEvent, ...]:
        """The oldest events behind the position `after` that nobody published, by position.

        Positions have no gaps and follow commit order per wallet; an event that commits later gets a higher one, so
        going on behind the last position read never skips one.
        """
        ...

    async def mark(self, positions: Sequence[int]) -> None:
        """These were acknowledged; marking again changes nothing."""
        ...

    async def park(self, position: int, reason: str) -> None:
        """This one can never be sent: it counts as published, and `reason` stands beside it."""
        ...

    async def confirm(self) -> None:
        """Asked before something is sent: returns only when no other relay can have taken over yet."""
        ...

    async def wait(self, timeout: float) -> bool:
        """True as soon as a commit may have added events, False after `timeout` seconds."""
        ...


class Publication(Protocol):
    """The right to publish: one relay at a time for all daemons of one ledger."""

    def hold(self) -> AbstractAsyncContextManager[Drain]:
        """Wait until no other relay holds it, then hold it. A holder that dies lets go within seconds.

        Raises ConfigError when the way to the database cannot carry the hold.
        """
        ...

    async def backlog(self) -> Backlog:
        """What is committed and not yet published."""
        ...

    async def holdup(self, longer_s: float) -> str | None:
        """A sentence about what has slowed reading down for more than `longer_s` seconds: who, since when."""
        ...
