"""A broker that keeps what it is sent and fails when told to, and a relay around it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import trio

from moonxd.agents.relay import Patience, Relay
from moonxd.domain.errors import SinkBroken, Undeliverable
from moonxd.domain.event import JSON
from moonxd.domain.ledger import Event, StoredEvent
from moonxd.domain.message import Message
from moonxd.domain.operation import event_id, operation_id
from moonxd.ports import Publication

PATIENCE = Patience(first_s=0.1, longest_s=1.0, failures=3)


class Broker:
    """`faults` are used up one per send: an error, or (error, n) to raise it after n messages have arrived."""

    def __init__(self) -> None:
        self.records: list[Message] = []
        self.faults: deque[Exception | tuple[Exception, int]] = deque()
        self.refused_opens: deque[Exception] = deque()
        self.opened = 0
        self.largest = 1_000_000
        self.send_s = 0.0

    @asynccontextmanager
    async def sink(self) -> AsyncIterator[MemorySink]:
        await trio.lowlevel.checkpoint()
        if self.refused_opens:
            raise self.refused_opens.popleft()
        self.opened += 1
        yield MemorySink(self)

    def accept(self, messages: Sequence[Message]) -> None:
        fault, count = None, len(messages)
        if self.faults:
            told = self.faults.popleft()
            fault, count = told if isinstance(told, tuple) else (told, 0)
        too_large = tuple(n for n, message in enumerate(messages) if len(message.value) > self.largest)
        if too_large:
            raise Undeliverable("a record is too large", positions=too_large)
        self.records.extend(messages[:count])
        if fault is not None:
            raise fault

    def ids(self) -> list[str]:
        return [dict(record.headers)["event-id"] for record in self.records]

    def effect(self) -> list[Message]:
        """What a reader that skips known ids sees."""
        return list({dict(record.headers)["event-id"]: record for record in reversed(self.records)}.values())[::-1]


class MemorySink:
    """A `ports.Sink`; once broken it stays so."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._is_broken = False

    async def partition(self, topic: str, key: str) -> int:
        await trio.lowlevel.checkpoint()
        return len(key) % 3

    async def send(self, messages: Sequence[Message]) -> None:
        await trio.sleep(self._broker.send_s)
        if self._is_broken:
            raise SinkBroken("this producer was fenced")
        try:
            self._broker.accept(messages)
        except SinkBroken:
            self._is_broken = True
            raise


class Meter:
    def __init__(self) -> None:
        self.topics: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()

    def published(self, topics: Mapping[str, int], seconds: float) -> None:
        self.topics.update(topics)

    def publish_failed(self, kind: str) -> None:
        self.errors[kind] += 1


class Bench:
    """One relay on `publication`, what it reported, and whom it told."""

    def __init__(self, publication: Publication, broker: Broker, **more: Any) -> None:
        self.broker = broker
        self.meter = Meter()
        self.told: list[tuple[str, str, str, dict[str, Any]]] = []
        self.relay = Relay(
            publication,
            topics={"sync.events": "syncs"},
            patience=PATIENCE,
            notify=lambda *what: self.told.append(what),
            meter=self.meter,
            **more,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.relay.run, lambda: None, self.broker.sink)
            yield
            nursery.cancel_scope.cancel()


def sync_event(user: str, wallet: str, number: int, *, padding: int = 0) -> Event:
    """An event as domain/event.py writes them."""
    operation = operation_id("sync-jobs", f"{wallet}-{number}", number)
    identity = event_id(operation, "sync.completed", "")
    metadata = {"eventId": str(identity), "correlationId": str(operation), "source": "moonxd"}
    body = {"metadata": metadata, "userId": user, "data": {"n": number, "padding": "x" * padding}}
    return Event(
        id=identity, type="sync.completed", topic="sync.events", key=user, wallet=wallet, body=JSON.encode(body)
    )


def number_of(message: Message) -> int:
    number: int = msgspec.json.decode(message.value)["data"]["n"]
    return number


def stored(event: Event, position: int = 7) -> StoredEvent:
    return StoredEvent(position=position, event=event, created_at=datetime.now(UTC))


async def until(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    async def ask() -> bool:
        return condition()

    with trio.fail_after(within_s):
        await eventually(ask, True)


async def eventually(ask: Callable[[], Awaitable[Any]], wanted: Any) -> None:
    """Wait until `ask` answers `wanted`. To be bounded by the caller."""
    while True:
        if await ask() == wanted:
            return
        await trio.sleep(0.01)
