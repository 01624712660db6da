"""The client against a healthy server: order, cancellation, scripts, blocking calls."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from moonxd.adapters.redis.client import (
    Redis,
    RedisReplyError,
    RedisSettings,
    RedisUnavailable,
    Script,
    open_redis,
    pack,
    parse_redis_url,
)
from tests.services.redis import RedisServer, until

pytestmark = pytest.mark.redis

ECHO = Script("echo", "return {KEYS[1], ARGV[1]}")


@pytest.fixture(params=[1, 2], ids=["one connection", "two connections"])
async def redis(redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    async with open_redis(parse_redis_url(redis_url, connections=request.param)) as client:
        await client.wait_connected()
        yield client


async def test_replies_are_resp2(redis: Redis) -> None:
    assert await redis.call("SET", "a", 1) == b"OK"
    assert await redis.call("GET", b"a") == b"1"
    assert await redis.call("GET", "nothing") is None
    assert await redis.call("RPUSH", "l", "x", 2, 1.5) == 3
    assert await redis.call("LRANGE", "l", 0, -1) == [b"x", b"2", b"1.5"]
    assert await redis.call_packed(pack(("GET", "a"))) == b"1"


async def test_an_error_reply_is_raised_with_its_code(redis: Redis) -> None:
    await redis.call("SET", "a", 1)
    with pytest.raises(RedisReplyError, match="wrong kind") as raised:
        await redis.call("LPUSH", "a", 1)
    assert raised.value.code == "WRONGTYPE"


@pytest.mark.parametrize("bad", [None, True, ["x"]])
async def test_an_argument_that_redis_cannot_store_is_a_type_error(redis: Redis, bad: object) -> None:
    with pytest.raises(TypeError):
        await redis.call("SET", "a", bad)  # type: ignore[arg-type]
    assert await redis.call("PING") == b"PONG"


async def test_many_keeps_order_and_returns_errors_in_their_places(redis: Redis) -> None:
    commands = [("SET", "a", 1), ("LPUSH", "a", 1), *[("INCR", "a")] * 100, ("NOSUCH",)]
    replies = await redis.many(commands)
    assert replies[0] == b"OK"
    assert isinstance(replies[1], RedisReplyError)
    assert replies[2:-1] == list(range(2, 102))
    assert replies[-1].code == "ERR"
    assert await redis.many([]) == []


async def test_concurrent_callers_get_their_own_replies(redis: Redis) -> None:
    async def caller(me: int) -> None:
        for n in range(50):
            word = b"%d-%d" % (me, n)
            assert await redis.call("ECHO", word) == word

    async with trio.open_nursery() as nursery:
        for me in range(100):
            nursery.start_soon(caller, me)


async def test_calls_of_one_pass_share_one_packet(redis_url: str, redis_server: RedisServer) -> None:
    async with open_redis(parse_redis_url(redis_url)) as redis:
        await redis.call("CONFIG", "RESETSTAT")
        async with trio.open_nursery() as nursery:
            for _ in range(500):
                nursery.start_soon(redis.call, "PING")
    stats = redis_server.command("INFO", "stats").decode()
    reads = next(int(line.partition(":")[2]) for line in stats.splitlines() if line.startswith("total_reads_processed"))
    assert reads < 20


async def test_large_values_pass_whole(redis: Redis) -> None:
    big = random.Random(7).randbytes(5_000_000)
    async with trio.open_nursery() as nursery:
        for n in range(4):
            nursery.start_soon(redis.call, "SET", f"big{n}", big)
    assert await redis.call("GET", "big3") == big


async def test_cancelled_callers_never_shift_anybodys_reply(redis: Redis) -> None:
    chance, cancelled, answered = random.Random(20), 0, 0

    async def impatient(word: bytes) -> None:
        nonlocal cancelled, answered
        with trio.move_on_after(chance.choice([0, 0, 0.0001, 0.0005, 0.002, 5])) as scope:
            many = chance.random() < 0.3
            reply = await (redis.many([("ECHO", word)] * 3) if many else redis.call("ECHO", word))
            assert reply == ([word] * 3 if many else word)
            answered += 1
        cancelled += scope.cancelled_caught

    for round_ in range(20):
        async with trio.open_nursery() as nursery:
            for n in range(100):
                nursery.start_soon(impatient, b"%d:%d" % (round_, n))
    assert await redis.call("ECHO", "last") == b"last"
    assert cancelled > 300
    assert answered > 100


async def test_a_call_cancelled_before_it_is_sent_is_not_executed(redis: Redis) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await redis.call("SET", "never", 1)
    assert scope.cancelled_caught
    assert await redis.call("EXISTS", "never") == 0


# ---- scripts


async def test_a_script_is_loaded_when_the_server_does_not_know_it(redis: Redis) -> None:
    for _ in range(2):
        assert await redis.script(ECHO, ["k"], ["v"]) == [b"k", b"v"]
        await redis.call("SCRIPT", "FLUSH")


async def test_many_callers_may_meet_a_flushed_cache_at_once(redis: Redis) -> None:
    async def caller(n: int) -> None:
        assert await redis.script(ECHO, ["k"], [n]) == [b"k", b"%d" % n]

    async with trio.open_nursery() as nursery:
        for n in range(50):
            nursery.start_soon(caller, n)


async def test_a_scripts_own_error_is_raised(redis: Redis) -> None:
    with pytest.raises(RedisReplyError, match="no luck") as raised:
        await redis.script(Script("fails", "return redis.error_reply('LUCK no luck')"), [], [])
    assert raised.value.code == "LUCK"


def test_the_hash_is_the_servers() -> None:
    assert Script("one", "return 1").sha == "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"


# ---- blocking calls


async def test_a_blocking_call_does_not_hold_up_the_others(redis: Redis, redis_server: RedisServer) -> None:
    answer: list[object] = []

    async def wait() -> None:
        answer.append(await redis.block("BZPOPMIN", "marker", 10, timeout=10))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await until(lambda: b"blocked_clients:1" in redis_server.command("INFO", "clients"))
        assert await redis.call("PING") == b"PONG"
        await redis.call("ZADD", "marker", 5, "0")
    assert answer == [[b"marker", b"0", b"5"]]


async def test_a_blocking_call_ends_with_its_own_timeout(redis: Redis) -> None:
    with trio.fail_after(3):
        assert await redis.block("BZPOPMIN", "marker", 0.05, timeout=0.05) is None


async def test_a_cancelled_blocking_call_leaves_nobody_waiting_in_redis(
    redis: Redis, redis_server: RedisServer
) -> None:
    for _ in range(3):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: redis.block("BZPOPMIN", "marker", 60, timeout=60))
            await until(lambda: b"blocked_clients:1" in redis_server.command("INFO", "clients"))
            nursery.cancel_scope.cancel()
    await until(lambda: b"blocked_clients:0" in redis_server.command("INFO", "clients"))
    await redis.call("ZADD", "marker", 1, "0")
    assert await redis.block("BZPOPMIN", "marker", 1, timeout=1) == [b"marker", b"0", b"1"]


async def test_blocking_calls_reuse_their_connection(redis: Redis, redis_server: RedisServer) -> None:
    before = None
    for _ in range(3):
        await redis.block("BZPOPMIN", "marker", 0.01, timeout=0.01)
        stats = redis_server.command("INFO", "clients")
        before = before or stats
        assert stats == before


# ---- the client's own life


async def test_closing_tells_those_who_still_wait(redis_url: str) -> None:
    async def ping_for_ever(redis: Redis) -> None:
        while True:
            await redis.call("PING")

    async def late(redis: Redis) -> None:
        with pytest.raises(RedisUnavailable, match="closed"):
            await ping_for_ever(redis)

    async with trio.open_nursery() as nursery, open_redis(parse_redis_url(redis_url)) as redis:
        nursery.start_soon(late, redis)
        await redis.call("PING")


async def test_the_bodys_exception_comes_out_bare(redis_url: str) -> None:
    async def fail_inside() -> None:
        async with open_redis(parse_redis_url(redis_url)) as redis:
            await redis.call("PING")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_inside()


async def test_clean_up_after_a_cancellation_still_reaches_redis(redis_url: str, redis_server: RedisServer) -> None:
    with trio.CancelScope() as scope:
        async with open_redis(parse_redis_url(redis_url)) as redis:
            await redis.call("PING")
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(5, shield=True):
                    for n in range(10):
                        await redis.call("RPUSH", "handed back", n)
                        await trio.lowlevel.checkpoint()
    assert redis_server.command("LLEN", "handed back") == 10


async def test_what_waits_to_be_sent_is_bounded(tmp_path: Path) -> None:
    refused: list[str] = []

    async def caller(redis: Redis) -> None:
        with pytest.raises(RedisUnavailable) as raised:
            await redis.call("SET", "a", b"x" * 6_000_000)
        assert not raised.value.maybe_executed
        if "MiB" in str(raised.value):
            refused.append(str(raised.value))

    settings = RedisSettings(unix_path=str(tmp_path / "nobody.sock"), command_timeout_s=0.5)
    async with open_redis(settings) as redis, trio.open_nursery() as nursery:
        for _ in range(15):
            nursery.start_soon(caller, redis)
    assert len(refused) == 4


async def test_the_connection_carries_our_name(redis: Redis) -> None:
    assert await redis.call("CLIENT", "GETNAME") == b"moonxd"
