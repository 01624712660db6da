"""Kafka through the island, against a real broker: getting in, codecs, a group's feed, reading a topic."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from moonxd.adapters.island.kafka.feed import KafkaFeed, open_kafka_feed
from moonxd.adapters.island.kafka.settings import KafkaSettings
from moonxd.adapters.island.kafka.sink import open_kafka_sink
from moonxd.adapters.island.kafka.topic import open_kafka_topic
from moonxd.adapters.island.loop import Island, open_island
from moonxd.config import load_config
from moonxd.domain.errors import ConfigError, Permanent, SinkBroken, Transient
from moonxd.domain.message import Message, Received
from moonxd.wiring.events import kafka_settings, open_feed, open_sink, open_topic
from tests.services.kafka import PASSWORD, USER, KafkaServer

pytestmark = pytest.mark.kafka

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@pytest.fixture
async def island() -> AsyncIterator[Island]:
    async with open_island() as opened:
        yield opened


@pytest.fixture
def settings(kafka_server: KafkaServer) -> Callable[..., KafkaSettings]:
    """Settings for one of the broker's listeners, patient enough for a busy machine."""

    def make(listener: str = "PLAIN", **options: Any) -> KafkaSettings:
        timeouts = {"connect_timeout_s": 5.0, "request_timeout_s": 10.0}
        return KafkaSettings(**{"brokers": (kafka_server.address(listener),), **timeouts, **options})

    return make


Settings = Callable[..., KafkaSettings]


def name() -> str:
    return f"t-{uuid.uuid4()}"


def numbered(topic: str, count: int, keys: int = 7, size: int = 0) -> list[Message]:
    return [Message(topic=topic, key=f"user-{n % keys}", value=b"%d" % n + b" " * size) for n in range(count)]


async def whole(island: Island, settings: KafkaSettings, topic: str, since: float | None = None) -> list[Received]:
    found: list[Received] = []
    async with open_kafka_topic(island, settings, topic, since=since) as reader:
        while page := await reader.page():
            found += page
    return found


async def collect(feed: KafkaFeed, count: int) -> list[Received]:
    found: list[Received] = []
    with trio.fail_after(30):
        while len(found) < count:
            found += await feed.next(1.0)
    return found


