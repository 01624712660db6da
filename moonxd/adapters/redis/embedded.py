"""The private redis-server of the embedded default: a child process on a unix socket with an append-only file.

There is never more than one server on one append-only file. Two locks in the state directory see to that, both
released by the kernel however a process ends: `redis.owner.lock` belongs to the daemon, `redis.lock` is inherited by
the server itself, so that an orphan that outlived a killed daemon is noticed, shut down, and waited for.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import signal
import stat
import subprocess
import sys
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Literal

import trio

from moonxd.domain.errors import ConfigError

from ..processes import dies_with, exit_of
from .binary import child_env, find_binary
from .errors import RedisReplyError, RedisUnavailable
from .settings import RedisSettings
from .wire import Wire, dial

AppendFsync = Literal["everysec", "always"]

_log = logging.getLogger("moonxd.redis")
#: sun_path holds this many bytes without its final zero (Linux 107, the BSDs and macOS 103).
_MAX_SOCKET_PATH = 107 if sys.platform == "linux" else 103
_READY_WITHIN_S = 15.0
#: With a large append-only file; the server says LOADING meanwhile.
_LOADED_WITHIN_S = 600.0
_STOP_WITHIN_S = 10.0
_ORPHAN_WITHIN_S = 5.0
_POLL_S = 0.02
_MAX_LOG_BYTES = 10 * 1024 * 1024
#: From here on the append-only file is a folder, which older servers overlook: they would start empty.
_FOLDER_AOF_VERSION = (7, 0)


class InUse(ConfigError):
    """Another process runs the server of this directory."""


class EmbeddedRedis:
    """A running private server. `settings` stay the same over restarts, so clients simply reconnect."""

    def __init__(self, process: subprocess.Popen[bytes], settings: RedisSettings) -> None:
        self._process = process
        self.settings = settings
        #: Its file ended in the middle of a command, as after a power cut: what was written last is gone.
        self.was_torn = False

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait_dead(self) -> int:
        """Wait until the server has ended, for whatever reason; its exit code (negative: the signal)."""
        while (code := self._process.poll()) is None:
            await exit_of(self._process)
        return code


@asynccontextmanager
async def embedded_redis(
    state_dir: Path | str, *, appendfsync: AppendFsync = "everysec", binary: str | None = None
) -> AsyncIterator[EmbeddedRedis]:
    """Run the server of `state_dir` for the length of the block, ready for commands, its old data loaded.

    Must be entered from the thread that lives as long as the process: the server is told to shut down when that
    thread ends. `appendfsync` "everysec" may lose the last second on a power cut (not on a crash); "always" nothing.
    Raises ConfigError (no binary, directory in use, data of a newer server) or RedisUnavailable (it did not start).
    """
    home, data = _folders(state_dir)
    chosen, version = await find_binary(binary)
    _refuse_older_server(data, chosen, version)
    socket_path = socket_path_for(home)
    with _locked(home / "redis.owner.lock") as owner:
        if owner is None:
            raise InUse(f"embedded Redis: another moonxd is using {home}; stop it or choose another state directory")
        async with _server_lock(home, socket_path) as lock:
            process = _spawn(_command_line(chosen, home, socket_path, appendfsync), data, lock)
            server = EmbeddedRedis(process, RedisSettings(unix_path=str(socket_path)))
            try:
                await _await_ready(server, home / "redis.log")
                server.was_torn = _was_torn(home / "redis.log", process.pid)
                _log.info("Embedded Redis runs", extra={"pid": process.pid, "binary": chosen})
                yield server
            finally:
                await _stop(server)


# ---- places


def _folders(state_dir: Path | str) -> tuple[Path, Path]:
    home = Path(state_dir).absolute()
    home.mkdir(mode=0o750, parents=True, exist_ok=True)
    data = home / "redis"
    data.mkdir(mode=0o700, exist_ok=True)
    return home, data


def socket_path_for(home: Path) -> Path:
    """`home`/redis.sock, or when that is too long for a socket a path in a private folder named after `home`.

    Raises ConfigError when that folder is not ours alone.
    """
    direct = home / "redis.sock"
    if len(os.fsencode(direct)) <= _MAX_SOCKET_PATH:
        return direct
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir(), f"moonxd-{os.getuid()}-{digest}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigError(f"embedded Redis: {folder} is not a private directory of ours; use a shorter state directory")
    return folder / "redis.sock"


def _refuse_older_server(data: Path, binary: str, version: tuple[int, ...]) -> None:
    if version < _FOLDER_AOF_VERSION and (data / "appendonlydir").exists():
        number = ".".join(map(str, version))
        raise ConfigError(
            f"embedded Redis: {data} was written by Redis 7 or newer, but {binary} is {number} and would start empty; "
            "install redis-server 7 or newer again (or name it in redis.server)"
        )


def _command_line(binary: str, home: Path, socket_path: Path, appendfsync: AppendFsync) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(home / "redis"),
        "pidfile": str(home / "redis.pid"),
        "logfile": str(home / "redis.log"),
        "daemonize": "no",
        "appendonly": "yes",
        "appendfsync": appendfsync,
        "aof-load-truncated": "yes",
        "save": "",
        "maxmemory": "0",
        "maxmemory-policy": "noeviction",
    }
    return [binary, *(part for name, value in options.items() for part in (f"--{name}", value))]


# ---- locks and orphans


@contextmanager
def _locked(path: Path) -> Iterator[int | None]:
    """Hold an exclusive lock on the file; yields its descriptor, or None when somebody else holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)


