"""The listening socket: born private, never taken from a live daemon, never left to confuse the next one."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from moonxd.control.socket import SocketInUse, parse_listen, peer_credentials, tcp_listeners, unix_listener
from moonxd.domain.errors import ConfigError


def listen_briefly(path: Path) -> None:
    with unix_listener(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_has_the_mode_asked_for_from_birth_and_is_gone_afterwards(socket_path: Path) -> None:
    before = os.umask(0o027)
    try:
        for mode in (0o600, 0o660):
            with unix_listener(socket_path, mode=mode):
                assert stat.S_IMODE(socket_path.stat().st_mode) == mode
                assert os.umask(0o027) == 0o027, "the process' umask is as before"
            assert not socket_path.exists()
    finally:
        os.umask(before)


async def test_tells_who_connects(socket_path: Path) -> None:
    with unix_listener(socket_path) as listener:
        async with await trio.open_unix_socket(str(socket_path)), await listener.accept() as served:
            assert peer_credentials(served.socket) == (os.getpid(), os.getuid(), os.getgid())
        await listener.aclose()


def test_second_daemon_is_refused_with_the_pid_of_the_first(socket_path: Path) -> None:
    with unix_listener(socket_path):
        with pytest.raises(SocketInUse, match=f"pid {os.getpid()} already serves") as refused:
            listen_briefly(socket_path)
        assert refused.value.pid == os.getpid()
        assert socket_path.exists(), "the loser must not remove the winner's socket"


def test_live_socket_without_lock_is_refused_too(socket_path: Path) -> None:
    """A daemon whose lock file was deleted, or another program."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(socket_path))
        other.listen(1)
        with pytest.raises(SocketInUse, match=f"pid {os.getpid()}"):
            listen_briefly(socket_path)
    assert socket_path.exists()


def test_socket_left_by_a_killed_daemon_is_replaced(socket_path: Path) -> None:
    code = (
        "import os, sys, signal\nfrom pathlib import Path\nfrom moonxd.control.socket import unix_listener\n"
        "with unix_listener(Path(sys.argv[1])):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    died = subprocess.run([sys.executable, "-c", code, str(socket_path)], check=False, timeout=30)
    assert died.returncode == -signal.SIGKILL
    assert socket_path.exists()
    listen_briefly(socket_path)


def test_other_files_are_not_removed(socket_path: Path) -> None:
    socket_path.write_text("precious")
    with pytest.raises(ConfigError, match="is not a socket"):
        listen_briefly(socket_path)
    assert socket_path.read_text() == "precious"


def test_somebody_elses_socket_is_left_at_exit(socket_path: Path) -> None:
    with unix_listener(socket_path):
        socket_path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(socket_path))
    assert socket_path.exists()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (Path("/tmp") / ("x" * 120) / "moonxd.sock", "a unix socket takes at most 107"),
        (Path("/nowhere-at-all/moonxd.sock"), "there is no directory /nowhere-at-all"),
    ],
)
def test_unusable_paths_say_why(path: Path, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        listen_briefly(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:3001", ("127.0.0.1", 3001)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:3003", ("::1", 3003)),
        ("3001", ("127.0.0.1", 3001)),
        (":3001", ("127.0.0.1", 3001)),
    ],
)
def test_listen_addresses(text: str, expected: tuple[str, int]) -> None:
    assert parse_listen(text) == expected


@pytest.mark.parametrize("text", ["0.0.0.0:3001", "[::]:3001", "10.0.0.5:80", "example.org:80"])
def test_other_addresses_need_a_token(text: str) -> None:
    with pytest.raises(ConfigError, match="only this machine's own addresses"):
        parse_listen(text)
    assert parse_listen(text, has_token=True)[1] in (80, 3001)


@pytest.mark.parametrize("text", ["127.0.0.1", "127.0.0.1:http", "127.0.0.1:99999", "", "127.0.0.1:-1"])
def test_malformed_addresses_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write it as"):
        parse_listen(text)


async def test_taken_port_says_so() -> None:
    (listener,) = await tcp_listeners("127.0.0.1:0")
    port = listener.socket.getsockname()[1]
    with pytest.raises(ConfigError, match="in use by another program"):
        await tcp_listeners(f"127.0.0.1:{port}")
    await listener.aclose()