# ---- getting in


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("listener", ["SASL", "SASLTLS"])
async def test_each_way_to_log_in(
    listener: str, mechanism: str, kafka_server: KafkaServer, settings: Settings, island: Island
) -> None:
    tls = {"tls": True, "tls_ca": str(kafka_server.tls.ca)} if listener == "SASLTLS" else {}
    mine = settings(listener, username=USER, password=PASSWORD, mechanism=mechanism, **tls)
    topic = name()
    async with open_kafka_sink(island, mine) as sink:
        await sink.send(numbered(topic, 3))
    assert len(await whole(island, mine, topic)) == 3


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_a_wrong_password_is_told_without_it(
    mechanism: str, settings: Settings, island: Island, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    mine = settings("SASL", username=USER, password="wrong-hunter2", mechanism=mechanism)
    for opened in (
        open_kafka_sink(island, mine),
        open_kafka_feed(island, mine, ["t"], "g"),
        open_kafka_topic(island, mine, "t"),
    ):
        with pytest.raises(ConfigError, match="refuses the login") as caught:
            async with opened:
                pass
        assert "kafka.password" in str(caught.value)
        assert "hunter2" not in str(caught.value)
    assert "hunter2" not in caplog.text
    assert "hunter2" not in repr(mine)


async def test_tls_with_our_own_certificate(kafka_server: KafkaServer, settings: Settings, island: Island) -> None:
    ours = kafka_server.client_tls
    mine = settings("MUTUAL", tls=True, tls_ca=str(ours.ca), tls_cert=str(ours.cert), tls_key=str(ours.key))
    topic = name()
    async with open_kafka_sink(island, mine) as sink:
        await sink.send(numbered(topic, 3))
    with pytest.raises(Transient, match="closes the connection"):
        async with open_kafka_sink(island, settings("MUTUAL", tls=True, tls_ca=str(ours.ca))):
            pass


async def test_an_unknown_authority_is_not_trusted(settings: Settings, island: Island, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    with pytest.raises(ConfigError, match=r"certificate is not valid .*check kafka\.tls_ca"):
        async with open_kafka_sink(island, settings("TLS", tls=True, tls_ca=str(tmp_path / "other.pem"))):
            pass
    with pytest.raises(ConfigError, match=r"cannot read the TLS files .*none\.pem"):
        async with open_kafka_sink(island, settings("TLS", tls=True, tls_ca=str(tmp_path / "none.pem"))):
            pass


@pytest.mark.parametrize(("listener", "options"), [("TLS", {}), ("PLAIN", {"tls": True}), ("SASL", {})])
async def test_the_wrong_door_is_not_waited_at(
    listener: str, options: dict[str, Any], settings: Settings, island: Island
) -> None:
    with pytest.raises(Transient, match=r"Kafka at localhost"), trio.fail_after(20):
        async with open_kafka_sink(island, settings(listener, **options)):
            pass


# ---- what is sent


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
async def test_every_codec(codec: str, settings: Settings, island: Island) -> None:
    mine, topic = settings(compression=codec), name()
    sent = numbered(topic, 300, size=500)
    async with open_kafka_sink(island, mine) as sink:
        await sink.send(sent)
    assert sorted(one.value or b"" for one in await whole(island, mine, topic)) == sorted(one.value for one in sent)


async def test_a_partition_that_is_not_there(settings: Settings, island: Island) -> None:
    topic = name()
    async with open_kafka_sink(island, settings()) as sink:
        await sink.partition(topic, "user-1")
        with pytest.raises(Transient, match="has no partition 99"):
            await sink.send([Message(topic=topic, key="user-1", value=b"", partition=99)])
        await sink.send([Message(topic=topic, key="user-1", value=b"")])


async def test_a_topic_that_takes_next_to_nothing_condemns_no_message(
    kafka_server: KafkaServer, settings: Settings, island: Island
) -> None:
    topic = name()
    await trio.to_thread.run_sync(lambda: kafka_server.create_topic(topic, max_message_bytes="2000"))
    with pytest.raises(SinkBroken, match=r"takes less than 65536 bytes: raise its max\.message\.bytes"):
        async with open_kafka_sink(island, settings()) as sink:
            await sink.send(numbered(topic, 50, keys=1, size=500))


async def test_two_sinks_on_one_island(settings: Settings, island: Island) -> None:
    topic = name()
    async with (
        open_kafka_sink(island, settings()) as one,
        open_kafka_sink(island, settings()) as other,
        trio.open_nursery() as nursery,
    ):
        for sink in (one, other, one, other):
            nursery.start_soon(sink.send, numbered(topic, 200))
    assert len(await whole(island, settings(), topic)) == 800


# ---- a group's feed


async def test_a_feed_goes_on_behind_what_was_committed(settings: Settings, island: Island) -> None:
    topic, group = name(), name()
    async with open_kafka_sink(island, settings()) as sink:
        await sink.send(numbered(topic, 100))
        async with open_kafka_feed(island, settings(), [topic], group) as feed:
            first = await collect(feed, 100)
            assert [int(one.value or b"") for one in first if one.key == "user-3"] == list(range(3, 100, 7))
            await feed.commit()
            await sink.send(numbered(topic, 5))
            assert len(await collect(feed, 5)) == 5  # not committed: they come again
        await sink.send([Message(topic=topic, key="user-0", value=b"last")])
        async with open_kafka_feed(island, settings(), [topic], group) as feed:
            again = await collect(feed, 6)
            assert sorted(one.value or b"" for one in again) == [b"0", b"1", b"2", b"3", b"4", b"last"]
            await feed.commit()
            assert await feed.next(0.05) == ()
            await feed.commit()


@pytest.mark.slow
async def test_a_topic_that_appears_later_is_found(settings: Settings, island: Island) -> None:
    topic = name()
    async with open_kafka_feed(island, settings(), [topic], name()) as feed:
        assert await feed.next(0.1) == ()
        async with open_kafka_sink(island, settings()) as sink:
            await sink.send(numbered(topic, 3))
        assert len(await collect(feed, 3)) == 3


async def test_a_cancelled_wait_loses_no_message(kafka_server: KafkaServer, settings: Settings, island: Island) -> None:
    topic = name()
    await trio.to_thread.run_sync(kafka_server.create_topic, topic)
    found: list[Received] = []
    async with (
        open_kafka_sink(island, settings()) as sink,
        open_kafka_feed(island, settings(), [topic], name()) as feed,
        trio.open_nursery() as nursery,
    ):

        async def write() -> None:
            for one in numbered(topic, 150):
                await sink.send([one])

        nursery.start_soon(write)
        with trio.fail_after(30):
            while len(found) < 150:
                with trio.move_on_after(0.003):
                    found += await feed.next(5.0)
    assert sorted(int(one.value or b"") for one in found) == list(range(150))


async def test_two_members_share_a_topic(settings: Settings, island: Island) -> None:
    topic, group = name(), name()
    seen: set[bytes] = set()
    async with open_kafka_sink(island, settings()) as sink:
        await sink.send(numbered(topic, 200, keys=50))

        async def member(done: trio.Event) -> None:
            async with open_kafka_feed(island, settings(), [topic], group) as feed:
                while not done.is_set():
                    seen.update(one.value or b"" for one in await feed.next(0.2))
                    try:
                        await feed.commit()
                    except Transient:  # the group is being shared out anew: those come again
                        continue
                    if len(seen) == 200:
                        done.set()

        done = trio.Event()
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(member, done)
                nursery.start_soon(member, done)
    assert len(seen) == 200


async def test_what_is_malformed_is_handed_out_all_the_same(settings: Settings, island: Island) -> None:
    topic = name()
    sent = [Message(topic=topic, key="k", value=value) for value in (b"\xff\xfe", b"", b"{")]
    async with open_kafka_sink(island, settings()) as sink:
        await sink.send(sent)
    async with open_kafka_feed(island, settings(), [topic], name()) as feed:
        assert [one.value for one in await collect(feed, 3)] == [b"\xff\xfe", b"", b"{"]


# ---- a whole topic


async def test_a_topic_is_read_to_its_end_and_then_followed(settings: Settings, island: Island) -> None:
    topic = name()
    async with open_kafka_sink(island, settings()) as sink:
        await sink.send(numbered(topic, 2500))
        async with open_kafka_topic(island, settings(), topic) as reader:
            await sink.send([Message(topic=topic, key=f"user-{n}", value=b"later %d" % n) for n in range(7)])
            found: list[Received] = []
            while page := await reader.page():
                found += page
            assert sorted(int(one.value or b"") for one in found) == list(range(2500))
            assert await reader.page() == ()
            later: list[bytes] = []
            with trio.fail_after(20):
                while len(later) < 7:
                    later += [one.value or b"" for one in await reader.next(1.0)]
            assert sorted(later) == [b"later %d" % n for n in range(7)]
            assert await reader.next(0.05) == ()


async def test_a_topic_from_a_moment_on(settings: Settings, island: Island) -> None:
    topic = name()
    async with open_kafka_sink(island, settings()) as sink:
        await sink.send(numbered(topic, 10))
        cut = max(one.timestamp for one in await whole(island, settings(), topic)) + 0.001
        with trio.fail_after(5):
            while True:  # the broker's clock counts in milliseconds
                await sink.send([Message(topic=topic, key="probe", value=b"probe")])
                if (await whole(island, settings(), topic))[-1:] and await whole(island, settings(), topic, cut):
                    break
    after = await whole(island, settings(), topic, cut)
    assert {one.value for one in after} == {b"probe"}
    assert all(one.timestamp >= cut for one in after)
    assert await whole(island, settings(), topic, cut + 3600) == []


async def test_a_topic_that_is_not_there_is_not_made(
    kafka_server: KafkaServer, settings: Settings, island: Island
) -> None:
    topic = name()
    with pytest.raises(Permanent, match="there is no such topic"):
        await whole(island, settings(), topic)
    listed = await trio.to_thread.run_sync(lambda: kafka_server.ask(lambda admin: admin.list_topics()))
    assert topic not in listed


# ---- by configuration


async def test_the_configuration_opens_all_three(kafka_server: KafkaServer, island: Island, tmp_path: Path) -> None:
    topic = name()
    environ = {
        "HOME": str(tmp_path),
        "KAFKA_BROKERS": kafka_server.address("SASLTLS"),
        "KAFKA_USERNAME": USER,
        "KAFKA_PASSWORD": PASSWORD,
        "KAFKA_SASL_MECHANISM": "scram-sha-512",
        "KAFKA_SSL": "true",
        "MOONXD_KAFKA__TLS_CA": str(kafka_server.tls.ca),
        "KAFKA_COMPRESSION": "lz4",
        "KAFKA_CONNECTION_TIMEOUT": "5000",
        "KAFKA_REQUEST_TIMEOUT": "10000",
        "KAFKA_CLIENT_ID": "sync-worker-publisher",
        "KAFKA_TOPIC_USER_ACTIVITIES": topic,
        "MOONXD_CHAINS__ENABLED": "ethereum",
        "MOONXD_CHAINS__ETHEREUM__RPC_URLS": "http://localhost:1",
    }
    await trio.to_thread.run_sync(kafka_server.create_topic, topic)
    config = load_config(None, environ).config
    mine = kafka_settings(config)
    assert (mine.client_id, mine.codec, mine.answer_s) == ("sync-worker-publisher", "lz4", 15.0)
    async with open_sink(config, island) as sink, open_feed(config, island) as feed:
        await sink.send(numbered(topic, 3))
        with trio.fail_after(30):
            while not await feed.next(1.0):
                continue
        async with open_topic(config, island, topic) as reader:
            assert len(await reader.page()) > 0