@asynccontextmanager
async def _server_lock(home: Path, socket_path: Path) -> AsyncIterator[int]:
    """The lock that the server inherits. Only an orphan of ours can hold it: it is shut down first."""
    for retire in (_ask_to_shut_down, _kill_by_pidfile, None):
        with _locked(home / "redis.lock") as lock:
            if lock is not None:
                yield lock
                return
        if retire is not None:
            _log.warning(
                "An embedded Redis of an earlier run is still there; ending it", extra={"state_dir": str(home)}
            )
            with trio.move_on_after(_ORPHAN_WITHIN_S):
                await retire(home, socket_path)
                await _await_unlocked(home / "redis.lock")
    raise ConfigError(
        f"embedded Redis: a redis-server of an earlier run still uses {home} and does not end; "
        f"see {home / 'redis.pid'} for its process id and kill it"
    )


async def _await_unlocked(path: Path) -> None:
    while True:
        with _locked(path) as lock:
            if lock is not None:
                return
        await trio.sleep(_POLL_S)


async def _ask_to_shut_down(_home: Path, socket_path: Path) -> None:
    try:
        wire = Wire(await dial(str(socket_path), None))
    except OSError:
        return  # it is on its way out already, or has lost its socket
    try:
        await wire.ask(("SHUTDOWN", "NOSAVE"))  # about RDB files; the append-only file is flushed all the same
    except (OSError, trio.BrokenResourceError):
        pass  # the answer to SHUTDOWN is a closed connection
    finally:
        await wire.close()


async def _kill_by_pidfile(home: Path, _socket_path: Path) -> None:
    """For an orphan that is frozen. Its working directory proves that the number was not given to somebody else."""
    pid = _living_server(home)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


def _living_server(home: Path) -> int | None:
    try:
        pid = int((home / "redis.pid").read_text())
        return pid if os.path.samefile(f"/proc/{pid}/cwd", home / "redis") else None
    except (OSError, ValueError):
        return None


# ---- the process


def _spawn(command: list[str], data: Path, lock: int) -> subprocess.Popen[bytes]:
    """Start the server from this very thread: trio.lowlevel.open_process would do it from a worker thread, and the
    death of that thread, ten idle seconds later, would take the server along."""
    _rotate_log(Path(command[command.index("--logfile") + 1]))
    with warnings.catch_warnings():
        # Python 3.12 warns about every fork beside other threads; between fork and exec we make two system calls.
        warnings.simplefilter("ignore", DeprecationWarning)
        return subprocess.Popen(
            command,
            cwd=data,
            env=child_env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(lock,),
            preexec_fn=dies_with(os.getpid()),
            start_new_session=True,  # Ctrl-C in our terminal must not stop the queue while we drain
        )


def _rotate_log(log: Path) -> None:
    if log.exists() and log.stat().st_size > _MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))


async def _await_ready(server: EmbeddedRedis, log: Path) -> None:
    path = str(server.settings.unix_path)
    limit = trio.current_time() + _READY_WITHIN_S
    while server._process.poll() is None and trio.current_time() < limit:
        answer = await _ping(path)
        if answer == b"PONG":
            return
        if isinstance(answer, RedisReplyError) and answer.code == "LOADING":
            limit = max(limit, trio.current_time() + _LOADED_WITHIN_S)
        await trio.sleep(_POLL_S)
    code = server._process.poll()
    what = "is not ready in time" if code is None else f"ended with code {code}"
    raise RedisUnavailable(f"embedded Redis {what}; the end of {log}:\n{_tail(log)}", maybe_executed=False)


async def _ping(path: str) -> object:
    """The server's answer, None when there is none. Bounded."""
    with trio.move_on_after(1):
        try:
            wire = Wire(await dial(path, None))
        except OSError:
            return None
        try:
            [answer] = await wire.ask(("PING",))
            return answer
        except (OSError, trio.BrokenResourceError):
            return None
        finally:
            await wire.close()
    return None


def _tail(log: Path, lines: int = 8) -> str:
    try:
        return "\n".join(log.read_text("utf-8", "replace").splitlines()[-lines:])
    except OSError as error:
        return f"(cannot be read: {error})"


def _was_torn(log: Path, pid: int) -> bool:
    """Whether the server says that it cut an incomplete command off its file when it loaded it."""
    # Its own lines of this start are the last ones, and few.
    said = _tail(log, 100).splitlines()
    return any(line.startswith(f"{pid}:") and "short read while loading the AOF" in line for line in said)


async def _stop(server: EmbeddedRedis) -> None:
    """SIGTERM flushes the append-only file; SIGKILL follows if that takes too long. Bounded, shielded."""
    with trio.CancelScope(shield=True):
        for how in (signal.SIGTERM, signal.SIGKILL):
            if server._process.poll() is None:
                server._process.send_signal(how)
            with trio.move_on_after(_STOP_WITHIN_S):
                await server.wait_dead()
                return
