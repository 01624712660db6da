"""Kafka that freezes, dies and comes back: every call ends in time, and nothing is lost, doubled or out of order."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TypeVar

import pytest
import trio

from moonxd.adapters.island.kafka.feed import open_kafka_feed
from moonxd.adapters.island.kafka.settings import KafkaSettings
from moonxd.adapters.island.kafka.sink import KafkaSink, open_kafka_sink
from moonxd.adapters.island.kafka.topic import open_kafka_topic
from moonxd.adapters.island.loop import Island, open_island
from moonxd.domain.errors import SinkBroken, Transient
from moonxd.domain.message import Message
from moonxd.ports import Topic
from tests.services import free_port
from tests.services.kafka import KafkaServer

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.chaos]

Start = Callable[..., KafkaServer]
T = TypeVar("T")


@pytest.fixture
async def island() -> AsyncIterator[Island]:
    async with open_island() as opened:
        yield opened


def hasty(server: KafkaServer, port: int | None = None) -> KafkaSettings:
    address = server.address() if port is None else f"localhost:{port}"
    return KafkaSettings(brokers=(address,), connect_timeout_s=0.5, request_timeout_s=1.5)


def name() -> str:
    return f"t-{uuid.uuid4()}"


def numbered(topic: str, first: int, count: int) -> list[Message]:
    return [Message(topic=topic, key=f"user-{n % 5}", value=b"%d" % n) for n in range(first, first + count)]


@asynccontextmanager
async def opened(make: Callable[[], AbstractAsyncContextManager[T]]) -> AsyncIterator[T]:
    """Open as a supervised part does, again after a Transient: a broker that just began on a busy machine is slow."""
    async with AsyncExitStack() as stack:
        with trio.fail_after(60):
            while True:
                try:
                    value = await stack.enter_async_context(make())
                    break
                except Transient:
                    await trio.sleep(0.05)
        yield value


def sinking(island: Island, settings: KafkaSettings) -> AbstractAsyncContextManager[KafkaSink]:
    return opened(lambda: open_kafka_sink(island, settings))


async def values(island: Island, server: KafkaServer, topic: str) -> dict[str, list[int]]:
    """Key -> the numbers under it in the topic's order; read over TLS, where no test puts anything in between."""
    found: dict[str, list[int]] = {}
    tls = {"brokers": (server.address("TLS"),), "tls": True, "tls_ca": str(server.tls.ca)}
    settings = KafkaSettings(**tls, connect_timeout_s=5.0, request_timeout_s=10.0)
    async with opened(lambda: open_kafka_topic(island, settings, topic)) as reader:
        while page := await reader.page():
            for one in page:
                found.setdefault(one.key or "", []).append(int(one.value or b""))
    return found


async def to_the_end(reader: Topic) -> None:
    while await reader.page():
        continue


def exactly(count: int) -> dict[str, list[int]]:
    return {f"user-{key}": list(range(key, count, 5)) for key in range(5)}


async def insist(sink: KafkaSink, messages: Sequence[Message]) -> int:
    """Send as the relay does, the same again after a Transient; how many tries it took."""
    with trio.fail_after(60):
        for tries in range(1, 1000):
            try:
                await sink.send(messages)
            except Transient:
                await trio.sleep(0.05)
            else:
                return tries
    raise AssertionError("unreachable")


async def test_a_frozen_broker_is_waited_for_in_bounded_time(start_kafka: Start, island: Island) -> None:
    server, topic = start_kafka(), name()
    settings = hasty(server)
    async with sinking(island, settings) as sink:
        await insist(sink, numbered(topic, 0, 50))
        server.pause()
        start = trio.current_time()
        for _ in range(3):  # nothing piles up: the same messages are still owed
            with pytest.raises(Transient, match="has not acknowledged 50 of 50 messages after 2 s"):
                await sink.send(numbered(topic, 50, 50))
        assert trio.current_time() - start < 3 * (settings.answer_s + 1)
        server.resume()
        await insist(sink, numbered(topic, 50, 50))
        await insist(sink, numbered(topic, 100, 50))
    assert await values(island, server, topic) == exactly(150)


async def test_a_page_larger_than_the_producers_buffer_is_waited_for(start_kafka: Start, island: Island) -> None:
    server, topic = start_kafka(), name()
    large = [Message(topic=topic, key="user-0", value=b"%d" % n + b" " * 30_000) for n in range(20)]
    async with sinking(island, hasty(server)) as sink:
        await insist(sink, numbered(topic, 0, 1))
        server.pause()
        for _ in range(2):
            with pytest.raises(Transient, match="has not acknowledged 20 of 20 messages"):
                await sink.send(large)
        server.resume()
        await insist(sink, large)
    assert await values(island, server, topic) == {"user-0": [0, *range(20)]}


