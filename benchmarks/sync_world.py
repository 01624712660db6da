"""What a sync is measured in: a simulator, a Redis, a database and a daemon, each a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import trio

from moonxd.adapters.bullmq.queue import BullQueue
from moonxd.adapters.redis.client import Redis, RedisSettings, open_redis, parse_redis_url
from moonxd.adapters.redis.embedded import socket_path_for
from moonxd.api import calls
from moonxd.api.client import Client, DaemonUnreachable
from moonxd.api.schema import Snapshot

from .postgres import Postgres, postgres

START_S = 30.0
_POLL_S = 0.005
_TICK = os.sysconf("SC_CLK_TCK")


class Usage(msgspec.Struct, frozen=True):
    """CPU seconds of processes so far."""

    daemon: float
    simulator: float
    redis: float
    database: float

    def since(self, before: Usage) -> Usage:
        return Usage(
            self.daemon - before.daemon,
            self.simulator - before.simulator,
            self.redis - before.redis,
            self.database - before.database,
        )


def cpu_seconds(pid: int) -> float:
    """Of a process with all its threads, those that ended included."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def rss_mb(pid: int) -> float:
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return 0.0


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children")
    with contextlib.suppress(OSError):
        return [int(child) for child in text.read_text().split()]
    return []


@contextmanager
def process(
    command: list[str], environ: Mapping[str, str], log: Path, core: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A child that is ended with the block; on one core, its own children too, when `core` names it."""
    with log.open("ab") as out:
        child = subprocess.Popen(command, env=dict(environ), stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    if core is not None and hasattr(os, "sched_setaffinity"):
        # Long before it has a second thread: threads and children inherit it.
        os.sched_setaffinity(child.pid, {core})
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def base_environ() -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ}


class Simulator:
    """A simulator and the variables that point a daemon at it."""

    def __init__(self, child: subprocess.Popen[bytes], environ: Mapping[str, str]) -> None:
        self.pid = child.pid
        self.environ = environ
        self.base = environ["DEFILLAMA_COINS_URL"].partition("/llama")[0]

    def latency(self, milliseconds: float, **slugs: float) -> None:
        """Of every answer, unless a chain is named."""
        self._turn({"*": {"latency_ms": milliseconds}} | {name: {"latency_ms": ms} for name, ms in slugs.items()})

    def hang(self, slug: str) -> None:
        """A chain's endpoint answers nothing from now on."""
        self._turn({slug: {"hang_rate": 1.0}})

    def _turn(self, knobs: Mapping[str, Mapping[str, float]]) -> None:
        request = urllib.request.Request(
            f"{self.base}/sim/knobs",
            data=json.dumps(knobs).encode(),
            method="PATCH",
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as reply:
            assert reply.status == 200


@contextmanager
def simulator(home: Path) -> Iterator[Simulator]:
    env_file = home / "simulator.env"
    command = [sys.executable, "-m", "moonxd", "simulate", "--port", "0", "--seed", "1", "--price-bucket-s", "0"]
    with process([*command, "--env-file", str(env_file)], base_environ(), home / "simulator.log") as child:
        _until(child, env_file.exists, home / "simulator.log")
        pairs = (line.partition("=") for line in env_file.read_text().splitlines() if "=" in line)
        yield Simulator(child, {name: value for name, _, value in pairs})


class External:
    """A redis-server and a PostgreSQL server of the benchmark's own; `environ` points a daemon at them."""

    def __init__(self, redis_pid: int, database: Postgres, environ: Mapping[str, str]) -> None:
        self.redis_pid = redis_pid
        self.postgres = database
        self.environ = environ

    def flush_redis(self) -> None:
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(self.environ["REDIS_URL"].removeprefix("unix://"))
            stream.sendall(b"FLUSHALL\r\n")
            assert stream.recv(64).startswith(b"+OK")


@contextmanager
def external(home: Path) -> Iterator[External]:
    data = home / "redis"
    data.mkdir()
    path = data / "redis.sock"
    binary = shutil.which("redis-server") or "redis-server"
    files = ["--dir", str(data), "--unixsocket", str(path), "--port", "0"]
    command = [binary, *files, "--appendonly", "yes", "--save", ""]
    with process(command, base_environ(), home / "redis.log") as child, postgres(home / "postgres") as database:
        _until(child, path.exists, home / "redis.log")
        yield External(child.pid, database, {"REDIS_URL": f"unix://{path}", "DATABASE_URL": database.dsn()})


class Daemon:
    """A running daemon."""

    def __init__(self, child: subprocess.Popen[bytes], state: Path, settings: RedisSettings) -> None:
        self.pid = child.pid
        self.state = state
        self.redis_settings = settings

    @property
    def socket(self) -> Path:
        return self.state / "moonxd.sock"

    def snapshot(self) -> Snapshot:
        with Client(self.socket) as client:
            return client.call(calls.status())

    def is_running(self, child: subprocess.Popen[bytes]) -> bool:
        """Raises RuntimeError when it has ended."""
        if child.poll() is not None:
            raise RuntimeError((self.state / "moonxd.log").read_text(errors="replace")[-2000:])
        if not self.socket.exists():
            return False
        try:
            return self.snapshot().daemon.state == "running"
        except DaemonUnreachable:
            return False

    def pause(self) -> None:
        with Client(self.socket) as client:
            client.call(calls.pause())

    def resume(self) -> None:
        with Client(self.socket) as client:
            client.call(calls.resume())


class World:
    """A simulator, and where daemons keep their state: embedded, or on `parts`."""

    def __init__(self, home: Path, sim: Simulator, parts: External | None) -> None:
        self.home = home
        self.sim = sim
        self.parts = parts

    @property
    def kind(self) -> str:
        return "SQLite + private Redis" if self.parts is None else "PostgreSQL + Redis"

    def environ(self, state: Path, slots: int, extra: Mapping[str, str]) -> dict[str, str]:
        return {
            **base_environ(),
            **self.sim.environ,
            **(self.parts.environ if self.parts else {}),
            "MOONXD_STATE_DIR": str(state),
            "MOONXD_RATE_LIMIT__ENABLED": "false",
            "MOONXD_WORKER__CONCURRENCY": str(slots),
            **extra,
        }

    @contextmanager
    def fresh_parts(self, name: str) -> Iterator[Mapping[str, str]]:
        """An empty Redis and an empty database on the external parts; nothing when they are embedded."""
        if self.parts is None:
            yield {}
            return
        self.parts.flush_redis()
        yield {"DATABASE_URL": self.parts.postgres.create(f"bench_{name}_{time.monotonic_ns()}")}

    def redis_settings(self, state: Path) -> RedisSettings:
        if self.parts is not None:
            return parse_redis_url(self.parts.environ["REDIS_URL"])
        return RedisSettings(unix_path=str(socket_path_for(state)))

    def usage(self, daemon: Daemon) -> Usage:
        parts = self.parts
        redis = [parts.redis_pid] if parts else children(daemon.pid)
        database = [parts.postgres.pid, *children(parts.postgres.pid)] if parts else []
        return Usage(
            cpu_seconds(daemon.pid),
            cpu_seconds(self.sim.pid),
            sum(map(cpu_seconds, redis)),
            sum(map(cpu_seconds, database)),
        )


@contextmanager
def spawn(
    world: World,
    *,
    state: Path,
    slots: int = 10,
    program: tuple[str, ...] = ("-m", "moonxd"),
    extra: Mapping[str, str] | None = None,
    core: int | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon that is starting; what it logs goes to a file, at its default level."""
    state.mkdir(parents=True, exist_ok=True)
    environ = world.environ(state, slots, extra or {})
    command = [sys.executable, *program, "serve", "--log-format", "json"]
    with process(command, environ, state / "moonxd.log", core) as child:
        yield child


@contextmanager
def daemon(
    world: World,
    *,
    slots: int = 10,
    program: tuple[str, ...] = ("-m", "moonxd"),
    extra: Mapping[str, str] | None = None,
    core: int | None = None,
) -> Iterator[Daemon]:
    """A daemon that runs, with a state and a database of its own."""
    state = Path(_fresh(world.home, "state"))
    with (
        world.fresh_parts(state.name) as environ,
        spawn(world, state=state, slots=slots, program=program, extra={**environ, **(extra or {})}, core=core) as child,
    ):
        running = Daemon(child, state, world.redis_settings(state))
        _until(child, lambda: running.is_running(child), state / "moonxd.log")
        yield running


def _fresh(home: Path, name: str) -> str:
    number = sum(1 for entry in home.iterdir() if entry.name.startswith(name))
    return str(home / f"{name}{number}")


def _until(child: subprocess.Popen[bytes], condition: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not condition():
        if child.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"it did not start: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(_POLL_S)


@asynccontextmanager
async def producer(settings: RedisSettings) -> AsyncIterator[tuple[Redis, BullQueue]]:
    """The queue as another program sees it."""
    async with open_redis(settings) as redis:
        await redis.wait_connected(START_S)
        yield redis, BullQueue(redis, "sync-jobs", worker_name="benchmark")


async def until_count(redis: Redis, state: str, count: int, within_s: float) -> None:
    with trio.fail_after(within_s):
        while await redis.call("ZCARD", f"bull:sync-jobs:{state}") < count:  # noqa: ASYNC110 (another process)
            await trio.sleep(0.02)
