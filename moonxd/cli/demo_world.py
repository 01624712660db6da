"""The demo's surroundings: a simulator and a daemon as child processes, and a state directory for them."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..api import calls
from ..api.client import Client, ClientError, DaemonUnreachable
from ..bundle import command, users_environment
from ..paths import SOCKET_NAME
from .output import note

#: Seconds for the simulator to listen, for the daemon to be ready, for either to end.
START_S = 30.0
STOP_S = 20.0
_POLL_S = 0.05
#: The daemon of the demo must not meet what the user's shell configures for a real one.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TERM", "NO_COLOR", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH")
#: Faults are part of the show: attempts are made again soon.
_SETTINGS = {
    "MOONXD_QUEUE__BACKOFF_DELAY_S": "0.5",
    "MOONXD_ALCHEMY__RETRY_DELAY_S": "0.1",
    "MOONXD_DAEMON__DRAIN_S": "2",
    # Its few users sync all the time.
    "MOONXD_RATE_LIMIT__ENABLED": "false",
}


@contextmanager
def world(state_dir: Path | None, *, seed: str, latency_ms: float, error_rate: float) -> Iterator[Path]:
    """A running daemon's socket. The state stays in `state_dir`, or without one it is removed at the end.

    Raises ClientError with the end of the log of the part that did not start.
    """
    with tempfile.TemporaryDirectory(prefix="moonxd-demo-") as scratch:
        state = (state_dir or Path(scratch)).absolute()
        state.mkdir(parents=True, exist_ok=True)
        env_file = Path(scratch) / "simulator.env"
        environ = {name: value for name, value in users_environment(os.environ).items() if name in _PASSED_ON}
        faults = ["--latency-ms", str(latency_ms), "--latency-sigma", "0.4", "--error-rate", str(error_rate)]
        simulate = ["simulate", "--port", "0", "--seed", seed, "--env-file", str(env_file), *faults]
        with _child(simulate, environ, state / "simulator.log") as simulator:
            _until(simulator, env_file.exists, "the simulator", state / "simulator.log")
            settings = {**environ, **_SETTINGS, **_read_env(env_file), "MOONXD_STATE_DIR": str(state)}
            with _child(["serve", "--log-format", "json"], settings, state / "moonxd.log") as daemon:
                socket = state / SOCKET_NAME
                _until(daemon, lambda: _is_ready(socket), "the daemon", state / "moonxd.log")
                yield socket
        if state_dir is not None:
            note(f"the state is in {state}")


@contextmanager
def _child(arguments: list[str], environ: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        process = subprocess.Popen(
            [*command(), *arguments], env=dict(environ), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            # Ctrl-C is for us: we end the children in their order.
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until(process: subprocess.Popen[bytes], condition: Callable[[], bool], what: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not condition():
        if process.poll() is not None:
            raise ClientError(f"{what} ended at once with code {process.returncode}", _tail(log))
        if time.monotonic() > deadline:
            raise ClientError(f"{what} was not ready within {START_S:g} s", _tail(log))
        time.sleep(_POLL_S)


def _is_ready(socket: Path) -> bool:
    if not socket.exists():
        return False
    try:
        with Client(socket) as client:
            return client.call(calls.status()).daemon.state == "running"
    except DaemonUnreachable:
        return False


def _read_env(path: Path) -> dict[str, str]:
    pairs = (line.partition("=") for line in path.read_text(encoding="utf-8").splitlines() if "=" in line)
    return {name: value for name, _, value in pairs}


def _tail(log: Path, lines: int = 5) -> str:
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return "\n".join(text.splitlines()[-lines:]) or f"its log {log} is empty"
