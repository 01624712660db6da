"""ports.Requests: nothing is lost between a list and its reply, whoever dies. In memory and on two Redis versions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from itertools import count

import msgspec
import pytest
import trio

from moonxd.adapters.memory.requests import MemoryLists
from moonxd.adapters.redis.client import Redis, open_redis, parse_redis_url
from moonxd.adapters.redis.requests import RedisRequests
from moonxd.domain.core_service import Source, Taken, Verdict, dead_key, park
from moonxd.domain.errors import Transient
from moonxd.ports import Requests
from tests.services.redis import RedisServer

_numbers = count(1)


class World(ABC):
    """The lists from the other side: as clients and operators see them."""

    def __init__(self) -> None:
        self.prefix = f"requests-test-{next(_numbers)}:"
        self.source = Source(self.prefix, "requests")

    @abstractmethod
    def owner(self, *, lease_s: float = 60.0, dead_max: int = 1000) -> Requests: ...

    @abstractmethod
    async def push(self, *bodies: bytes) -> None: ...

    @abstractmethod
    async def entries(self, key: str) -> list[bytes]:
        """Oldest first."""

    async def left(self) -> list[bytes]:
        return await self.entries(self.source.key)


class InMemory(World):
    def __init__(self) -> None:
        super().__init__()
        self.lists = MemoryLists()

    def owner(self, *, lease_s: float = 60.0, dead_max: int = 1000) -> Requests:
        return self.lists.owner(lease_s=lease_s, dead_max=dead_max)

    async def push(self, *bodies: bytes) -> None:
        for body in bodies:
            self.lists.push(self.source.key, body)

    async def entries(self, key: str) -> list[bytes]:
        return list(reversed(self.lists.lists[key]))


class OnRedis(World):
    def __init__(self, redis: Redis) -> None:
        super().__init__()
        self.redis = redis

    def owner(self, *, lease_s: float = 60.0, dead_max: int = 1000) -> RedisRequests:
        name = f"owner-{next(_numbers)}"
        return RedisRequests(self.redis, [self.prefix], owner=name, lease_s=lease_s, reply_ttl_s=60, dead_max=dead_max)

    async def push(self, *bodies: bytes) -> None:
        await self.redis.call("LPUSH", self.source.key, *bodies)

    async def entries(self, key: str) -> list[bytes]:
        found: list[bytes] = await self.redis.call("LRANGE", key, 0, -1)
        return found[::-1]


@pytest.fixture(params=["memory", "redis", "redis-embedded"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        yield InMemory()
        return
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
    else:
        binary = request.getfixturevalue("embedded_redis_binary")
        start: Callable[..., RedisServer] = request.getfixturevalue("start_redis")
        url = start(binary=binary).url
    async with open_redis(parse_redis_url(url)) as redis:
        await redis.wait_connected()
        yield OnRedis(redis)


def answered(key: str | None = None, reply: bytes = b"{}", parked: bytes | None = None) -> Verdict:
    return Verdict(kind="sync_status", outcome="answered", reply_key=key, reply=reply, parked=parked)


async def take(requests: Requests, world: World) -> Taken:
    taken = await requests.take(world.source, 5)
    assert taken is not None
    return taken


async def until_put_back(requests: Requests, number: int) -> None:
    """Beat until so many requests of dead owners have been put back."""
    moved = 0
    with trio.fail_after(10):
        while (moved := moved + await requests.beat()) < number:  # noqa: ASYNC110  (leases end by the clock)
            await trio.sleep(0.01)
    assert moved == number


async def test_requests_are_taken_oldest_first_and_one_owner_gets_each(world: World) -> None:
    one, other = world.owner(), world.owner()
    await one.beat()
    await other.beat()
    await world.push(b"1", b"2", b"3")
    assert [(await take(who, world)).body for who in (one, other, one)] == [b"1", b"2", b"3"]
    assert await one.take(world.source, 0.01) is None


async def test_a_waiting_owner_gets_a_request_as_it_comes(world: World) -> None:
    requests = world.owner()
    await requests.beat()
    async with trio.open_nursery() as nursery:

        async def client() -> None:
            await world.push(b"hello")

        nursery.start_soon(client)
        with trio.fail_after(2):
            assert (await take(requests, world)).body == b"hello"


async def test_finishing_replies_parks_and_forgets_in_one_step_and_only_once(world: World) -> None:
    requests = world.owner()
    await requests.beat()
    await world.push(b"x")
    taken = await take(requests, world)
    verdict = answered(f"{world.prefix}answers", b"reply", parked=park(taken, "why", 0.0))
    assert await requests.finish(taken, verdict)
    assert not await requests.finish(taken, verdict)
    assert await world.entries(f"{world.prefix}answers") == [b"reply"]
    (entry,) = await world.entries(dead_key(world.prefix))
    assert msgspec.json.decode(entry)["reason"] == "why"
    await requests.leave()
    assert await world.left() == []


async def test_what_is_parked_is_bounded_and_the_newest_stay(world: World) -> None:
    requests = world.owner(dead_max=3)
    await requests.beat()
    for number in range(5):
        await world.push(b"x%d" % number)
        taken = await take(requests, world)
        assert await requests.finish(taken, answered(parked=taken.body))
    assert await world.entries(dead_key(world.prefix)) == [b"x2", b"x3", b"x4"]


async def test_what_a_dead_owner_held_is_put_back_first_in_line_and_in_order(world: World) -> None:
    dead, living = world.owner(lease_s=0.05), world.owner()
    await dead.beat()
    await world.push(b"1", b"2", b"3")
    lost = [await take(dead, world) for _ in range(2)]
    await until_put_back(living, 2)
    assert await world.left() == [b"1", b"2", b"3"]
    assert (await take(living, world)).body == b"1"
    # It was not dead but slow: what it found comes too late, and the other's answer is the only one.
    assert not await dead.finish(lost[0], answered(f"{world.prefix}answers"))
    assert await world.entries(f"{world.prefix}answers") == []


async def test_an_owner_that_leaves_puts_back_at_once(world: World) -> None:
    requests = world.owner()
    await requests.beat()
    await world.push(b"1", b"2")
    await take(requests, world)
    await requests.leave()
    assert await world.left() == [b"1", b"2"]


async def test_a_living_owner_keeps_what_it_holds(world: World) -> None:
    one, other = world.owner(), world.owner()
    await one.beat()
    await world.push(b"1")
    taken = await take(one, world)
    assert await other.beat() == 0
    assert await one.finish(taken, answered())


async def test_identical_messages_are_requests_of_their_own(world: World) -> None:
    requests = world.owner()
    await requests.beat()
    await world.push(b"same", b"same")
    first, second = await take(requests, world), await take(requests, world)
    for taken in (first, second):
        assert await requests.finish(taken, answered(f"{world.prefix}answers"))
    assert len(await world.entries(f"{world.prefix}answers")) == 2


async def test_what_was_let_go_is_taken_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moonxd.adapters.redis.requests._LOOK_S", 0.0)
    requests = world.owner()
    await requests.beat()
    await world.push(b"1", b"2")
    first, second = await take(requests, world), await take(requests, world)
    requests.let_go(first)
    again = await take(requests, world)
    assert again == first
    assert await requests.take(world.source, 0.01) is None
    assert await requests.finish(again, answered())
    assert await requests.finish(second, answered())
    await requests.leave()
    assert await world.left() == []


async def test_a_cancelled_wait_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled at any moment: whatever had been moved by then is found by a later call."""
    monkeypatch.setattr("moonxd.adapters.redis.requests._LOOK_S", 0.0)
    requests = world.owner()
    await requests.beat()
    got: list[bytes] = []
    for number in range(30):
        await world.push(b"%d" % number)
        with trio.move_on_after(number * 0.0002):
            if (taken := await requests.take(world.source, 5)) is not None:
                got.append(taken.body)
                with trio.CancelScope(shield=True):
                    await requests.finish(taken, answered())
    with trio.fail_after(20):
        while len(got) < 30:
            if (taken := await requests.take(world.source, 0.1)) is not None:
                got.append(taken.body)
                await requests.finish(taken, answered())
    assert sorted(got) == sorted(b"%d" % number for number in range(30))


