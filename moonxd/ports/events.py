"""How events travel: out of the outbox into a broker, and out of a broker to us. The rules are those of the package."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from ..domain.ledger import StoredEvent
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
    """The outbox from the side of the one relay that empties it. Opened by `Publication.hold`."""

    async def unpublished(self, limit: int) -> tuple[StoredEvent, ...]:
        """The oldest events nobody published, in commit order per wallet; none is ever skipped by a later commit."""
        ...

    async def mark(self, positions: Sequence[int]) -> None:
        """These were acknowledged; marking again changes nothing. Raises LeaseLost when another relay took over."""
        ...

    async def wait(self, timeout: float) -> bool:
        """True as soon as a commit may have added events, False after `timeout` seconds."""
        ...


class Publication(Protocol):
    """The right to publish: one relay at a time for all daemons of one ledger."""

    def hold(self) -> AbstractAsyncContextManager[Drain]:
        """Wait until no other relay holds it, then hold it. A holder that dies lets go within seconds."""
        ...

    async def holdup(self) -> str | None:
        """Why committed events cannot be read yet (a long transaction: who, since when), None when nothing is."""
        ...
