"""Publishes committed events: hold the right to, read a page, send it, mark it. One relay at a time for all daemons.

Reading ahead, sending and marking overlap, each in order: a page is sent after the one before it was acknowledged, and
marked after that. What was sent and not yet marked when somebody dies is sent again, with the same ids and sequence.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec
import trio

from ..domain.errors import (
    ConfigError,
    LeaseLost,
    MoonxdError,
    Permanent,
    SinkBroken,
    Transient,
    Undeliverable,
    describe,
    single,
)
from ..domain.ledger import StoredEvent
from ..domain.message import Message, message_of
from ..domain.paging import next_rows
from ..log import log_once_per
from ..ports import Drain, Publication, Sink

log = logging.getLogger("moonxd.relay")
R = TypeVar("R")

#: Events read at a time.
PAGE = 500
#: Seconds from one look to the next while there is little: the events of that time share a page.
LINGER_S = 0.015
#: Seconds without a commit after which the outbox is looked at all the same.
IDLE_S = 5.0
#: Bytes of events made into messages between two looks at what else the loop has to do; about two milliseconds.
SLICE_BYTES = 256 * 1024
#: (kind, message, severity, metadata): who has to know is told.
Notify = Callable[[str, str, str, dict[str, Any]], None]
OpenSink = Callable[[], AbstractAsyncContextManager[Sink]]
Mirror = Callable[[StoredEvent], tuple[Message, ...]]
Pages = trio.MemorySendChannel[tuple[StoredEvent, ...]]
PagesIn = trio.MemoryReceiveChannel[tuple[StoredEvent, ...]]


class Meter(Protocol):
    """What the relay reports to."""

    def published(self, topics: Mapping[str, int], seconds: float) -> None: ...

    def publish_failed(self, kind: str) -> None: ...


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """Pauses after failures in a row double from `first_s` to `longest_s`; from `failures` on the relay is failing."""

    first_s: float = 0.1
    longest_s: float = 1.0
    failures: int = 3

    def delay(self, failures: int, rand: float) -> float:
        full = min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 30))
        return full * (0.5 + 0.5 * rand)


class Relay:
    """`topics` maps an event's topic to the broker's; `mirror` says what else an event becomes."""

    def __init__(
        self,
        publication: Publication,
        *,
        topics: Mapping[str, str],
        patience: Patience,
        notify: Notify,
        meter: Meter,
        mirror: Mirror = lambda _: (),
        page: int = PAGE,
    ) -> None:
        self._publication = publication
        self._topics = topics
        self._patience = patience
        self._notify = notify
        self._meter = meter
        self._mirror = mirror
        self._page = page
        #: standby | holding, or down while it does not run at all.
        self.state = "down"
        #: In a row; 0 as soon as something was sent.
        self.failures = 0
        self._last_error = ""
        self._is_alerted = False
        #: Pages read and not yet marked.
        self._in_flight = 0
        self._flushes: list[trio.Event] = []
        self._waiting = trio.CancelScope()

    def trouble(self) -> str | None:
        """Why nothing leaves; None while all is well."""
        return self._last_error if self._is_alerted else None

    async def run(self, ready: Callable[[], None], open_sink: OpenSink) -> None:
        """`open_sink` makes a new producer each time it is asked."""
        ready()
        self.state = "standby"
        try:
            while True:
                try:
                    async with self._publication.hold() as drain:
                        self.state = "holding"
                        log.info("this daemon publishes events now")
                        await self._publish(drain, open_sink)
                except LeaseLost as error:
                    log.warning("%s", error)
                    pause = self._patience.first_s
                except Transient as error:
                    # The database: its own messages are enough, and its events wait in it.
                    _waits(error)
                    pause = self._patience.longest_s
                self.state = "standby"
                self._settle(self._flushes)
                await trio.sleep(pause)
        finally:
            self.state = "down"
            self._settle(self._flushes)

    async def flush(self, within_s: float) -> bool:
        """Publish what is committed by now, if that works at once; whether it did. Bounded by `within_s`."""
        if self.state != "holding" or self.failures:
            return False
        done = trio.Event()
        self._flushes.append(done)
        self._waiting.cancel()
        with trio.move_on_after(within_s):
            await done.wait()
        return done.is_set() and not self.failures

    # ---- one hold ------------------------------------------------------------------------------------------------

    async def _publish(self, drain: Drain, open_sink: OpenSink) -> None:
        """Returns never; a producer that is broken or cannot be built is replaced."""
        while True:
            # Without a broker nothing else would tell that the right to publish went to another daemon.
            await drain.confirm()
            try:
                async with open_sink() as sink:
                    await self._pump(drain, sink)
            except (SinkBroken, Transient, ConfigError) as error:
                # A login that is refused may be accepted when the broker has its users again: we never give up.
                await self._failed(error)

    async def _pump(self, drain: Drain, sink: Sink) -> None:
        """Read, send and mark until something breaks."""
        read, to_send = trio.open_memory_channel[tuple[StoredEvent, ...]](1)
        sent, to_mark = trio.open_memory_channel[tuple[StoredEvent, ...]](4)
        self._in_flight = 0
        failure: MoonxdError | None = None
        try:
            async with trio.open_nursery() as nursery:
                reading = trio.CancelScope()
                nursery.start_soon(self._read, drain, read, reading)
                nursery.start_soon(self._mark, drain, to_mark)
                async with sent, to_send:
                    try:
                        async for page in to_send:
                            await self._send_all(drain, sink, page)
                            await sent.send(page)
                    except (SinkBroken, LeaseLost) as error:
                        failure = error
                    reading.cancel()
                # What was acknowledged is still marked: the nursery waits for that.
        except ExceptionGroup as group:
            raise _told(group) from group
        if failure is not None:
            raise failure

    async def _read(self, drain: Drain, pages: Pages, scope: trio.CancelScope) -> None:
        after, rows = 0, self._page
        # Not `async with`: whoever reads the other end cancels us when it is closed, in place of what we raise.
        with scope, pages:
            while True:
                asked = tuple(self._flushes)
                page = await self._patiently(partial(drain.unpublished, after, rows))
                if page:
                    after = page[-1].position
                    self._in_flight += 1
                    await pages.send(page)
                    if len(page) < rows:
                        await trio.sleep(LINGER_S)
                    rows = next_rows(page, self._page)
                elif asked and self._in_flight:
                    await trio.sleep(LINGER_S)
                else:
                    self._settle(asked)
                    await self._sleep(drain)

    async def _sleep(self, drain: Drain) -> None:
        with trio.CancelScope() as self._waiting:
            if not self._flushes:
                await self._patiently(partial(drain.wait, IDLE_S))

    def _settle(self, flushes: Sequence[trio.Event]) -> None:
        for flush in tuple(flushes):
            flush.set()
            self._flushes.remove(flush)

    async def _mark(self, drain: Drain, pages: PagesIn) -> None:
        async for page in pages:
            positions = [one.position for one in page]
            await self._patiently(partial(drain.mark, positions))
            self._in_flight -= 1

    async def _patiently(self, ask: Callable[[], Awaitable[R]]) -> R:
        """The ledger's answer, however often it fails first. LeaseLost is for others."""
        failures = 0
        while True:
            try:
                return await ask()
            except Transient as error:
                failures += 1
                _waits(error)
                await trio.sleep(self._patience.delay(failures, random.random()))

    # ---- sending -------------------------------------------------------------------------------------------------

    async def _send_all(self, drain: Drain, sink: Sink, page: Sequence[StoredEvent]) -> None:
        """Until all of `page` is acknowledged or parked. Raises SinkBroken, LeaseLost."""
        batch: list[tuple[StoredEvent, Message]] = []
        while True:
            try:
                batch = await self._messages(drain, sink, page)
                await self._patiently(drain.confirm)
                await self._send(sink, [message for _, message in batch])
                return
            except Transient as error:
                await self._failed(error)
            except Undeliverable as error:
                culprits = {batch[n][0].position: batch[n][0] for n in error.positions}
                for culprit in culprits.values():
                    await self._park(drain, culprit, error)
                page = [stored for stored in page if stored.position not in culprits]

    async def _messages(
        self, drain: Drain, sink: Sink, page: Sequence[StoredEvent]
    ) -> list[tuple[StoredEvent, Message]]:
        """What `page` becomes; an event that is no event is parked."""
        batch: list[tuple[StoredEvent, Message]] = []
        size = 0
        for stored in page:
            size += len(stored.event.body)
            if size > SLICE_BYTES:
                size = 0
                await trio.lowlevel.checkpoint()
            topic = self._topics.get(stored.event.topic, stored.event.topic)
            try:
                main = message_of(stored, topic, await sink.partition(topic, stored.event.key))
            except Permanent as error:
                await self._park(drain, stored, error)
                continue
            batch.append((stored, main))
            batch.extend((stored, more) for more in self._mirror(stored))
        return batch

    async def _send(self, sink: Sink, messages: Sequence[Message]) -> None:
        began = trio.current_time()
        await sink.send(messages)
        self._meter.published(Counter(message.topic for message in messages), trio.current_time() - began)
        self._worked()

    async def _park(self, drain: Drain, stored: StoredEvent, error: Permanent) -> None:
        await self._patiently(partial(drain.park, stored.position, str(error)))
        self._meter.publish_failed("parked")
        event = stored.event
        self._notify(
            "event_parked",
            f"event {event.id} ({event.type}) at position {stored.position} cannot be published and was set aside: "
            f"{error}",
            "critical",
            {"eventId": str(event.id), "eventType": event.type, "position": stored.position},
        )

    # ---- how it goes ---------------------------------------------------------------------------------------------

    async def _failed(self, error: MoonxdError) -> None:
        """Note a failure and wait until it makes sense to try again."""
        self.failures += 1
        self._last_error = describe(error)
        self._meter.publish_failed("broken" if isinstance(error, SinkBroken) else "transient")
        self._settle(self._flushes)
        # An outage of hours is one alert, not a line a second.
        log.log(logging.DEBUG if self._is_alerted else logging.WARNING, "publishing failed: %s", self._last_error)
        if self.failures >= max(1, self._patience.failures) and not self._is_alerted:
            self._is_alerted = True
            self._notify(
                "kafka_failing",
                f"events cannot be published ({self.failures} failures in a row): {self._last_error}. They stay in "
                "the outbox, jobs go on",
                "critical",
                {"raised": True, "failures": self.failures},
            )
        await trio.sleep(self._patience.delay(self.failures, random.random()))

    def _worked(self) -> None:
        failures, self.failures = self.failures, 0
        if self._is_alerted:
            self._is_alerted = False
            self._notify(
                "kafka_failing",
                f"over: events are published again after {failures} failures",
                "info",
                {"raised": False, "failures": failures},
            )


def _waits(error: Transient) -> None:
    """A line a minute: an outage of the database lasts, and the pool tells of it too."""
    log_once_per(60.0, log, logging.INFO, "the relay waits for the ledger: %s", error)


def _told(group: ExceptionGroup[Exception]) -> Exception:
    """The one error that says what to do; the group itself when something unexpected is among them."""
    foreign, ours = group.split(lambda error: not isinstance(error, (MoonxdError, ExceptionGroup)))
    lost = group.subgroup(LeaseLost)
    if foreign is not None or ours is None:
        return single(group)
    return LeaseLost(describe(lost)) if lost is not None else single(group)
