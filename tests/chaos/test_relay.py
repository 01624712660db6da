"""Everything between a commit and its readers dies, and every event arrives: in order, with one id."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import psycopg
import pytest
import trio

from moonxd.adapters.island.kafka.settings import KafkaSettings
from moonxd.adapters.island.kafka.topic import open_kafka_topic
from moonxd.adapters.island.loop import open_island
from moonxd.adapters.memory.queue import MemoryQueue
from moonxd.adapters.postgres.ledger import open_postgres_ledger
from moonxd.adapters.postgres.migrate import migrate
from moonxd.adapters.scratch import open_scratch
from moonxd.domain.ledger import Retention
from moonxd.domain.message import Received
from moonxd.verifying import Plan, Stores, verify
from tests.runtime.relay_world import sync_event
from tests.services.daemon import until
from tests.services.kafka import KafkaServer
from tests.services.postgres import PostgresServer
from tests.services.relay import StartRelay

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.postgres]

WALLETS = 50
EVENTS = 5000


class Generator:
    """Commits events in a thread, one each, again and again until PostgreSQL has taken it."""

    def __init__(self, dsn: str, events: int, pause_s: float) -> None:
        self._dsn = dsn
        self._events = events
        self._pause_s = pause_s
        self.written = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join(120)
        assert self.written == self._events

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while self.written < self._events and not self._stopping.is_set():
            try:
                with psycopg.connect(self._dsn, autocommit=True, connect_timeout=5) as connection:
                    self._write(connection)
            except psycopg.OperationalError:
                self._stopping.wait(0.05)

    def _write(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        while self.written < self._events and not self._stopping.is_set():
            wallet = self.written % WALLETS
            event = sync_event(f"user-{wallet % 7}", f"w{wallet}", self.written)
            # An id that is there already is not written twice.
            connection.execute("SELECT moonxd_emit(%s::jsonb)", [msgspec.json.encode([event]).decode()])
            self.written += 1
            self._stopping.wait(self._pause_s)


async def _read(broker: str, topic: str) -> list[Received]:
    records: list[Received] = []
    async with (
        open_island() as island,
        open_kafka_topic(island, KafkaSettings(brokers=(broker,), request_timeout_s=15.0), topic) as opened,
    ):
        while page := await opened.page():
            records += page
    return records


def judge(records: list[Received], count: int) -> int:
    """Nothing lost, nothing invented, order per wallet; how many records were resent."""
    by_id: dict[str, bytes] = {}
    order: defaultdict[str, list[int]] = defaultdict(list)
    sequences: defaultdict[str, list[int]] = defaultdict(list)
    for record in sorted(records, key=lambda one: (one.partition, one.offset)):
        assert record.value is not None
        value = msgspec.json.decode(record.value)
        identity = dict(record.headers)["event-id"]
        assert value["metadata"]["partition"] == record.partition
        if identity in by_id:
            # A resend is the very same record.
            assert by_id[identity] == record.value
            continue
        by_id[identity] = record.value
        wallet = f"w{value['data']['n'] % WALLETS}"
        order[wallet].append(value["data"]["n"])
        sequences[wallet].append(value["metadata"]["sequence"])
    found = sorted(number for numbers in order.values() for number in numbers)
    assert found == list(range(count))
    assert all(numbers == sorted(numbers) for numbers in order.values())
    assert all(numbers == sorted(numbers) for numbers in sequences.values())
    assert sorted(number for numbers in sequences.values() for number in numbers) == list(range(1, count + 1))
    return len(records) - count


async def _verify(dsn: str, broker: str) -> set[str]:
    """What `moonxd verify` finds between the outbox and the topic. The events here belong to no job and no row."""
    settings = KafkaSettings(brokers=(broker,), request_timeout_s=15.0)
    async with open_island() as island, open_postgres_ledger(dsn) as ledger, open_scratch(16) as scratch:
        stores = Stores(
            queue=MemoryQueue("sync-jobs"),
            records=ledger.records(),
            scratch=scratch,
            topics=("sync.events",),
            open_topic=lambda name, since: open_kafka_topic(island, settings, name, since=since),
        )
        report = await verify(stores, Plan(queue="sync-jobs", keep=Retention(), places={}, looks=1))
    return {found.kind for found in report.found} - {"event-without-operation", "repeated-record"}


def backlog(server: PostgresServer) -> int:
    ((count,),) = server.execute("SELECT count(*) FROM moonxd_outbox WHERE published_at IS NULL")
    assert isinstance(count, int)
    return count


@contextmanager
def generating(server: PostgresServer, events: int, pause_s: float) -> Iterator[Generator]:
    generator = Generator(server.dsn, events, pause_s)
    generator.start()
    try:
        yield generator
    finally:
        generator.stop()


@pytest.fixture
def server(start_postgres: Callable[..., PostgresServer]) -> PostgresServer:
    # What was committed outlives the server's death: that is what we check.
    server = start_postgres(("synchronous_commit=on",))
    trio.run(migrate, server.dsn)
    return server


def test_a_killed_relay_is_replaced_within_seconds(
    server: PostgresServer, kafka_server: KafkaServer, start_relay: StartRelay
) -> None:
    broker = kafka_server.address()
    first = start_relay(server.dsn, broker)
    first.await_holding()
    second = start_relay(server.dsn, broker)
    with generating(server, 1000, 0.002) as generator:
        until(lambda: generator.written > 300, "some events are written")
        assert not second.is_holding()
        first.kill()
        killed_at = time.monotonic()
        second.await_holding()
        assert second.held_at is not None
        assert second.held_at - killed_at < 5
        generator.join()
    until(lambda: backlog(server) == 0, "everything is published")


def test_a_frozen_relay_is_replaced_and_harms_nothing_when_it_wakes(
    server: PostgresServer, start_kafka: Callable[..., KafkaServer], start_relay: StartRelay
) -> None:
    kafka = start_kafka()
    first = start_relay(server.dsn, kafka.address())
    first.await_holding()
    second = start_relay(server.dsn, kafka.address())
    with generating(server, 1000, 0.005) as generator:
        until(lambda: generator.written > 200, "some events are written")
        first.freeze()
        second.await_holding(within_s=15)
        first.thaw()
        generator.join()
    until(lambda: backlog(server) == 0, "everything is published")
    judge(trio.run(_read, kafka.address(), "sync.events"), 1000)
    assert trio.run(_verify, server.dsn, kafka.address()) == set()


def test_everything_dies_while_5000_events_are_written(
    server: PostgresServer, start_kafka: Callable[..., KafkaServer], start_relay: StartRelay
) -> None:
    kafka = start_kafka()
    relays = [start_relay(server.dsn, kafka.address()) for _ in range(2)]
    until(lambda: any(relay.is_holding() for relay in relays), "one relay publishes")
    with generating(server, EVENTS, 0.001) as generator:
        until(lambda: generator.written > 1000, "some events are written")
        kafka.kill()
        until(lambda: generator.written > 1700, "commits go on without a broker")
        kafka.start()
        until(lambda: generator.written > 2400, "more events are written")
        owner = next(relay for relay in relays if relay.is_holding())
        owner.kill()
        until(lambda: generator.written > 3200, "more events are written")
        server.kill()
        server.start()
        until(lambda: generator.written > 4000, "more events are written")
        kafka.kill()
        kafka.start()
        generator.join()
    until(lambda: backlog(server) == 0, "everything is published", 90)
    resent = judge(trio.run(_read, kafka.address(), "sync.events"), EVENTS)
    assert resent < EVENTS
    assert trio.run(_verify, server.dsn, kafka.address()) == set()
