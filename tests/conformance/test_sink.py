"""ports.Sink: the memory sink and a real Kafka keep the same promises."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import pytest
import trio

from moonxd.adapters.island.kafka.settings import KafkaSettings
from moonxd.adapters.island.kafka.sink import open_kafka_sink
from moonxd.adapters.island.kafka.topic import open_kafka_topic
from moonxd.adapters.island.loop import open_island
from moonxd.adapters.memory.sink import MemorySink
from moonxd.domain.errors import SinkBroken, Transient, Undeliverable
from moonxd.domain.message import Message
from moonxd.domain.partition import partition_of
from moonxd.ports import Sink
from tests.services.kafka import PARTITIONS, KafkaServer

_MOST_BYTES = 100_000


class Taken(NamedTuple):
    """A message as a reader of the topic sees it."""

    partition: int
    key: str | None
    value: bytes | None
    headers: tuple[tuple[str, str], ...]


class Kind(NamedTuple):
    sink: Sink
    topic: str
    #: What arrived, in order per partition.
    taken: Callable[[], Awaitable[list[Taken]]]
    #: Another sink for the same topic.
    again: Callable[[], Awaitable[Sink]]


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
async def kind(request: pytest.FixtureRequest) -> AsyncIterator[Kind]:
    topic = f"sink-{uuid.uuid4()}"
    if request.param == "memory":
        yield _memory(topic)
        return
    server: KafkaServer = request.getfixturevalue("kafka_server")
    await trio.to_thread.run_sync(lambda: server.create_topic(topic, max_message_bytes=str(_MOST_BYTES)))
    settings = KafkaSettings(brokers=(server.address(),), connect_timeout_s=5.0, request_timeout_s=10.0)
    async with open_island() as island, open_kafka_sink(island, settings) as sink:

        async def taken() -> list[Taken]:
            found = []
            async with open_kafka_topic(island, settings, topic) as reader:
                while page := await reader.page():
                    found += [Taken(one.partition, one.key, one.value, one.headers) for one in page]
            return found

        async with open_kafka_sink(island, settings) as second:

            async def again() -> Sink:
                return second

            yield Kind(sink, topic, taken, again)


def _memory(topic: str) -> Kind:
    sink = MemorySink(partitions=PARTITIONS, most_bytes=_MOST_BYTES)

    async def taken() -> list[Taken]:
        found = []
        for one in sink.taken:
            where = one.partition if one.partition is not None else partition_of(one.key, PARTITIONS)
            found.append(Taken(where, one.key, one.value, one.headers))
        return found

    async def again() -> Sink:
        return sink

    return Kind(sink, topic, taken, again)


def messages(topic: str, keys: int, each: int) -> list[Message]:
    return [
        Message(topic=topic, key=f"user-{n % keys}", value=b'{"n":%d}' % n, headers=(("event-id", str(n)), ("ü", "ß")))
        for n in range(keys * each)
    ]


async def test_everything_arrives_once_and_in_order_per_key(kind: Kind) -> None:
    sent = messages(kind.topic, keys=20, each=50)
    for start in range(0, len(sent), 250):
        await kind.sink.send(sent[start : start + 250])
    taken = await kind.taken()
    assert len(taken) == len(sent)
    for key in {message.key for message in sent}:
        assert [t.value for t in taken if t.key == key] == [m.value for m in sent if m.key == key]
    assert {t.headers for t in taken} == {m.headers for m in sent}


async def test_the_partition_is_known_beforehand(kind: Kind) -> None:
    keys = [f"user-{n}" for n in range(60)] + ["", "système", "0x" + "ab" * 20]
    told = {key: await kind.sink.partition(kind.topic, key) for key in keys}
    assert set(told.values()) == set(range(PARTITIONS))
    # Named and left to the client: the same place.
    await kind.sink.send([Message(topic=kind.topic, key=key, value=b"1", partition=told[key]) for key in keys])
    await kind.sink.send([Message(topic=kind.topic, key=key, value=b"2") for key in keys])
    taken = await kind.taken()
    assert len(taken) == 2 * len(keys)
    assert {(t.key, t.partition) for t in taken} == set(told.items())


async def test_sending_nothing_does_nothing(kind: Kind) -> None:
    await kind.sink.send([])
    assert await kind.taken() == []


async def test_equal_messages_sent_again_are_repeated(kind: Kind) -> None:
    sent = messages(kind.topic, keys=2, each=2)
    await kind.sink.send(sent)
    await kind.sink.send(sent)
    assert len(await kind.taken()) == 8


async def test_a_message_that_is_too_large_is_named_and_the_others_can_go(kind: Kind) -> None:
    small = messages(kind.topic, keys=3, each=3)
    large = Message(topic=kind.topic, key="user-1", value=bytes(_MOST_BYTES + 1))
    with pytest.raises(Undeliverable) as caught:
        await kind.sink.send([*small[:5], large, *small[5:]])
    assert caught.value.positions == (5,)
    assert f"{_MOST_BYTES + 1} bytes" in str(caught.value)
    assert kind.topic in str(caught.value)
    sink = kind.sink
    with trio.fail_after(20):
        try:
            await sink.send(small)
        except SinkBroken:  # this producer is broken now, which it says
            await (await kind.again()).send(small)
    values = {t.value for t in await kind.taken()}
    assert values == {m.value for m in small}


async def test_a_cancelled_send_leaves_a_sink_that_works(kind: Kind) -> None:
    first = messages(kind.topic, keys=5, each=100)
    for after in (0.0, 0.0005, 0.002, 0.01):
        with trio.move_on_after(after):
            await kind.sink.send(first)
    last = [Message(topic=kind.topic, key="user-0", value=b"last")]
    await kind.sink.send(first)
    await kind.sink.send(last)
    taken = await kind.taken()
    assert {m.value for m in first} <= {t.value for t in taken}
    assert [t.value for t in taken if t.key == "user-0"][-1] == b"last"


async def test_the_memory_sink_fails_as_it_is_told() -> None:
    sink = MemorySink()
    sent = messages("t", keys=2, each=3)
    sink.is_away = True
    with pytest.raises(Transient):
        await sink.partition("t", "user-1")
    with pytest.raises(Transient):
        await sink.send(sent)
    sink.is_away, sink.breaks_after = False, 2
    with pytest.raises(Transient):
        await sink.send(sent)
    assert sink.taken == sent[:2]
    await sink.send(sent)
    assert sink.taken == sent[:2] + sent
    sink.is_broken = True
    with pytest.raises(SinkBroken):
        await sink.send(sent)
    assert sink.sends == 4
