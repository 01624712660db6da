"""Failover by real Sentinels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from moonxd.adapters.redis.client import RedisUnavailable, Script, open_redis
from moonxd.adapters.redis.server import check_server
from moonxd.adapters.redis.settings import RedisSettings, parse_redis_url
from tests.services.redis import RedisSentinel, RedisServer, until

pytestmark = [pytest.mark.redis, pytest.mark.chaos]

StartRedis = Callable[..., RedisServer]
StartSentinel = Callable[[RedisServer], RedisSentinel]
PASSWORD = "both-sides"
WRITE = Script("write", "return redis.call('SET', KEYS[1], ARGV[1])")


def _settings(sentinel: RedisSentinel, **options: float) -> RedisSettings:
    return parse_redis_url(
        f"redis+sentinel://:{PASSWORD}@127.0.0.1:1,127.0.0.1:{sentinel.port}/{sentinel.service}",
        **{"command_timeout_s": 20, **options},
    )


def _is_master(server: RedisServer) -> bool:
    try:
        return b"role:master" in server.command("INFO", "replication")
    except ConnectionError:
        return False  # Sentinel cuts every client of the server that it promotes


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_the_client_follows_the_master(start_redis: StartRedis, start_sentinel: StartSentinel, how: str) -> None:
    master = start_redis(password=PASSWORD)
    replica = start_redis(password=PASSWORD, replica_of=master)
    sentinel = start_sentinel(master)
    await until(lambda: b"master_link_status:up" in replica.command("INFO", "replication"))
    await until(lambda: b"slaves=1" in sentinel.command("INFO", "sentinel"))
    async with open_redis(_settings(sentinel, command_timeout_s=1)) as redis:
        await check_server(redis)
        assert await redis.script(WRITE, ["before"], ["1"]) == b"OK"
        await until(lambda: replica.command("GET", "before") == b"1")
        if how == "killed":
            master.kill()
        else:
            master.pause()
        await until(lambda: _is_master(replica), 30)
        with trio.fail_after(30):
            while True:
                try:
                    assert await redis.script(WRITE, ["after"], ["2"]) == b"OK"
                    break
                except RedisUnavailable:
                    continue
        assert replica.command("MGET", "before", "after") == [b"1", b"2"]
    if how == "frozen":
        master.resume()


async def test_an_unknown_service_is_named(start_redis: StartRedis, start_sentinel: StartSentinel) -> None:
    sentinel = start_sentinel(start_redis())
    settings = RedisSettings(sentinels=(("127.0.0.1", sentinel.port),), sentinel_service="nosuch")
    async with open_redis(settings) as redis:
        with pytest.raises(RedisUnavailable, match="nosuch"):
            await redis.wait_connected(0.2)


async def test_a_sentinel_that_is_behind_is_not_believed(
    start_redis: StartRedis, start_sentinel: StartSentinel
) -> None:
    """It names a server that has become a replica: we do not write there."""
    master = start_redis()
    sentinel = start_sentinel(master)
    master.command("REPLICAOF", "127.0.0.1", start_redis().port)
    settings = RedisSettings(sentinels=(("127.0.0.1", sentinel.port),), sentinel_service=sentinel.service)
    async with open_redis(settings) as redis:
        with pytest.raises(RedisUnavailable, match="no master"):
            await redis.wait_connected(0.2)
