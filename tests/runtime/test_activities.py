"""What other programs say of users reaches the schedule, once it is written and not before."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from moonxd.adapters.island.kafka.feed import open_kafka_feed
from moonxd.adapters.island.kafka.settings import KafkaSettings
from moonxd.adapters.island.kafka.sink import open_kafka_sink
from moonxd.adapters.island.loop import open_island
from moonxd.adapters.memory.ledger import MemoryLedger
from moonxd.agents.activities import Activities
from moonxd.agents.activity import Activity
from moonxd.domain.activity import Sign
from moonxd.domain.errors import ConfigError, Transient
from moonxd.domain.message import Message, Received
from moonxd.domain.plan import Plan, Rules
from moonxd.listening import Listening
from moonxd.supervisor import open_supervisor
from moonxd.telemetry import Telemetry
from tests.services.kafka import KafkaServer

WALLET = "0x" + "ab" * 20
NOW = 1_700_000_000.0
DAY_S = 86_400.0


class Clock:
    def now(self) -> float:
        return NOW


class Pages:
    """ports.Feed over pages that a test wrote; whoever asks for more than there is waits for ever."""

    def __init__(self, *pages: Sequence[Received]) -> None:
        self._pages = [tuple(page) for page in pages]
        self.commits: list[int] = []
        self.handed = 0
        self.is_dry = trio.Event()

    async def next(self, timeout: float) -> tuple[Received, ...]:
        await trio.lowlevel.checkpoint()
        if not self._pages:
            self.is_dry.set()
            await trio.sleep(timeout)
            return ()
        page = self._pages.pop(0)
        self.handed += len(page)
        return page

    async def commit(self) -> None:
        self.commits.append(self.handed)


def message(
    user: Any = "u1", *, wallet: Any = None, at: float = NOW, value: bytes | None = None, **more: Any
) -> Received:
    said = {"metadata": {"timestamp": at * 1000, "source": "web"}, "userId": user, "type": "user.activity", **more}
    if wallet is not None:
        said["walletAddress"] = wallet
    return Received(
        topic="user.activities", partition=0, offset=7, timestamp=at, key=None,
        value=json.dumps(said).encode() if value is None else value,
    )  # fmt: skip


class World:
    def __init__(self) -> None:
        self.ledger = MemoryLedger(Clock())
        self.activity = Activity(self.ledger.schedule, Plan(Rules()), lambda: NOW)
        self.counts: Counter[str] = Counter()
        self.touched: list[Sequence[Sign]] = []
        self.fails = 0

    async def touch(self, signs: Sequence[Sign]) -> None:
        if self.fails:
            self.fails -= 1
            raise Transient("the ledger is away")
        self.touched.append(signs)
        await self.activity.record(signs)

    async def hear(self, feed: Pages) -> None:
        """Until the feed is dry and what it gave is committed."""
        listener = Activities(self.touch, source="moonxd", active_s=DAY_S, now=lambda: NOW, count=self.counts.update)

        @asynccontextmanager
        async def opened() -> AsyncIterator[Pages]:
            yield feed

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.run, lambda: None, opened)
            while not feed.is_dry.is_set() or feed.commits[-1:] != [feed.handed]:  # noqa: ASYNC110
                await trio.sleep(0.05)
            nursery.cancel_scope.cancel()

    async def active(self) -> dict[tuple[str, str], float]:
        return {(one.user_id, one.wallet): one.last_active_at for one in await self.ledger.schedule.page(limit=1000)}


@pytest.fixture
def world(autojump_clock: MockClock) -> World:
    return World()


async def test_a_user_whom_others_saw_is_awake(world: World) -> None:
    await world.hear(Pages([message("u1", wallet=WALLET.upper().replace("0X", "0x"), at=NOW - 60)]))
    assert await world.active() == {("u1", WALLET): NOW - 60}


async def test_without_a_wallet_all_the_users_wallets_are_touched(world: World) -> None:
    other = "0x" + "cd" * 20
    await world.hear(Pages([message("u1", wallet=WALLET, at=NOW - 600), message("u1", wallet=other, at=NOW - 600)]))
    await world.hear(Pages([message("u1", at=NOW - 5), message("nobody"), message("u1", wallet="0x12", at=NOW - 9)]))
    assert set((await world.active()).values()) == {NOW - 5}
    assert len(await world.active()) == 2


@pytest.mark.parametrize(
    "given",
    [
        message("u1", wallet=WALLET, metadata={"source": "moonxd", "timestamp": NOW * 1000}),
        message("u1", wallet=WALLET, type="sync.completed"),
        Received(topic="t", partition=0, offset=1, timestamp=NOW, key="u1", value=None),
        Received(
            topic="t", partition=0, offset=1, timestamp=NOW, key="u1", value=b"not even JSON",
            headers=(("source", "moonxd"),),
        ),
    ],
)  # fmt: skip
async def test_our_own_word_and_that_of_other_types_is_nothing_new(world: World, given: Received) -> None:
    await world.hear(Pages([given]))
    assert (await world.active(), world.counts) == ({}, {"ignored": 1})


@pytest.mark.parametrize(
    "value",
    [b"", b"\xff\xfe", b"[]", b'"text"', b"{", b'{"userId": ""}', b'{"userId": true}', b'{"userId": {"a": 1}}', b"null",
     b'{"userId": "' + b"u" * 300 + b'"}', b'{"metadata": []}', b"[" * 100_000],
)  # fmt: skip
async def test_what_nobody_can_read_is_passed_by(world: World, value: bytes) -> None:
    await world.hear(Pages([message(value=value), message("u2", wallet=WALLET)]))
    assert world.counts == {"malformed": 1, "touched": 1}
    assert list(await world.active()) == [("u2", WALLET)]


async def test_what_was_long_ago_wakes_nobody(world: World) -> None:
    feed = Pages([message("old", wallet=WALLET, at=NOW - DAY_S - 1), message("ahead", wallet=WALLET, at=NOW + 999)])
    await world.hear(feed)
    assert await world.active() == {("ahead", WALLET): NOW}, "nobody is active in the future"
    assert world.counts == {"stale": 1, "touched": 1}


async def test_a_burst_is_written_in_few_statements(world: World) -> None:
    """10,000 messages of 2,000 wallets, as the broker's client hands them out."""
    burst = [message(f"u{n % 2000}", wallet=f"0x{n % 2000:040x}", at=NOW - 10_000 + n) for n in range(10_000)]
    feed = Pages(*(burst[start : start + 500] for start in range(0, 10_000, 500)))
    await world.hear(feed)
    assert len(world.touched) == 2
    assert max(map(len, world.touched)) == 2000
    assert feed.commits == [5000, 10_000]
    assert len(await world.ledger.schedule.page(limit=5000)) == 2000


