"""Offices that one of the fleet holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import pytest
import trio

from moonxd.adapters.memory.election import MemoryElection
from moonxd.adapters.redis.client import open_redis
from moonxd.adapters.redis.election import RedisElection
from moonxd.adapters.redis.settings import parse_redis_url
from moonxd.domain.errors import Transient
from moonxd.ports import Election
from tests.services.redis import RedisServer

Candidate = Callable[[str], Election]


@pytest.fixture(params=["memory", "redis"])
async def candidate(request: pytest.FixtureRequest) -> AsyncIterator[Candidate]:
    if request.param == "memory":
        offices: dict[str, tuple[str, float]] = {}
        yield lambda name: MemoryElection(name, offices)
        return
    async with open_redis(parse_redis_url(request.getfixturevalue("redis_url"))) as redis:
        await redis.wait_connected()
        yield lambda name: RedisElection(redis, name)


async def test_one_holds_it_until_it_leaves(candidate: Candidate) -> None:
    one, other, office = candidate("one"), candidate("other"), str(uuid4())
    assert await one.hold(office, 60)
    assert await one.hold(office, 60), "its holder keeps it"
    assert not await other.hold(office, 60)
    await other.leave(office)
    assert not await other.hold(office, 60), "nobody leaves for another"
    assert await other.hold(f"{office}-2", 60), "offices are apart"
    await one.leave(office)
    assert await other.hold(office, 60)


async def test_a_holder_that_falls_silent_loses_it(candidate: Candidate) -> None:
    one, other, office = candidate("one"), candidate("other"), str(uuid4())
    assert await one.hold(office, 0.05)
    with trio.fail_after(5):
        while not await other.hold(office, 60):  # noqa: ASYNC110 (nobody tells when it has died)
            await trio.sleep(0.01)
    assert not await one.hold(office, 60)


async def test_of_many_that_ask_at_once_one_gets_it(candidate: Candidate) -> None:
    office, elected = str(uuid4()), []

    async def stand(name: str) -> None:
        if await candidate(name).hold(office, 60):
            elected.append(name)

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(stand, f"worker-{number}")
    assert len(elected) == 1


@pytest.mark.redis
async def test_without_redis_nobody_knows(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis()
    async with open_redis(parse_redis_url(server.url)) as redis:
        await redis.wait_connected()
        election = RedisElection(redis, "one", timeout_s=0.5)
        assert await election.hold("office", 60)
        server.kill()
        with pytest.raises(Transient, match="who holds office is not known"):
            await election.hold("office", 60)
