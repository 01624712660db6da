"""The client while its server dies, freezes, restarts, loads, and turns into a replica."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import hiredis
import pytest
import trio
import trio.testing

from moonxd.adapters.redis.client import (
    Redis,
    RedisReplyError,
    RedisUnavailable,
    Script,
    open_redis,
    parse_redis_url,
)
from moonxd.adapters.redis.settings import RedisSettings
from tests.services.redis import RedisServer, until

pytestmark = [pytest.mark.redis, pytest.mark.chaos]

StartRedis = Callable[..., RedisServer]
INCREMENT = Script("increment", "return redis.call('INCR', KEYS[1])")
BUSY_100_MS = """
local t = redis.call('TIME')
repeat local n = redis.call('TIME') until (n[1] - t[1]) * 1000000 + n[2] - t[2] > 100000
return 1
"""
DEADLINE_S = 20


def _settings(server: RedisServer, **options: float) -> RedisSettings:
    return parse_redis_url(server.url, **{"command_timeout_s": 0.5, **options})


async def _refused(redis: Redis, *args: str) -> RedisUnavailable:
    with pytest.raises(RedisUnavailable) as raised:
        await redis.call(*args)
    return raised.value


@pytest.mark.parametrize("connections", [1, 2])
async def test_kill_and_restart_under_load(start_redis: StartRedis, connections: int) -> None:
    """Every caller learns the truth: what was answered is kept, what never ran is not, the rest is said to be open."""
    server = start_redis(appendonly=True, appendfsync="always")
    outcomes: Counter[str] = Counter()
    stop = False

    async def caller(redis: Redis, me: int) -> None:
        n = 0
        while not stop:
            n += 1
            key = f"{me}:{n}"
            try:
                await redis.script(INCREMENT, [key], [])
            except RedisUnavailable as error:
                outcomes["open" if error.maybe_executed else "not run"] += 1
                if not error.maybe_executed:
                    not_run.append(key)
            else:
                outcomes["done"] += 1
                done.append(key)

    done: list[str] = []
    not_run: list[str] = []
    async with open_redis(_settings(server, connections=connections, command_timeout_s=5)) as redis:
        async with trio.open_nursery() as nursery:
            for me in range(50):
                nursery.start_soon(caller, redis, me)
            for round_ in range(1, 4):
                await until(lambda: outcomes["done"] > 500 * round_)  # noqa: B023
                server.kill()
                await until(lambda: redis.state == "reconnecting")
                server.start()
                await until(lambda: redis.state == "connected")
            await until(lambda: outcomes["done"] > 3000)
            stop = True
        values = await redis.many([("GET", key) for key in done])
        assert set(values) == {b"1"}
        assert set(await redis.many([("GET", key) for key in not_run])) <= {None}
    assert outcomes["open"] >= 1


async def test_commands_not_yet_sent_wait_for_the_new_server(start_redis: StartRedis) -> None:
    server = start_redis()
    async with open_redis(_settings(server, command_timeout_s=10)) as redis:
        await redis.wait_connected()
        server.kill()
        await until(lambda: redis.state == "reconnecting")
        answers: list[object] = []

        async def caller() -> None:
            answers.append(await redis.call("PING"))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(caller)
            await trio.testing.wait_all_tasks_blocked()
            server.start()
        assert answers == [b"PONG"] * 10


async def test_commands_that_waited_too_long_were_certainly_not_run(start_redis: StartRedis) -> None:
    server = start_redis()
    async with open_redis(_settings(server)) as redis:
        await redis.wait_connected()
        server.kill()
        await until(lambda: redis.state == "reconnecting")
        began = trio.current_time()
        error = await _refused(redis, "SET", "a", "1")
        assert 0.45 < trio.current_time() - began < 5
        assert not error.maybe_executed
        assert f"127.0.0.1:{server.port}" in str(error)
        server.start()
        await redis.wait_connected(DEADLINE_S)
        assert await redis.call("GET", "a") is None


@pytest.mark.parametrize("flood", [1, 200], ids=["idle", "with full buffers"])
async def test_a_frozen_server_is_noticed_and_its_return_too(start_redis: StartRedis, flood: int) -> None:
    server = start_redis()
    async with open_redis(_settings(server, connect_timeout_s=0.5)) as redis:
        await redis.wait_connected()
        server.pause()
        began = trio.current_time()
        errors: list[RedisUnavailable] = []

        async def caller() -> None:
            errors.append(await _refused(redis, "SET", "a", "x" * 100_000))

        async with trio.open_nursery() as nursery:
            for _ in range(flood):
                nursery.start_soon(caller)
        assert 0.45 < trio.current_time() - began < 5
        assert all(error.maybe_executed for error in errors)
        assert not (await _refused(redis, "PING")).maybe_executed
        server.resume()
        await redis.wait_connected(DEADLINE_S)
        assert await redis.call("PING") == b"PONG"


async def test_a_slow_but_speaking_server_is_not_called_silent(start_redis: StartRedis) -> None:
    server = start_redis()
    # Redis answers whatever it read at once only when all of it is done: the padding makes it read them one by one.
    padding = "x" * 100_000
    async with open_redis(_settings(server, command_timeout_s=0.3)) as redis:
        assert await redis.many([("EVAL", BUSY_100_MS, 0, padding)] * 8) == [1] * 8


async def test_scripts_survive_a_restart(start_redis: StartRedis) -> None:
    server = start_redis()
    async with open_redis(_settings(server, command_timeout_s=5)) as redis:
        assert await redis.script(INCREMENT, ["n"], []) == 1
        server.kill()
        await until(lambda: redis.state == "reconnecting")
        server.start()
        assert await redis.script(INCREMENT, ["n"], []) == 1


async def test_a_blocking_call_is_told_at_once_and_may_simply_be_repeated(start_redis: StartRedis) -> None:
    server = start_redis()
    async with open_redis(_settings(server, command_timeout_s=5)) as redis:

        async def wait() -> object:
            return await redis.block("BZPOPMIN", "marker", 60, timeout=60)

        async with trio.open_nursery() as nursery:

            async def told() -> None:
                with pytest.raises(RedisUnavailable) as raised:
                    await wait()
                assert raised.value.maybe_executed
                server.start()
                nursery.start_soon(until_answered)

            async def until_answered() -> None:
                answer = None
                while answer is None:
                    try:
                        answer = await wait()
                    except RedisUnavailable:
                        continue
                assert answer == [b"marker", b"0", b"1"]

            nursery.start_soon(told)
            await until(lambda: b"blocked_clients:1" in server.command("INFO", "clients"))
            server.kill()
            await until(lambda: redis.state == "reconnecting")
            await redis.call("ZADD", "marker", 1, "0")


async def test_a_frozen_server_ends_a_blocking_call(start_redis: StartRedis) -> None:
    server = start_redis()
    async with open_redis(_settings(server)) as redis:
        await redis.wait_connected()
        await redis.block("BZPOPMIN", "marker", 0.01, timeout=0.01)
        server.pause()
        with trio.fail_after(5), pytest.raises(RedisUnavailable):
            await redis.block("BZPOPMIN", "marker", 0.1, timeout=0.1)
        server.resume()


async def test_callers_may_loop_on_a_dead_server_without_spinning(start_redis: StartRedis) -> None:
    server = start_redis()
    async with open_redis(_settings(server, command_timeout_s=0.2)) as redis:
        await redis.wait_connected()
        server.kill()
        tries = 0
        with trio.move_on_after(1):
            while True:
                tries += 1
                with pytest.raises(RedisUnavailable):
                    await redis.block("BZPOPMIN", "marker", 1, timeout=1)
        assert tries < 10


async def test_a_loading_server_is_waited_for(start_redis: StartRedis) -> None:
    slowly = ["--key-load-delay", "400", "--loading-process-events-interval-bytes", "1024"]
    server = start_redis(appendonly=True, arguments=slowly)
    async with open_redis(_settings(server, command_timeout_s=10)) as redis:
        await redis.many([("SET", f"k{n}", "x" * 100) for n in range(1000)])
        server.kill()
        await until(lambda: redis.state == "reconnecting")
        server.start(wait=False)
        assert await redis.call("DBSIZE") == 1000


async def test_a_script_that_blocks_everybody_is_waited_out(start_redis: StartRedis) -> None:
    server = start_redis(arguments=["--lua-time-limit", "50"])
    answers: list[object] = []

    async def patient(redis: Redis) -> None:
        answers.append(await redis.call("SET", "a", 1))

    async with (
        open_redis(_settings(server, command_timeout_s=10)) as redis,
        open_redis(_settings(server, command_timeout_s=10)) as rival,
        trio.open_nursery() as nursery,
    ):
        await redis.wait_connected()
        nursery.start_soon(_refused_by_reply, rival, "EVAL", "while true do end", "0")
        await until(lambda: _is_busy(server))
        nursery.start_soon(patient, redis)
        await until(lambda: redis.state == "reconnecting")
        server.command("SCRIPT", "KILL")
    assert answers == [b"OK"]


async def _refused_by_reply(redis: Redis, *args: str) -> None:
    with pytest.raises(RedisReplyError):
        await redis.call(*args)


def _is_busy(server: RedisServer) -> bool:
    try:
        server.command("PING")
    except hiredis.ReplyError as error:
        return str(error).startswith("BUSY")
    return False


async def test_a_demoted_master_is_left_and_the_command_repeated(start_redis: StartRedis) -> None:
    server, other = start_redis(), start_redis()
    async with open_redis(_settings(server, command_timeout_s=10)) as redis:
        await redis.call("SET", "a", 1)
        server.command("REPLICAOF", "127.0.0.1", other.port)
        answers: list[object] = []

        async def write() -> None:
            answers.append(await redis.call("SET", "b", 2))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await until(lambda: redis.state == "reconnecting")
            server.command("REPLICAOF", "NO", "ONE")
        assert answers == [b"OK"]


async def test_status_and_log_follow(start_redis: StartRedis, caplog: pytest.LogCaptureFixture) -> None:
    server, seen = start_redis(), list[tuple[str, str | None]]()
    with caplog.at_level(logging.INFO, "moonxd.redis"):
        async with open_redis(_settings(server), on_change=lambda *now: seen.append(now)) as redis:
            await redis.wait_connected()
            assert (redis.state, redis.last_error) == ("connected", None)
            server.kill()
            await until(lambda: any(state == "reconnecting" for state, _ in seen))
            assert redis.last_error is not None
            server.start()
            await redis.wait_connected(DEADLINE_S)
    assert seen[0] == seen[-1] == ("connected", None)
    assert all(error for state, error in seen if state == "reconnecting")
    assert [record.message for record in caplog.records].count("Redis is connected") == 2


async def test_a_server_that_is_not_there_yet(start_redis: StartRedis, tmp_path: Path) -> None:
    settings = RedisSettings(unix_path=str(tmp_path / "nobody.sock"), command_timeout_s=0.3, connect_timeout_s=1)
    async with open_redis(settings) as redis:
        assert redis.state == "reconnecting"
        with pytest.raises(RedisUnavailable, match=r"nobody\.sock"):
            await redis.wait_connected(0.1)
        assert not (await _refused(redis, "PING")).maybe_executed
