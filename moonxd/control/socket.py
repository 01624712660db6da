"""Where the control plane listens: a unix socket that is provably ours, and optionally TCP on loopback."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Generator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import trio

from ..domain.errors import ConfigError

#: sun_path has 108 bytes on Linux, the last one for the terminating NUL.
MAX_PATH_BYTES = 107
_BACKLOG = 128
_CREDENTIALS = struct.Struct("3i")


class SocketInUse(ConfigError):
    """Another live daemon answers on this socket. `pid` is its process, None when that cannot be known."""

    def __init__(self, path: Path, pid: int | None) -> None:
        who = f"a daemon with pid {pid}" if pid else "another daemon"
        super().__init__(f"{who} already serves {path}: stop it first, or give this one its own --state-dir")
        self.pid = pid


def peer_credentials(connection: socket.socket | trio.socket.SocketType) -> tuple[int, int, int]:
    """(pid, uid, gid) of the process at the other end of a unix socket; pid is 0 when it lives in another namespace."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return pid, uid, gid


@contextmanager
def unix_listener(path: Path, *, mode: int = 0o660) -> Generator[trio.SocketListener]:
    """A listener on `path`, whose file is removed at the end unless somebody else has put theirs there.

    Raises SocketInUse when a live daemon answers, ConfigError when the path cannot be used.
    """
    _check_path(path)
    with _locked(path):
        _clear(path)
        with _bound(path, mode) as server:
            identity = _identity(path)
            try:
                yield trio.SocketListener(trio.socket.from_stdlib_socket(server))
            finally:
                if _identity(path) == identity:
                    with suppress(FileNotFoundError):
                        path.unlink()


def _check_path(path: Path) -> None:
    length = len(os.fsencode(path))
    if length > MAX_PATH_BYTES:
        raise ConfigError(
            f"the control socket's path has {length} bytes, a unix socket takes at most {MAX_PATH_BYTES}: "
            f"use a shorter --state-dir or name the socket with --socket ({path})"
        )
    if not path.parent.is_dir():
        raise ConfigError(f"the control socket cannot be created: there is no directory {path.parent}; create it")


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """Held as long as the socket is ours: two daemons starting at once cannot both find the socket stale.

    The file stays behind on purpose: removing a lock file lets two processes lock two different files of one name.
    """
    lock = path.with_name(path.name + ".lock")
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot open {lock}: {error.strerror}; check who may write to {path.parent}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SocketInUse(path, _pid_in(handle)) from None
        os.truncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def _pid_in(handle: int) -> int | None:
    text = os.pread(handle, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _clear(path: Path) -> None:
    """Make room for our socket: a stale one is removed, a live one or any other kind of file is not touched."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise ConfigError(f"{path} exists and is not a socket: move it away, or name another socket with --socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except BlockingIOError:
            raise SocketInUse(path, None) from None  # its backlog is full: busy, but alive
        except ConnectionRefusedError:
            path.unlink()
        except OSError as error:
            raise ConfigError(f"cannot probe {path}: {error.strerror}") from error
        else:
            raise SocketInUse(path, peer_credentials(probe)[0] or None)


@contextmanager
def _bound(path: Path, mode: int) -> Generator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as server:
        # Born with its final permissions: between bind and chmod anybody could connect.
        before = os.umask(0o777 & ~mode)
        try:
            server.bind(os.fspath(path))
        except OSError as error:
            raise ConfigError(f"cannot create the control socket {path}: {error.strerror}") from error
        finally:
            os.umask(before)
        path.chmod(mode)
        server.listen(_BACKLOG)
        yield server


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def parse_listen(text: str, *, has_token: bool = False) -> tuple[str, int]:
    """`HOST:PORT`, `[V6]:PORT` or `PORT` as (host, port). Raises ConfigError for a host that is not this machine itself
    unless callers show a token."""
    host, _, digits = text.strip().rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not digits.isascii() or not digits.isdigit() or int(digits) > 65535:
        raise ConfigError(f"[http] listen is {text!r}: write it as 127.0.0.1:3001 (a port is 0 to 65535)")
    if not has_token and not is_loopback(host):
        raise ConfigError(
            f"[http] listen is {text!r}: only this machine's own addresses (127.0.0.1, ::1, localhost) are allowed "
            "without [http] token"
        )
    return host, int(digits)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


async def tcp_listeners(listen: str, *, has_token: bool = False) -> list[trio.SocketListener]:
    """Listeners for `[http] listen`. Raises ConfigError when the address is not ours or is taken."""
    host, port = parse_listen(listen, has_token=has_token)
    try:
        return await trio.open_tcp_listeners(port, host=host, backlog=_BACKLOG)
    except OSError as error:
        why = "is in use by another program" if error.errno == errno.EADDRINUSE else f"failed: {error.strerror}"
        raise ConfigError(f"[http] listen {listen!r} {why}; choose another port or stop what holds it") from error