# ---- what only Redis can do wrong ----------------------------------------------------------------------------------


@pytest.fixture
async def redis_world(redis_url: str) -> AsyncIterator[OnRedis]:
    async with open_redis(parse_redis_url(redis_url)) as redis:
        await redis.wait_connected()
        yield OnRedis(redis)


async def test_a_reply_expires_and_never_destroys_a_key_of_another_type(redis_world: OnRedis) -> None:
    requests, redis = redis_world.owner(), redis_world.redis
    await requests.beat()
    await redis.call("SET", f"{redis_world.prefix}text", "kept")
    await redis_world.push(b"1", b"2")
    assert await requests.finish(await take(requests, redis_world), answered(f"{redis_world.prefix}text"))
    assert await redis.call("GET", f"{redis_world.prefix}text") == b"kept"
    assert await requests.finish(await take(requests, redis_world), answered(f"{redis_world.prefix}list"))
    assert 0 < await redis.call("PTTL", f"{redis_world.prefix}list") <= 60_000


async def test_a_move_that_comes_after_an_owner_was_given_up_is_found(redis_world: OnRedis) -> None:
    dead, living, redis = redis_world.owner(lease_s=0.05), redis_world.owner(), redis_world.redis
    await dead.beat()
    await redis_world.push(b"1")
    await take(dead, redis_world)
    await until_put_back(living, 1)
    # Redis carries out what the dead owner's connection still had in it.
    await redis.call("LMOVE", redis_world.source.key, dead._processing(redis_world.source), "RIGHT", "LEFT")
    await until_put_back(living, 1)
    assert await redis_world.left() == [b"1"]


async def test_redis_restarts_and_what_was_held_is_still_ours(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis(appendonly=True, appendfsync="always")
    async with open_redis(parse_redis_url(server.url)) as redis:
        await redis.wait_connected()
        world = OnRedis(redis)
        requests = world.owner()
        await requests.beat()
        await world.push(b"1")
        taken = await take(requests, world)
        server.kill()
        server.start()
        # A call or two may still learn that the old connection is gone.
        with trio.fail_after(10):
            while True:
                try:
                    await requests.beat()
                    break
                except Transient:
                    await trio.sleep(0.01)
            assert await requests.finish(taken, answered(f"{world.prefix}answers"))
        assert await world.entries(f"{world.prefix}answers") == [b"{}"]
