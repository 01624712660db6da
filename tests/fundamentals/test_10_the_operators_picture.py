"""What an operator sees: one snapshot, then only the sections that changed; nothing is sampled for nobody."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
import pytest
import trio
from trio.testing import MockClock

from moonxd.agents.sampler import Sampler, Slots
from moonxd.api.schema import Daemon, Delta, Snapshot, apply, difference
from moonxd.control.feed import Feed
from moonxd.domain.errors import Transient

from .house import House

IDENTITY = Daemon(
    version="1", pid=1, worker="house", host="here", state="running", started_at=0, slots=0, slots_busy=0,
    is_paused=False, rss_bytes=0, cpu=0, loop_lag=0, redis="memory", database="memory",
)  # fmt: skip


class Ledger:
    """Its sign of life: quick, refused, or none at all."""

    how = "well"
    asked = 0

    async def ping(self) -> None:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if self.how == "refused":
            raise Transient("PostgreSQL cannot be reached")
        if self.how == "silent":
            await trio.sleep_forever()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def sampler(house: House, ledger: Ledger) -> Sampler:
    return Sampler(
        identity=IDENTITY,
        queue=house.queue,
        queue_name=house.queue.name,
        telemetry=house.telemetry,
        children=lambda: (),
        slots=lambda: Slots(house.slots, house.consumer.busy, house.consumer.is_paused),
        state=lambda: "running",
        database=ledger.ping,
    )


async def test_a_running_job_and_its_step(clock: MockClock, house: House, sampler: Sampler) -> None:
    house.base.takes_s = 10.0
    job_id = await house.enqueue()
    await trio.sleep(1)
    picture = await sampler.sample()
    (running,) = picture.running
    assert (running.id, running.user, running.step, running.attempt) == (job_id, "alice", "fetch", 1)
    assert (picture.daemon.slots, picture.daemon.slots_busy, picture.queue.active) == (3, 1, 1)


async def test_a_failure_and_its_reason(clock: MockClock, house: House, sampler: Sampler) -> None:
    await house.ended(await house.enqueue(wallet="0x12"))
    picture = await sampler.sample()
    (failure,) = picture.failures
    assert failure.final
    assert "an EVM address has 40" in failure.reason
    assert picture.rates.failed == picture.queue.failed == 1


async def test_a_delta_is_what_changed(clock: MockClock, house: House, sampler: Sampler) -> None:
    before = await sampler.sample()
    await house.sync()
    after = await sampler.sample()
    delta = difference(before, after)
    assert delta.queue is not msgspec.UNSET
    assert delta.failures is msgspec.UNSET, "a section that stayed as it was is not sent"
    assert apply(before, delta) == msgspec.structs.replace(after, seq=1)
    with pytest.raises(ValueError, match="does not follow"):
        apply(apply(before, delta), delta)


async def test_a_viewer_follows_and_an_unwatched_daemon_is_silent(
    clock: MockClock, house: House, sampler: Sampler, nursery: trio.Nursery
) -> None:
    taken = 0

    async def sample() -> Snapshot:
        nonlocal taken
        taken += 1
        return await sampler.sample()

    feed = Feed(sample)
    nursery.start_soon(feed.run)
    await trio.sleep(60)
    assert taken == 0

    picture = await sampler.sample()
    with trio.fail_after(60):
        job_id = await house.enqueue()
        async with aclosing(_changes(feed)) as changes:
            async for change in changes:
                picture = change if isinstance(change, Snapshot) else apply(picture, change)
                if picture.queue.completed:
                    break
    assert job_id in house.outcomes
    seen = taken
    await trio.sleep(60)
    assert taken - seen <= 1


async def _changes(feed: Feed) -> AsyncGenerator[Snapshot | Delta]:
    """The stream as a client reads it."""
    kinds: dict[str, type[Snapshot] | type[Delta]] = {"snapshot": Snapshot, "delta": Delta}
    async with aclosing(feed.frames()) as frames:
        async for chunk in frames:
            for event in chunk.decode().strip().split("\n\n"):
                fields = dict(line.split(": ", 1) for line in event.splitlines())
                if fields.get("event") in kinds:
                    change: Snapshot | Delta = msgspec.json.decode(fields["data"], type=kinds[fields["event"]])
                    yield change


async def test_a_database_that_is_away_is_in_the_picture(clock: MockClock, sampler: Sampler, ledger: Ledger) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: sampler.run(task_status.started))
        assert (await sampler.sample()).daemon.away == ()
        ledger.how = "refused"
        assert (await sampler.sample()).daemon.away == ("database",)
        ledger.how = "well"
        assert (await sampler.sample()).daemon.away == ()
        ledger.how = "silent"
        for _ in range(3):
            assert (await sampler.sample()).daemon.away == ("database",)
        assert ledger.asked == 4, "a question that nobody answers is not asked again"
        nursery.cancel_scope.cancel()
