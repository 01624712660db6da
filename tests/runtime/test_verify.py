"""Each kind of fault, planted in real stores and found; a mixture of everything that may happen, and nothing found."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import psycopg
import pytest

from moonxd.adapters.island.kafka.settings import KafkaSettings
from moonxd.adapters.island.kafka.sink import open_kafka_sink
from moonxd.adapters.island.kafka.topic import open_kafka_topic
from moonxd.adapters.island.loop import Island, open_island
from moonxd.adapters.scratch import open_scratch
from moonxd.adapters.sqlite.records import open_sqlite_records
from moonxd.domain.job import JobOptions, JobState
from moonxd.domain.ledger import Event, Retention, StoredEvent
from moonxd.domain.message import Message, message_of
from moonxd.domain.verify import Claim, Report
from moonxd.ports import Records, Sink
from moonxd.verifying import Plan, Stores, verify
from tests.runtime.relay_world import sync_event
from tests.runtime.story_world import Site, crash, opened, site, until, wallet, working
from tests.services.kafka import KafkaServer

__all__ = ["opened", "site"]
pytestmark = [pytest.mark.redis, pytest.mark.slow]

SYNCS = 4
Execute = Callable[[str], None]


@dataclass
class Stage:
    """Some syncs that ended, their stores, and a way past moonxd into them."""

    site: Site
    records: Records
    execute: Execute
    jobs: list[str]
    #: In the order of SYNCS.
    operations: list[str]
    broker: Broker | None = None

    async def look(self, claims: tuple[Claim, ...] = (), **given: Any) -> Report:
        plan = Plan(
            queue="mixed",
            keep=Retention(),
            places={},
            claims=(lambda: claims) if claims else None,
            looks=2,
            pause_s=0.05,
            **given,
        )
        async with open_scratch(4) as scratch:
            stores = Stores(queue=self.site.queue, records=self.records, scratch=scratch)
            if self.broker is not None:
                stores = Stores(
                    queue=self.site.queue, records=self.records, scratch=scratch, topics=(self.broker.topic,),
                    open_topic=self.broker.open_topic,
                )  # fmt: skip
            return await verify(stores, plan)

    async def found(self, claims: tuple[Claim, ...] = (), **given: Any) -> dict[str, list[str]]:
        report = await self.look(claims, **given)
        assert report.ok == (not any(found.is_fault for found in report.found))
        for found in report.found:
            assert found.count == len(found.examples)
        return {found.kind: [one.subject for one in found.examples] for found in report.found}


class Broker:
    """A topic of one test, filled as the relay would fill it."""

    def __init__(self, island: Island, settings: KafkaSettings, sink: Sink, topic: str) -> None:
        self._island, self._settings, self.sink, self.topic = island, settings, sink, topic

    def open_topic(self, name: str, since: float | None) -> Any:
        return open_kafka_topic(self._island, self._settings, name, since=since)

    async def message(self, stored: StoredEvent) -> Message:
        return message_of(stored, self.topic, await self.sink.partition(self.topic, stored.event.key))

    async def publish(self, site: Site) -> list[StoredEvent]:
        async with site.ledger.publication().hold() as drain:
            events = list(await drain.unpublished(0, 1000))
            await self.sink.send([await self.message(stored) for stored in events])
            await drain.mark([stored.position for stored in events])
        return events


def sqlite_execute(path: Path) -> Execute:
    def execute(statement: str) -> None:
        with sqlite3.connect(path) as connection:
            connection.execute(statement)
        connection.close()

    return execute


def postgres_execute(dsn: str) -> Execute:
    def execute(statement: str) -> None:
        with psycopg.connect(dsn) as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    return execute


@asynccontextmanager
async def staged(site: Site, request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        if "postgres" in request.node.callspec.id:
            execute = postgres_execute(request.getfixturevalue("postgres_dsn"))
            records: Records = site.ledger.records()  # type: ignore[attr-defined]
        else:
            path = request.getfixturevalue("tmp_path") / "ledger.db"
            execute = sqlite_execute(path)
            records = await stack.enter_async_context(open_sqlite_records(path))
        consumer, _, queue = site.worker("w")
        jobs = []
        async with working(consumer, queue):
            for number in range(1, SYNCS + 1):
                jobs.append(await site.add(number))
                await site.is_at(jobs[-1], JobState.COMPLETED)
        rows = await site.rows()
        operations = [str(rows[wallet(number)].id) for number in range(1, SYNCS + 1)]
        # PostgreSQL gives events their positions when somebody reads them.
        await site.ledger.read(0, 1)
        yield Stage(site, records, execute, jobs, operations)


@pytest.fixture
async def stage(site: Site, request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    async with staged(site, request) as stage:
        yield stage


@pytest.fixture
async def published(stage: Stage, kafka_server: KafkaServer) -> AsyncIterator[Stage]:
    settings = KafkaSettings(brokers=(kafka_server.address(),), request_timeout_s=15.0)
    async with open_island() as island, open_kafka_sink(island, settings) as sink:
        stage.broker = Broker(island, settings, sink, f"verify.{uuid4().hex}")
        await stage.broker.publish(stage.site)
        yield stage


async def test_nothing_is_wrong_with_what_went_well(stage: Stage) -> None:
    report = await stage.look(tuple(Claim(job_id=job) for job in stage.jobs))
    assert report.ok
    assert report.found == ()
    assert report.looks == 1
    assert report.read["completed jobs"] == report.read["operations"] == report.read["claimed jobs"] == SYNCS


# ---- queue and ledger --------------------------------------------------------------------------------------------


async def test_jobs_that_are_nowhere(stage: Stage) -> None:
    announced = await stage.site.add(9, told=True, options=JobOptions(delay=60_000))
    waiting = await stage.site.add(10, told=True, options=JobOptions(delay=60_000))
    await _await_announced(stage.site, 2)
    assert await stage.found((Claim(job_id=waiting),)) == {}
    await stage.site._redis.call("ZREM", "bull:mixed:delayed", announced)
    await stage.site._redis.call("DEL", f"bull:mixed:{announced}")
    view = await stage.site.queue.get(stage.jobs[0])
    assert view is not None
    claims = (
        Claim(job_id="never-seen"), Claim(job_id=waiting), Claim(job_id=stage.jobs[0], timestamp=view.job.timestamp),
        Claim(job_id=stage.jobs[1], timestamp=1),
    )  # fmt: skip
    ((kind, subjects),) = (await stage.found(claims)).items()
    assert kind == "lost-job"
    assert {"never-seen", stage.jobs[1]} < set(subjects)
    assert len(subjects) == 3


async def _await_announced(site: Site, count: int) -> None:
    async def told() -> bool:
        bodies = [msgspec.json.decode(body) for body in await site.bodies()]
        return sum(one["type"] == "sync.queued" for one in bodies) >= SYNCS + count

    await until(told, "the announcer told")


async def test_a_completed_job_without_its_operation(stage: Stage) -> None:
    stage.execute(f"DELETE FROM sync_operations WHERE id = '{stage.operations[0]}'")
    stage.execute(f"UPDATE sync_operations SET status = 'failed' WHERE id = '{stage.operations[1]}'")
    found = await stage.found()
    assert set(found["no-operation"]) == set(stage.operations[:2])
    assert set(found["event-without-operation"]) == set(stage.operations[:2])


async def test_an_operation_that_was_committed_twice(stage: Stage) -> None:
    columns = (
        "user_id, wallet_address, type, status, priority, started_at, completed_at, duration_ms, tokens_synced, "
        "chains_synced, total_value_usd, worker_id, metadata, created_at, updated_at"
    )
    stage.execute(
        f"INSERT INTO sync_operations (id, {columns}) SELECT '{uuid4()}', {columns} FROM sync_operations "
        f"WHERE id = '{stage.operations[0]}'"
    )
    found = await stage.found()
    assert found["double-operation"] == [stage.jobs[0]]
    assert len(found["no-event"]) == 1


async def test_operations_that_nobody_will_end(stage: Stage) -> None:
    running, pending = stage.operations[:2]
    old = "2020-01-01T00:00:00.000000+00:00"
    ended = "completed_at = NULL"
    stage.execute(
        f"UPDATE sync_operations SET status = 'running', updated_at = '{old}', {ended} WHERE id = '{running}'"
    )
    stage.execute(f"UPDATE sync_operations SET status = 'pending', {ended} WHERE id = '{pending}'")
    for is_live in (False, True):
        found = await stage.found(is_live=is_live, grace_s=30)
        assert found["stuck-running"] == [running]
        assert found["stuck-pending"] == [pending]


async def test_what_is_still_to_be_done_is_no_fault(stage: Stage) -> None:
    """A worker that died a moment ago: its row says running, its lease lasts, its job is in the queue."""
    _, dead, dead_queue = stage.site.worker("dead")
    stage.site.chain.takes[wallet(8)] = 30.0
    await stage.site.add(8)
    await crash(stage.site, dead, dead_queue)
    for is_live in (False, True):
        assert await stage.found(is_live=is_live, grace_s=30) == {}
    # It has been so for too long, though a daemon works.
    assert set(await stage.found(is_live=True, now=lambda: time.time() + 100, grace_s=30)) == {"stuck-running"}
    assert await stage.found(is_live=False, now=lambda: time.time() + 100, grace_s=30) == {}


async def test_a_dead_letter_that_is_gone(stage: Stage) -> None:
    stage.site.chain.fails[wallet(7)] = 99
    consumer, _, queue = stage.site.worker("again")
    async with working(consumer, queue):
        job = await stage.site.add(7, options=JobOptions(attempts=1))
        await stage.site.is_at(job, JobState.FAILED)
    assert await stage.found() == {}
    stage.execute("DELETE FROM moonxd_dead_letters")
    assert await stage.found() == {}, "the queue holds it"
    await stage.site._redis.call("ZREM", "bull:mixed:failed", job)
    await stage.site._redis.call("DEL", f"bull:mixed:{job}")
    report = await stage.look((Claim(job_id=job),))
    assert [(found.kind, found.is_fault) for found in report.found] == [("no-letter", False)]
    assert report.ok


# ---- ledger and outbox -------------------------------------------------------------------------------------------


async def test_an_ended_operation_that_nobody_was_told_of(stage: Stage) -> None:
    stage.execute(f"DELETE FROM moonxd_outbox WHERE event_type = 'sync.completed' AND wallet_address = '{wallet(2)}'")
    found = await stage.found()
    assert found["no-event"] == [stage.operations[1]]
    assert len(found["gap"]) == 1


async def test_what_was_removed_for_its_age_is_missed_by_nobody(stage: Stage) -> None:
    stage.execute("UPDATE moonxd_outbox SET published_at = created_at")
    await stage.site.ledger.prune(Retention(outbox_rows=3), 1000)
    plan = Plan(queue="mixed", keep=Retention(outbox_rows=3), places={}, looks=1)
    async with open_scratch(4) as scratch:
        report = await verify(Stores(queue=stage.site.queue, records=stage.records, scratch=scratch), plan)
    assert report.found == ()
    assert report.read["events"] <= 4


async def test_a_change_under_two_event_ids(stage: Stage) -> None:
    stage.execute(
        "INSERT INTO moonxd_outbox (event_id, event_type, topic, event_key, wallet_address, body, created_at) "
        f"SELECT '{uuid4()}', event_type, topic, event_key, wallet_address, body, created_at FROM moonxd_outbox "
        f"WHERE event_type = 'sync.completed' AND wallet_address = '{wallet(1)}'"
    )
    found = await stage.found()
    assert found["double-event"] == [stage.operations[0]]


async def test_an_event_under_an_id_that_is_not_its_own(stage: Stage) -> None:
    stage.execute(
        f"UPDATE moonxd_outbox SET event_id = '{uuid4()}' WHERE event_type = 'sync.completed' "
        f"AND wallet_address = '{wallet(3)}'"
    )
    assert (await stage.found())["wrong-identity"] == [stage.operations[2]]


async def test_events_in_an_order_that_cannot_be(stage: Stage) -> None:
    events = [one for one in await stage.site.ledger.read(0, 100) if one.event.wallet == wallet(2)]
    start, end = (
        next(one.position for one in events if one.event.type == kind) for kind in ("sync.started", "sync.completed")
    )
    for before, after in ((start, 10_000), (end, start), (10_000, end)):
        stage.execute(f"UPDATE moonxd_outbox SET position = {after} WHERE position = {before}")
    assert await stage.found() == {"wrong-order": [stage.operations[1]]}


async def test_a_row_that_its_events_tell_differently(stage: Stage) -> None:
    stage.execute(f"UPDATE sync_operations SET tokens_synced = 99 WHERE id = '{stage.operations[3]}'")
    report = await stage.look()
    ((only,),) = [found.examples for found in report.found]
    assert (only.kind, only.subject) == ("table-differs", stage.operations[3])
    assert "tokens_synced is 99, the events say 1" in only.said


# ---- outbox and topic --------------------------------------------------------------------------------------------


@pytest.mark.kafka
async def test_what_was_published_well(published: Stage) -> None:
    report = await published.look()
    assert report.found == ()
    assert report.read["records"] == report.read["events"] > 3 * SYNCS


@pytest.mark.kafka
async def test_events_that_never_reached_their_topic(published: Stage) -> None:
    await published.site.ledger.tell([_event(1)])
    assert set(await published.found()) == {"unpublished"}
    async with published.site.ledger.publication().hold() as drain:
        (stored,) = await drain.unpublished(0, 10)
        await drain.mark([stored.position])
    assert set(await published.found()) == {"not-in-topic"}


@pytest.mark.kafka
async def test_records_that_nobody_committed(published: Stage) -> None:
    broker = _broker(published)
    stored = StoredEvent(position=900, event=_event(2), created_at=(await _events(published))[0].created_at)
    await broker.sink.send([await broker.message(stored)])
    assert set(await published.found()) == {"unknown-record"}


@pytest.mark.kafka
async def test_records_that_were_changed(published: Stage) -> None:
    broker, stored = _broker(published), (await _events(published))[-1]
    assert await published.found() == {}
    again = await broker.message(stored)
    await broker.sink.send([again])
    await broker.sink.send([again])
    # Once more, byte for byte: at least once is what was promised.
    report = await published.look()
    assert [(found.kind, found.count, found.is_fault) for found in report.found] == [("repeated-record", 2, False)]
    assert report.ok
    other = msgspec.structs.replace(again, value=again.value.replace(b'"source":"moonxd"', b'"source":"moonx"'))
    await broker.sink.send([other])
    assert "changed-record" in await published.found()


@pytest.mark.kafka
async def test_records_of_a_wallet_out_of_order(published: Stage) -> None:
    await published.site.ledger.tell([_event(3), _event(4)])
    broker = _broker(published)
    async with published.site.ledger.publication().hold() as drain:
        events = list(await drain.unpublished(0, 10))
        await broker.sink.send([await broker.message(stored) for stored in reversed(events)])
        await drain.mark([stored.position for stored in events])
    assert set(await published.found()) == {"wrong-order"}


def _broker(stage: Stage) -> Broker:
    assert stage.broker is not None
    return stage.broker


async def _events(stage: Stage) -> list[StoredEvent]:
    return list(await stage.site.ledger.read(0, 1000))


def _event(number: int) -> Event:
    """One that belongs to no sync."""
    event = sync_event("user-1", wallet(99), number)
    body = msgspec.json.decode(event.body)
    body["type"] = body["metadata"]["eventType"] = "user.activity"
    return msgspec.structs.replace(event, type="user.activity", body=msgspec.json.encode(body))
