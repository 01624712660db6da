"""ports.Fleet on a real Redis: heartbeats that expire, orders that arrive at once and are never carried out late."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count

import msgspec
import pytest
import trio

from moonxd.adapters.redis.client import Redis, open_redis, parse_redis_url
from moonxd.adapters.redis.fleet import RedisFleet
from moonxd.agents.heartbeat import Heart
from moonxd.agents.orders import Orders
from moonxd.domain.fleet import Answer, Heartbeat, Order

_numbers = count(1)
BEAT = Heartbeat(
    worker="w1", queue="q", host="h", pid=1, version="1", state="running", slots=10, slots_busy=2, is_paused=False,
    started_at=1.0, seen_at=2.0,
)  # fmt: skip


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with open_redis(parse_redis_url(redis_url)) as redis:
        await redis.wait_connected()
        yield redis


@pytest.fixture
def fleet(redis: Redis) -> RedisFleet:
    return RedisFleet(redis, f"fleet-test-{next(_numbers)}:")


async def names(fleet: RedisFleet) -> list[str]:
    return [beat.worker for beat in await fleet.heartbeats()]


async def test_living_workers_are_listed_by_name_with_their_last_word(fleet: RedisFleet) -> None:
    assert await fleet.heartbeats() == ()
    await fleet.beat(msgspec.structs.replace(BEAT, worker="w2"), 60)
    await fleet.beat(BEAT, 60)
    last = msgspec.structs.replace(BEAT, slots_busy=7, is_paused=True)
    await fleet.beat(last, 60)
    assert await names(fleet) == ["w1", "w2"]
    assert (await fleet.heartbeats())[0] == last


async def test_a_worker_that_stops_beating_is_gone_and_one_that_leaves_is_gone_at_once(fleet: RedisFleet) -> None:
    await fleet.beat(BEAT, 0.05)
    await fleet.beat(msgspec.structs.replace(BEAT, worker="w2"), 60)
    with trio.fail_after(5):
        while await names(fleet) != ["w2"]:  # noqa: ASYNC110  another process's state has no event
            await trio.sleep(0.01)
    await fleet.leave("w2")
    assert await fleet.heartbeats() == ()


async def test_what_another_version_wrote_is_left_out(fleet: RedisFleet, redis: Redis) -> None:
    await fleet.beat(BEAT, 60)
    await redis.call("SET", fleet._prefix + "beat:w1", b"{}")
    assert await fleet.heartbeats() == ()


async def test_an_order_is_carried_out_and_answered(fleet: RedisFleet) -> None:
    cancelled: list[str] = []

    async def cancel(about: str) -> Answer:
        cancelled.append(about)
        return Answer(done=about == "7", body={"was": "active"})

    async with trio.open_nursery() as nursery:
        await nursery.start(_ready, Orders(fleet, "w1", {"cancel": cancel}))
        assert await fleet.ask("w1", Order(id="a", verb="cancel", about="7"), 5) == Answer(
            done=True, body={"was": "active"}
        )
        refused = await fleet.ask("w1", Order(id="b", verb="cancel", about="8"), 5)
        assert refused is not None
        assert not refused.done
        unknown = await fleet.ask("w1", Order(id="c", verb="dance"), 5)
        assert unknown is not None
        assert not unknown.done
        nursery.cancel_scope.cancel()
    assert cancelled == ["7", "8"]


async def _ready(orders: Orders, *, task_status: trio.TaskStatus[None]) -> None:
    await orders.run(task_status.started)


async def test_an_order_that_nobody_took_in_time_is_never_carried_out(fleet: RedisFleet, redis: Redis) -> None:
    assert await fleet.ask("w1", Order(id="a", verb="cancel", about="7"), 0.05) is None
    with trio.fail_after(5):
        while await redis.call("EXISTS", fleet._prefix + "orders:w1"):  # noqa: ASYNC110  another process's state has no event
            await trio.sleep(0.01)


async def test_an_order_that_cannot_be_read_is_dropped_and_the_next_one_taken(fleet: RedisFleet, redis: Redis) -> None:
    await redis.call("RPUSH", fleet._prefix + "orders:w1", b"no json", b'{"id":"x","verb":"pause"}')
    assert await fleet.next_order("w1") is None
    assert await fleet.next_order("w1") == Order(id="x", verb="pause")


async def test_a_heart_tells_a_new_state_at_once_and_says_goodbye(fleet: RedisFleet) -> None:
    now = BEAT
    heart = Heart(fleet, lambda: now, interval_s=60)
    ready = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heart.run, ready.set)
        await ready.wait()
        assert await fleet.heartbeats() == (BEAT,)
        now = msgspec.structs.replace(BEAT, is_paused=True)
        with trio.fail_after(5):
            while await fleet.heartbeats() != (now,):  # noqa: ASYNC110  another process's state has no event
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert await fleet.heartbeats() == ()
