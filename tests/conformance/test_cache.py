"""ports.Cache: one suite over the cache in memory, the shared one, and the shared one without its local front."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from moonxd.adapters.memory.cache import MemoryCache
from moonxd.adapters.redis.cache import RedisCache
from moonxd.adapters.redis.client import open_redis, parse_redis_url
from moonxd.ports import Cache
from tests.services.redis import RedisServer


@asynccontextmanager
async def _redis_cache(url: str, **options: float) -> AsyncIterator[RedisCache]:
    async with open_redis(parse_redis_url(url)) as redis:
        await redis.wait_connected()
        yield RedisCache(redis, **options)  # type: ignore[arg-type]


@pytest.fixture(params=["memory", "redis", "redis-without-front"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[Cache]:
    if request.param == "memory":
        yield MemoryCache()
        return
    front = {"redis": 30.0, "redis-without-front": 0.0}[request.param]
    async with _redis_cache(request.getfixturevalue("redis_url"), local_ttl_s=front) as redis_cache:
        yield redis_cache


async def test_what_was_put_is_got_and_the_rest_is_absent(cache: Cache) -> None:
    await cache.put_many({"a": b"1", "b": b""}, 60)
    assert await cache.get_many(["a", "b", "c", "a"]) == {"a": b"1", "b": b""}


async def test_values_are_opaque_bytes_and_keys_any_text(cache: Cache) -> None:
    entries = {"": b"\x00\xff\r\n", "price:ethereum:0xabc€ \n": bytes(range(256))}
    await cache.put_many(entries, 60)
    assert await cache.get_many(list(entries)) == entries


async def test_the_last_value_wins(cache: Cache) -> None:
    await cache.put_many({"a": b"old"}, 60)
    await cache.put_many({"a": b"new"}, 60)
    assert await cache.get_many(["a"]) == {"a": b"new"}


async def test_nothing_asked_is_nothing_got(cache: Cache) -> None:
    await cache.put_many({}, 60)
    assert await cache.get_many([]) == {}


async def test_thousands_of_entries_in_one_call(cache: Cache) -> None:
    entries = {f"k{n}": b"%d" % n for n in range(3_000)}
    await cache.put_many(entries, 60)
    assert await cache.get_many(list(entries)) == entries


async def test_entries_expire(cache: Cache) -> None:
    await cache.put_many({"short": b"x"}, 0.05)
    await cache.put_many({"long": b"y"}, 60)
    with trio.fail_after(5):
        while "short" in await cache.get_many(["short"]):  # noqa: ASYNC110
            await trio.sleep(0.01)
    assert await cache.get_many(["long"]) == {"long": b"y"}


async def test_a_ttl_of_zero_keeps_nothing(cache: Cache) -> None:
    await cache.put_many({"gone": b"x"}, 0)
    assert await cache.get_many(["gone"]) == {}


# ---- memory only


async def test_memory_keeps_the_recently_used(autojump_clock: trio.testing.MockClock) -> None:
    cache = MemoryCache(size=2)
    await cache.put_many({"a": b"1", "b": b"2"}, 60)
    await cache.get_many(["a"])
    await cache.put_many({"c": b"3"}, 60)
    assert await cache.get_many(["a", "b", "c"]) == {"a": b"1", "c": b"3"}


# ---- Redis only


async def test_workers_share_it(redis_url: str) -> None:
    async with _redis_cache(redis_url) as mine, _redis_cache(redis_url) as yours:
        await mine.put_many({"a": b"1"}, 60)
        assert await yours.get_many(["a"]) == {"a": b"1"}


async def test_the_front_spares_round_trips(redis_url: str, redis_server: RedisServer) -> None:
    async with _redis_cache(redis_url) as cache:
        await cache.put_many({"a": b"1"}, 60)
        redis_server.command("FLUSHALL")
        assert await cache.get_many(["a"]) == {"a": b"1"}


async def test_a_dead_redis_is_a_miss_and_is_logged_once(
    start_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = start_redis()
    async with _redis_cache(server.url, local_ttl_s=0) as cache:
        await cache.put_many({"a": b"1"}, 60)
        server.kill()
        with caplog.at_level(logging.WARNING, "moonxd.redis"):
            for _ in range(20):
                await cache.put_many({"b": b"2"}, 60)
                assert await cache.get_many(["a"]) == {}
        assert [r.message.partition(":")[0] for r in caplog.records].count("The shared cache does not work") == 1


async def test_a_frozen_redis_costs_no_more_than_the_caches_own_timeout(
    start_redis: Callable[..., RedisServer],
) -> None:
    server = start_redis()
    async with _redis_cache(server.url, local_ttl_s=0, timeout_s=0.05) as cache:
        server.pause()
        with trio.fail_after(2):
            assert await cache.get_many(["a"]) == {}
        server.resume()
        await cache.put_many({"a": b"1"}, 60)
        with trio.fail_after(5):
            while await cache.get_many(["a"]) != {"a": b"1"}:
                await cache.put_many({"a": b"1"}, 60)


async def test_a_foreign_type_under_our_key_is_a_miss(redis_url: str, redis_server: RedisServer) -> None:
    redis_server.command("RPUSH", "moonxd:cache:a", "x")
    async with _redis_cache(redis_url) as cache:
        assert await cache.get_many(["a"]) == {}
