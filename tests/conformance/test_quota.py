"""Budgets over a rolling window: this process's own, and the one all workers share, behave alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from uuid import uuid4

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from moonxd.adapters.memory.quota import MemoryQuota
from moonxd.adapters.redis.client import open_redis
from moonxd.adapters.redis.quota import RedisQuota
from moonxd.adapters.redis.settings import parse_redis_url
from moonxd.domain.quota import SLICES, Charge, Windows
from moonxd.ports import Quota


@asynccontextmanager
async def on_redis(url: str) -> AsyncIterator[RedisQuota]:
    async with open_redis(parse_redis_url(url)) as redis:
        await redis.wait_connected()
        yield RedisQuota(redis)


@pytest.fixture(params=["memory", "redis"])
async def quota(request: pytest.FixtureRequest) -> AsyncIterator[Quota]:
    if request.param == "memory":
        yield MemoryQuota()
        return
    async with on_redis(request.getfixturevalue("redis_url")) as opened:
        yield opened


def charge(cost: int = 1, limit: int = 10, window_s: float = 60.0, key: str | None = None) -> Charge:
    return Charge(key or f"test:{uuid4()}", cost, limit, window_s)


async def test_the_limit_is_taken_and_nothing_beyond_it(quota: Quota) -> None:
    one = charge(cost=3)
    assert [await quota.take([one]) for _ in range(3)] == [0, 0, 0]
    wait = await quota.take([one])
    assert 55 < wait <= 60 + 60 / SLICES
    assert await quota.take([one._replace(cost=1)]) == 0


async def test_all_charges_or_none(quota: Quota) -> None:
    wide, narrow = charge(limit=100), charge(limit=2)
    assert [await quota.take([wide, narrow]) for _ in range(2)] == [0, 0]
    assert await quota.take([wide, narrow]) > 0
    assert [await quota.take([wide]) for _ in range(98)] == [0] * 98
    assert await quota.take([wide]) > 0


async def test_room_comes_back(quota: Quota) -> None:
    one = charge(limit=2, window_s=0.4)
    assert [await quota.take([one]) for _ in range(2)] == [0, 0]
    with trio.fail_after(10):
        wait = await quota.take([one])
        assert 0 < wait <= 0.45
        while wait:
            await trio.sleep(wait)
            wait = await quota.take([one])


async def test_more_than_the_limit_waits_for_an_empty_window_but_not_for_ever(quota: Quota) -> None:
    one = charge(cost=50, limit=10)
    assert await quota.take([one]) == 0
    assert await quota.take([one]) > 0
    assert await quota.take([charge(cost=0)]) == 0
    assert await quota.take([]) == 0


async def test_many_workers_share_one_budget(redis_url: str) -> None:
    key, taken = f"test:{uuid4()}", 0

    async def worker(quota: RedisQuota) -> None:
        nonlocal taken
        for _ in range(50):
            wait = await quota.take([charge(limit=77, key=key)])
            taken += wait == 0

    async with on_redis(redis_url) as first, on_redis(redis_url) as second, trio.open_nursery() as nursery:
        for quota in (first, second) * 4:
            nursery.start_soon(worker, quota)
    assert taken == 77


async def test_without_redis_each_worker_keeps_to_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    async with open_redis(parse_redis_url("redis://127.0.0.1:1/0")) as redis:
        quota, one = RedisQuota(redis), charge(limit=2)
        assert [await quota.take([one]) > 0 for _ in range(4)] == [False, False, True, True]
    assert sum("kept per worker" in record.message for record in caplog.records) == 1


@given(
    st.lists(st.tuples(st.floats(0, 20), st.integers(0, 15)), max_size=150),
    st.integers(1, 30),
    st.sampled_from([1.0, 10.0, 60.0]),
)
def test_no_window_ever_holds_more_than_the_limit(asks: list[tuple[float, int]], limit: int, window_s: float) -> None:
    now, taken = 0.0, []
    windows = Windows(lambda: now)
    for passed, cost in asks:
        now += passed
        wait = windows.take([Charge("k", cost, limit, window_s)])
        assert wait <= window_s * (1 + 2 / SLICES)
        if wait == 0:
            taken.append((now, min(cost, limit)))
    for start, _ in taken:
        assert sum(cost for at, cost in taken if start <= at < start + window_s) <= limit


def test_waiting_as_told_is_enough() -> None:
    now, times = 0.0, []
    clock: Callable[[], float] = lambda: now  # noqa: E731
    windows = Windows(clock)
    while len(times) < 40:
        wait = windows.take([Charge("k", 1, 5, 10.0)])
        if wait == 0:
            times.append(now)
        now += wait
    assert all(b - a >= 10.0 for a, b in zip(times, times[5:], strict=False))
    assert all(b - a <= 10.0 * (1 + 2 / SLICES) for a, b in pairwise(times))