async def test_a_killed_broker_comes_back_and_nothing_is_doubled(
    start_kafka: Start, island: Island, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server, topic = start_kafka(), name()
    async with sinking(island, hasty(server)) as sink:
        await insist(sink, numbered(topic, 0, 50))
        server.kill()
        start = trio.current_time()
        with pytest.raises(Transient):
            await sink.send(numbered(topic, 50, 50))
        assert trio.current_time() - start < 4
        server.start()
        await insist(sink, numbered(topic, 50, 50))
        await insist(sink, numbered(topic, 100, 50))
    assert await values(island, server, topic) == exactly(150)
    # The client alone would have said it many times a second.
    assert len([record for record in caplog.records if record.name.startswith("moonxd.kafka")]) < 15


async def test_killed_twice_while_pages_are_sent(start_kafka: Start, island: Island) -> None:
    server, topic = start_kafka(), name()
    sent = 0
    async with sinking(island, hasty(server)) as sink, trio.open_nursery() as nursery:

        async def relay() -> None:
            nonlocal sent
            while sent < 4000 or not finished.is_set():
                await insist(sink, numbered(topic, sent, 20))
                sent += 20

        finished = trio.Event()
        nursery.start_soon(relay)
        for goal in (200, 600):
            with trio.fail_after(60):
                while sent < goal:  # noqa: ASYNC110
                    await trio.sleep(0.001)
            server.kill()
            # Started from this thread, which stops the relay's Trio meanwhile; the island goes on.
            server.start()
        finished.set()
    assert await values(island, server, topic) == exactly(sent)


async def test_leaving_with_messages_that_cannot_go(start_kafka: Start) -> None:
    for end in (KafkaServer.kill, KafkaServer.pause):
        server, topic = start_kafka(), name()
        async with open_island() as island:
            async with sinking(island, hasty(server)) as sink:
                await insist(sink, numbered(topic, 0, 5))
                end(server)
                with trio.move_on_after(0.2):
                    await sink.send(numbered(topic, 5, 50))
                start = trio.current_time()
            assert trio.current_time() - start < 4
        assert trio.current_time() - start < 5
        server.kill()


async def test_readers_leave_a_frozen_broker_in_bounded_time(start_kafka: Start, island: Island) -> None:
    server, topic = start_kafka(), name()
    settings = hasty(server)
    async with sinking(island, settings) as sink:
        # More than a consumer fetches ahead.
        await insist(sink, [Message(topic=topic, key="user-1", value=b"%d" % n + b" " * 100_000) for n in range(40)])
    async with (
        opened(lambda: open_kafka_feed(island, settings, [topic], "g")) as feed,
        opened(lambda: open_kafka_topic(island, settings, topic)) as reader,
    ):
        with trio.fail_after(20):
            while not await feed.next(1.0):
                continue
        server.pause()
        start = trio.current_time()
        with pytest.raises(Transient, match="group g"):
            await feed.commit()
        with pytest.raises(Transient, match=r"stopped answering before its end: partitions \[\d\]"):
            await to_the_end(reader)
        assert await reader.next(0.1) == ()
        assert trio.current_time() - start < 2 * settings.answer_s + 2
        start = trio.current_time()
    assert trio.current_time() - start < 6
    server.kill()


async def test_no_broker_at_all(start_kafka: Start, island: Island) -> None:
    server = start_kafka()
    settings = hasty(server)
    for away in (server.pause, server.kill):
        away()
        start = trio.current_time()
        with pytest.raises(Transient, match="Kafka at localhost:"):
            async with open_kafka_sink(island, settings):
                pass
        assert trio.current_time() - start < settings.start_s + settings.connect_timeout_s + 3


async def test_a_feed_outlives_its_broker(start_kafka: Start, island: Island) -> None:
    server, topic = start_kafka(), name()
    settings = hasty(server)
    seen: list[int] = []
    async with (
        sinking(island, settings) as sink,
        opened(lambda: open_kafka_feed(island, settings, [topic], "g")) as feed,
    ):
        for round_ in range(2):
            await insist(sink, numbered(topic, 10 * round_, 10))
            with trio.fail_after(60):
                while set(seen) < set(range(10 * round_ + 10)):
                    try:
                        seen += [int(one.value or b"") for one in await feed.next(0.5)]
                        await feed.commit()
                    except Transient:
                        await trio.sleep(0.05)
            if round_ == 0:
                server.kill()
                server.start()


async def test_a_lost_acknowledgement_doubles_nothing(start_kafka: Start, island: Island) -> None:
    """The broker wrote the batch and its answer never came: the producer sends it again, the broker knows it."""
    port = free_port()
    server, topic = start_kafka(behind=port), name()
    cut = cuts = 0

    async def through(client: trio.SocketStream) -> None:
        nonlocal cut, cuts
        broker = await trio.open_tcp_stream("localhost", server.ports["PLAIN"])
        async with client, broker, trio.open_nursery() as nursery:

            async def forth() -> None:
                async for data in client:
                    await broker.send_all(data)
                nursery.cancel_scope.cancel()

            nursery.start_soon(forth)
            async for data in broker:
                if cut > 0 and topic.encode() in data and len(data) < 400:
                    cut, cuts = cut - 1, cuts + 1
                    break
                await client.send_all(data)
            nursery.cancel_scope.cancel()

    async def guarded(client: trio.SocketStream) -> None:
        try:
            await through(client)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.lowlevel.checkpoint()  # one side hung up: its right

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(port, host="localhost")
        nursery.start_soon(trio.serve_listeners, guarded, listeners)
        async with sinking(island, hasty(server, port)) as sink:
            for page in range(20):
                cut = 1
                await insist(sink, numbered(topic, 10 * page, 10))
        assert cuts == 20
        nursery.cancel_scope.cancel()
    assert await values(island, server, topic) == exactly(200)


async def test_a_producer_that_lost_its_sequence_is_broken_for_good(kafka_server: KafkaServer, island: Island) -> None:
    topic = name()
    settings = KafkaSettings(brokers=(kafka_server.address(),), connect_timeout_s=5.0, request_timeout_s=10.0)
    async with sinking(island, settings) as sink:
        await sink.send(numbered(topic, 0, 5))

        async def lose_it() -> None:
            numbers = sink._producer._txn_manager._sequence_numbers
            for where in numbers:
                numbers[where] += 7

        await island.call(lose_it)
        for _ in range(2):
            with pytest.raises(SinkBroken, match="OutOfOrderSequenceNumber"):
                await sink.send(numbered(topic, 5, 5))
    async with sinking(island, settings) as sink:
        await sink.send(numbered(topic, 5, 5))
    assert await values(island, kafka_server, topic) == exactly(10)
