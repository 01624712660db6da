"""The relay against a broker that fails in every way it can, on a clock that jumps."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from moonxd.adapters.memory.ledger import MemoryLedger
from moonxd.agents.relay import SLICE_BYTES
from moonxd.domain.errors import LeaseLost, Permanent, SinkBroken, Transient
from moonxd.domain.message import message_of
from tests.runtime.relay_world import Bench, Broker, MemorySink, eventually, number_of, stored, sync_event, until

HOUR = 3600.0
#: Deeper than anybody parses.
DEEP = b'{"metadata": {}, "data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


class TrioClock:
    def now(self) -> float:
        return 1_700_000_000 + trio.current_time()


class World:
    def __init__(self, **more: Any) -> None:
        self.ledger = MemoryLedger(TrioClock())
        self.broker = Broker()
        self.bench = Bench(self.ledger.publication(), self.broker, **more)

    async def tell(self, count: int, *, wallets: int = 3, first: int = 0) -> None:
        for number in range(first, first + count):
            name = f"w{number % wallets}"
            await self.ledger.tell([sync_event(f"user-{name}", name, number)])

    async def published(self) -> None:
        with trio.fail_after(2 * HOUR):
            await eventually(self.ledger.backlog, 0)

    def numbers(self) -> list[int]:
        return [number_of(record) for record in self.broker.records]


# ---- a message -----------------------------------------------------------------------------------------------------


def test_a_message_is_the_event_with_its_number() -> None:
    event = sync_event("user-1", "w", 3)
    message = message_of(stored(event, 41), "syncs", 2)
    value = msgspec.json.decode(message.value)
    was = msgspec.json.decode(event.body)
    assert value["metadata"] == was["metadata"] | {"sequence": 41, "partition": 2}
    assert {**value, "metadata": 0} == {**was, "metadata": 0}
    assert (message.topic, message.key, message.partition) == ("syncs", "user-1", 2)
    assert dict(message.headers) == {
        "content-type": "application/json",
        "event-type": "sync.completed",
        "event-id": str(event.id),
        "correlation-id": was["metadata"]["correlationId"],
        "source": "moonxd",
    }


@pytest.mark.parametrize("body", [b'{"metadata":{}}', b'{ "userId": 1, "metadata": {"source": "x", "a": [1]}}'])
def test_a_body_of_another_form_is_numbered_too(body: bytes) -> None:
    event = msgspec.structs.replace(sync_event("u", "w", 1), body=body)
    value = msgspec.json.decode(message_of(stored(event, 5), "t", None).value)
    assert value["metadata"] == msgspec.json.decode(body)["metadata"] | {"sequence": 5, "partition": None}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"metadata": 3}', b"\xff", DEEP])
def test_a_body_that_is_no_envelope_is_permanent(body: bytes) -> None:
    with pytest.raises(Permanent, match="no envelope"):
        message_of(stored(msgspec.structs.replace(sync_event("u", "w", 1), body=body)), "t", 0)


# ---- the course of things ------------------------------------------------------------------------------------------


async def test_events_are_sent_in_order_marked_and_counted(autojump_clock: MockClock) -> None:
    world = World(page=4)
    await world.tell(10)
    async with world.bench.running():
        await world.published()
        await world.tell(5, first=10)
        await world.published()
    assert world.numbers() == list(range(15))
    assert [msgspec.json.decode(one.value)["metadata"]["sequence"] for one in world.broker.records] == list(
        range(1, 16)
    )
    assert world.bench.meter.topics == {"syncs": 15}
    assert world.bench.told == []
    assert world.broker.opened == 1


async def test_a_page_of_large_events_does_not_hold_up_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(self: MemorySink, topic: str, key: str) -> int:
        return 0

    monkeypatch.setattr(MemorySink, "partition", at_once)
    relay, page = World().bench.relay, [stored(sync_event("u", "w", n, padding=100_000), n) for n in range(1, 101)]
    turns = 0
    async with trio.open_nursery() as nursery:

        async def somebody_else() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        nursery.start_soon(somebody_else)
        drain: Any = None
        batch = await relay._messages(drain, MemorySink(Broker()), page)
        nursery.cancel_scope.cancel()
    assert len(batch) == 100
    assert turns >= 10_000_000 // (2 * SLICE_BYTES)


async def test_the_mirror_adds_messages(autojump_clock: MockClock) -> None:
    def mirror(one: Any) -> Any:
        return (msgspec.structs.replace(message_of(one, "mirror", None), headers=(("event-id", f"m{one.position}"),)),)

    world = World(mirror=mirror)
    await world.tell(3)
    async with world.bench.running():
        await world.published()
    assert world.bench.meter.topics == {"syncs": 3, "mirror": 3}


@pytest.mark.parametrize("arrived", [0, 1, 3])
async def test_a_transient_failure_sends_the_page_again(autojump_clock: MockClock, arrived: int) -> None:
    world = World(page=5)
    world.broker.faults.extend([(Transient("no leader"), arrived), (Transient("no leader"), arrived)])
    await world.tell(12)
    async with world.bench.running():
        await world.published()
    assert world.numbers() == [*range(arrived), *range(arrived), *range(12)]
    assert [number_of(one) for one in world.broker.effect()] == list(range(12))
    assert world.broker.opened == 1
    assert world.bench.meter.errors == {"transient": 2}


async def test_a_broken_producer_is_replaced(autojump_clock: MockClock) -> None:
    world = World(page=5)
    world.broker.faults.extend([(SinkBroken("fenced"), 2)])
    world.broker.refused_opens.extend([Transient("no broker"), Transient("no broker")])
    await world.tell(12)
    async with world.bench.running():
        await world.published()
    assert [number_of(one) for one in world.broker.effect()] == list(range(12))
    assert world.broker.opened == 2
    assert world.bench.meter.errors == {"transient": 2, "broken": 1}


async def test_an_hour_without_a_broker_is_two_alerts_and_no_loss(autojump_clock: MockClock) -> None:
    world = World()
    world.broker.faults.extend([Transient("connection refused")] * 10_000)
    async with world.bench.running():
        for minute in range(60):
            await world.tell(5, first=minute * 5)
            await trio.sleep(60)
            if minute:
                assert "connection refused" in (world.bench.relay.trouble() or "")
        assert await world.ledger.backlog() == 300
        world.broker.faults.clear()
        await world.published()
        assert world.bench.relay.trouble() is None
    assert world.numbers() == list(range(300))
    assert [(kind, severity, more["raised"]) for kind, _, severity, more in world.bench.told] == [
        ("kafka_failing", "critical", True),
        ("kafka_failing", "info", False),
    ]


async def test_what_can_never_be_sent_is_parked_and_holds_nobody_up(autojump_clock: MockClock) -> None:
    world = World(page=8)
    world.broker.largest = 2000
    await world.tell(5)
    await world.ledger.tell([sync_event("user-w0", "w0", 900, padding=5000)])
    await world.tell(5, first=5)
    async with world.bench.running():
        await world.published()
    assert [number_of(one) for one in world.broker.effect()] == list(range(10))
    (parked,) = [one for one in await world.ledger.read(0, 100) if one.parked]
    assert parked.position == 6
    assert "too large" in (parked.parked or "")
    ((kind, message, severity, _),) = world.bench.told
    assert (kind, severity) == ("event_parked", "critical")
    assert "too large" in message
    assert str(parked.event.id) in message


async def test_a_ledger_that_fails_for_a_while_is_waited_for(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(page=2)
    runner = world.ledger._runner
    read, calls = runner.read, iter(range(10**6))

    async def failing(work: Any) -> Any:
        if next(calls) % 3:
            raise Transient("the database is away")
        return await read(work)

    monkeypatch.setattr(runner, "read", failing)
    await world.tell(7)
    async with world.bench.running():
        await until(lambda: len(world.broker.records) == 7)
    assert world.numbers() == list(range(7))


async def test_a_lost_hold_is_sought_again(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    from moonxd.adapters.sqlite.publication import SqliteDrain

    world = World(page=2)
    mark, losses = SqliteDrain.mark, iter([True, False, True])

    async def losing(self: SqliteDrain, positions: Any) -> None:
        if next(losses, False):
            raise LeaseLost("the session is gone")
        await mark(self, positions)

    monkeypatch.setattr(SqliteDrain, "mark", losing)
    await world.tell(9)
    async with world.bench.running():
        await world.published()
    assert [number_of(one) for one in world.broker.effect()] == list(range(9))
    assert world.broker.opened == 3


async def test_a_hold_that_is_lost_while_there_is_no_broker_is_noticed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moonxd.adapters.sqlite.publication import SqliteDrain

    losses = iter([False, True, False])

    async def losing(self: SqliteDrain) -> None:
        await trio.lowlevel.checkpoint()
        if next(losses, False):
            raise LeaseLost("the session is gone")

    monkeypatch.setattr(SqliteDrain, "confirm", losing)
    world, states = World(), []
    world.broker.refused_opens.extend([Transient("no broker")] * 5)
    hold = type(world.bench.relay._publication).hold
    monkeypatch.setattr(
        type(world.bench.relay._publication),
        "hold",
        lambda self: (states.append(world.bench.relay.state), hold(self))[1],
    )
    await world.tell(3)
    async with world.bench.running():
        await world.published()
    assert states == ["standby", "standby"], "it asked for the right to publish again"
    assert world.numbers() == list(range(3))


async def test_a_hold_that_is_lost_at_once_is_not_sought_in_a_storm(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moonxd.adapters.sqlite.publication import SqliteDrain

    tries = 0

    async def losing(self: SqliteDrain, after: int, limit: int) -> Any:
        nonlocal tries
        tries += 1
        raise LeaseLost("the session is gone")

    monkeypatch.setattr(SqliteDrain, "unpublished", losing)
    world = World()
    async with world.bench.running():
        await trio.sleep(10)
    assert 10 < tries <= 101
    assert world.broker.opened == tries, "whoever lost it does not go on with a new producer"


async def test_a_ledger_that_is_away_is_no_failure_of_the_broker(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moonxd.adapters.sqlite.publication import SqliteDrain

    async def away(self: SqliteDrain) -> None:
        if trio.current_time() < 60:
            raise Transient("the ledger is away")

    monkeypatch.setattr(SqliteDrain, "confirm", away)
    world = World()
    await world.tell(1)
    async with world.bench.running():
        await trio.sleep(30)
        assert world.numbers() == []
        await world.published()
    assert world.bench.told == []
    assert not world.bench.meter.errors


# ---- flushing ------------------------------------------------------------------------------------------------------


async def test_a_flush_publishes_what_is_committed(autojump_clock: MockClock) -> None:
    world = World(page=2)
    async with world.bench.running():
        await trio.sleep(1)
        await world.tell(7)
        assert await world.bench.relay.flush(5.0)
        assert world.numbers() == list(range(7))
        assert await world.ledger.backlog() == 0


async def test_a_flush_does_not_wait_for_a_broker_that_is_away(autojump_clock: MockClock) -> None:
    world = World()
    world.broker.faults.extend([Transient("connection refused")] * 1000)
    async with world.bench.running():
        await world.tell(1)
        await trio.sleep(10)
        began = trio.current_time()
        assert not await world.bench.relay.flush(5.0)
        assert trio.current_time() == began
    assert not await world.bench.relay.flush(5.0)


async def test_a_flush_is_bounded(autojump_clock: MockClock) -> None:
    world = World()
    world.broker.send_s = 60.0
    async with world.bench.running():
        await world.tell(1)
        await until(lambda: world.bench.relay.state == "holding")
        began = trio.current_time()
        assert not await world.bench.relay.flush(5.0)
        assert trio.current_time() - began == pytest.approx(5.0)


# ---- whatever happens ----------------------------------------------------------------------------------------------

FAULTS = st.lists(st.tuples(st.sampled_from([Transient, SinkBroken]), st.integers(0, 5)) | st.none(), max_size=12)
LIVES = st.lists(st.floats(0.0, 1.5), max_size=5)


@settings(max_examples=60, deadline=None)
@given(faults=FAULTS, lives=LIVES, page=st.integers(1, 6), wallets=st.integers(1, 4))
def test_nothing_is_lost_or_reordered_whatever_fails(
    faults: list[tuple[type[Exception], int] | None], lives: list[float], page: int, wallets: int
) -> None:
    """Relays die after each of `lives` seconds (at any await) and the next one takes over; the last one may finish."""

    async def scene() -> None:
        world = World(page=page)
        world.broker.send_s = 0.02
        world.broker.faults.extend(
            (fault[0]("as told"), fault[1]) if fault else (Transient("lost"), 10**6) for fault in faults
        )
        await world.tell(20, wallets=wallets)
        for life in lives:
            with trio.move_on_after(life):
                await Bench(world.ledger.publication(), world.broker, page=page).relay.run(
                    lambda: None, world.broker.sink
                )
        async with world.bench.running():
            await world.published()
        by_id: dict[str, bytes] = {}
        for record in world.broker.records:
            # A resend is the same record.
            assert by_id.setdefault(dict(record.headers)["event-id"], record.value) == record.value
        assert [number_of(one) for one in world.broker.effect()] == list(range(20))

    trio.run(scene, clock=MockClock(autojump_threshold=0))