async def test_it_is_committed_after_the_touch(world: World) -> None:
    world.fails = 3
    feed = Pages([message("u1", wallet=WALLET)])
    await world.hear(feed)
    assert len(world.touched) == 1
    assert feed.commits == [1]


@pytest.mark.kafka
@pytest.mark.slow
async def test_over_a_real_kafka(kafka_server: KafkaServer) -> None:
    """A listener that dies before its commit leaves the messages to the next one."""
    topic, world = f"activities-{uuid.uuid4()}", World()
    await trio.to_thread.run_sync(kafka_server.create_topic, topic)
    settings = KafkaSettings(brokers=(kafka_server.address(),), connect_timeout_s=5.0, request_timeout_s=10.0)
    async with open_island() as island:
        async with open_kafka_sink(island, settings) as sink:
            values = [message(f"u{n}", wallet=f"0x{n:040x}").value or b"" for n in range(20)]
            values.insert(3, b"garbage")
            await sink.send([Message(topic=topic, key=f"u{n}", value=value) for n, value in enumerate(values)])
        world.fails = 10**6
        await _listen(
            world, lambda: open_kafka_feed(island, settings, (topic,), topic), until=lambda: world.fails < 10**6
        )
        world.fails = 0
        await _listen(
            world, lambda: open_kafka_feed(island, settings, (topic,), topic), until=lambda: len(world.touched) > 0
        )
    assert len(await world.active()) == 20
    assert world.counts["malformed"] == 1


async def _listen(world: World, opened: Any, until: Callable[[], bool]) -> None:
    listener = Activities(world.touch, source="moonxd", active_s=DAY_S, now=lambda: NOW, count=world.counts.update)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.run, lambda: None, opened)
            while not until():  # noqa: ASYNC110
                await trio.sleep(0.05)
            nursery.cancel_scope.cancel()


async def test_a_broker_that_refuses_us_is_asked_again(autojump_clock: MockClock) -> None:
    """Users are mended at the broker; nobody restarts us for it."""
    heard: list[Sign] = []
    asked = 0

    async def record(signs: Sequence[Sign]) -> None:
        heard.extend(signs)

    @asynccontextmanager
    async def open_feed() -> AsyncIterator[Pages]:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise ConfigError("kafka.password: the broker does not accept it")
        yield Pages([message("u1")])

    async def with_feed(work: Callable[[Any], Any]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work, open_feed)

    listening = Listening(with_feed, record, active_s=1e12, telemetry=Telemetry())
    stop = trio.Event()
    async with open_supervisor(stop) as supervisor:
        (child,) = listening.children()
        await supervisor.start(child)
        await trio.sleep(60)
        (shown,) = supervisor.children()
        stop.set()
        await supervisor.stop_child(child.name)
    assert (asked, shown.state, [sign.user_id for sign in heard]) == (3, "running", ["u1"])
    assert "does not accept it" in (shown.last_error or "")
