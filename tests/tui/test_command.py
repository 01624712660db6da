"""`moonxd top` as a program: on a terminal, without one, and without a daemon."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import ROOT

pytestmark = pytest.mark.slow

FORBIDDEN = ("trio", "psycopg", "hiredis", "redis", "hypercorn", "starlette", "moonxd.adapters", "moonxd.daemon")


def program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "moonxd", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONUTF8": "1", **environment},
        check=False,
    )


@pytest.fixture
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A busy daemon's socket, served by another process."""
    path = tmp_path_factory.mktemp("s") / "moonxd.sock"
    command = [sys.executable, "-m", "tests.tui.socket_daemon", str(path)]
    with subprocess.Popen(command, cwd=ROOT) as daemon:
        try:
            _wait_for(path)
            yield path
        finally:
            daemon.kill()


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, "the scripted daemon did not start"
        select.select([], [], [], 0.02)


def test_once_prints_a_plain_frame(socket: Path) -> None:
    done = program("top", "--once", "--socket", str(socket), COLUMNS="100")
    assert done.returncode == 0, done.stderr
    assert "● LIVE" in done.stdout
    assert "no breakers configured" in done.stdout
    assert "walletAddress 0xZZ…" in done.stdout
    assert "\x1b" not in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 100


def test_without_a_terminal_it_prints_a_frame_by_itself(socket: Path) -> None:
    done = program("top", "--socket", str(socket))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(" ● LIVE")


def test_a_plain_encoding_gets_plain_symbols(socket: Path) -> None:
    done = program("top", "--once", "--socket", str(socket), PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(" * LIVE")
    assert done.stdout.isascii()


def test_nobody_there_is_exit_code_69_and_a_hint(tmp_path: Path) -> None:
    done = program("top", "--once", "--socket", str(tmp_path / "no.sock"))
    assert done.returncode == 69
    assert "moonxd serve" in done.stderr
    assert done.stdout == ""


class Terminal:
    """`moonxd top` on a pseudo terminal of 80x24."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moonxd", "top", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=ROOT,
            env={**os.environ, "TERM": "xterm-256color", "PYTHONUTF8": "1", **environment},
            start_new_session=True,
        )
        os.close(slave)
        self.seen = b""

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 30
        while text.encode() not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} did not appear in {self.seen[-2000:]!r}"
            self._read(left)

    def _read(self, timeout: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], timeout)
        try:
            chunk = os.read(self._master, 65536) if ready else b""
        except OSError:  # the other side is closed
            return False
        self.seen += chunk
        return bool(chunk)

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def ended(self) -> int:
        """Drain the output until the program has gone; its exit code."""
        deadline = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read(0.1)
        while self._read(0.1):
            continue
        return self.process.wait(timeout=1)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def test_on_a_terminal_it_is_live_until_q(socket: Path, terminals: list[Terminal]) -> None:
    terminals.append(terminal := Terminal("--socket", str(socket)))
    terminal.wait_for("LIVE")
    terminal.wait_for("184200")
    assert b"\x1b[31;1mred" not in terminal.seen, "an escape sequence of a job's reason reached the terminal"
    terminal.press("q")
    assert terminal.ended() == 0
    assert terminal.seen.rstrip().endswith(b"\x1b[?1049l") or b"\x1b[?1049l" in terminal.seen


def test_sigterm_leaves_the_terminal_as_it_was(socket: Path, terminals: list[Terminal]) -> None:
    terminals.append(terminal := Terminal("--socket", str(socket)))
    terminal.wait_for("LIVE")
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.ended() == 0
    assert b"\x1b[?1049l" in terminal.seen, "the alternate screen was not left"


def test_without_a_daemon_it_waits_and_says_how_to_start_one(tmp_path: Path, terminals: list[Terminal]) -> None:
    terminals.append(terminal := Terminal("--socket", str(tmp_path / "no.sock")))
    terminal.wait_for("NO CONNECTION")
    terminal.wait_for("moonxd serve")
    terminal.press("q")
    assert terminal.ended() == 0


def test_no_colour_means_no_colour(socket: Path, terminals: list[Terminal]) -> None:
    terminals.append(terminal := Terminal("--socket", str(socket), NO_COLOR="1", COLORTERM="truecolor"))
    terminal.wait_for("184200")
    terminal.press("q")
    assert terminal.ended() == 0
    shades = set(_rgb(terminal.seen))
    assert shades
    assert all(red == green == blue for red, green, blue in shades)


def _rgb(output: bytes) -> Iterator[tuple[int, int, int]]:
    """Every true colour that was asked for."""
    for sequence in output.split(b"\x1b[")[1:]:
        codes = sequence.split(b"m", 1)[0].split(b";")
        for index, code in enumerate(codes[:-4]):
            if code in (b"38", b"48") and codes[index + 1] == b"2":
                yield int(codes[index + 2]), int(codes[index + 3]), int(codes[index + 4])


def test_a_dumb_terminal_gets_one_frame(socket: Path, terminals: list[Terminal]) -> None:
    terminals.append(terminal := Terminal("--socket", str(socket), TERM="dumb"))
    assert terminal.ended() == 0
    assert b"LIVE" in terminal.seen
    assert b"\x1b" not in terminal.seen


@pytest.mark.parametrize("module", ["tui", "tui.run", "tui.once", "tui.app", "tui.client", "moonxd.cli.top"])
def test_the_view_loads_nothing_of_the_daemon(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {FORBIDDEN!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True, timeout=60
    )
    assert done.stdout.split() == []


def test_naming_the_view_is_free() -> None:
    code = "import sys, tui.run; print(*(name for name in ('textual', 'httpx') if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True, timeout=60
    )
    assert done.stdout.split() == []


def _printed_by(code: str) -> list[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, timeout=60).stdout.split()
