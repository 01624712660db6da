"""The daemon itself as a process: started, stopped, killed, asked through its own socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from moonxd.api import calls
from moonxd.api.client import Client, ClientError
from moonxd.api.messages import EnqueueRequest, JobDetail
from moonxd.api.schema import Snapshot
from tests.services.redis import die_with_parent

START_S = 30.0
_POLL_S = 0.02


def until(
    condition: Callable[[], Any], what: str, within_s: float = 30.0, explain: Callable[[], str] = lambda: ""
) -> Any:
    """The first true value of `condition`, asked again and again; fails after `within_s` seconds with `explain`."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {within_s:g} s\n{explain()}")
        time.sleep(_POLL_S)
    return value


class DaemonProcess:
    """`moonxd serve` on `state`, configured by `environ` alone."""

    def __init__(self, state: Path, environ: Mapping[str, str], *arguments: str) -> None:
        self.state = state
        self.socket = state / "moonxd.sock"
        self.log_file = state / "daemon.log"
        self._arguments = arguments
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(state),
            "MOONXD_STATE_DIR": str(state),
            "PYTHONWARNINGS": "error",
            # Most tests ask for many syncs of few users.
            "MOONXD_RATE_LIMIT__ENABLED": "false",
            **environ,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> DaemonProcess:
        self.state.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "moonxd", "serve", "--log-format", "json", *self._arguments],
                env=self._environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent,
            )  # fmt: skip
        if wait:
            self.await_running()
        return self

    def await_running(self) -> None:
        def running() -> bool:
            if self.process is not None and self.process.poll() is not None:
                pytest.fail(f"the daemon ended with code {self.process.returncode}:\n{self.log()[-3000:]}")
            snapshot = self.snapshot()
            return snapshot is not None and snapshot.daemon.state == "running"

        until(running, "the daemon runs", START_S)

    def snapshot(self) -> Snapshot | None:
        """The live picture; None while nobody answers."""
        if not self._listening():
            return None
        try:
            with self.client() as client:
                return client.call(calls.status())
        except ClientError:
            return None

    def _listening(self) -> bool:
        # httpx leaves its socket to the garbage collector when a connection is refused, and that is a warning here.
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def client(self) -> Client:
        return Client(self.socket)

    def enqueue(self, wallet: str, user: str = "u1", **more: Any) -> str:
        with self.client() as client:
            ask = EnqueueRequest(type="portfolio-sync", user_id=user, wallet_address=wallet, **more)
            return client.call(calls.enqueue(ask)).job_id

    def wait(self, job_id: str, within_s: float = 60.0) -> JobDetail:
        with self.client() as client:
            return client.call(calls.wait_for_job(job_id, within_s))

    def run(self, *arguments: str, within_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Another command of moonxd, configured as this daemon is."""
        return subprocess.run(
            [sys.executable, "-m", "moonxd", *arguments],
            env=self._environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=within_s, check=False,
        )  # fmt: skip

    def terminate(self, within_s: float = 30.0) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """As a host that hangs: nothing is closed, nothing is said."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Whatever its state, it is gone afterwards."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()

    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace") if self.log_file.exists() else ""


StartDaemon = Callable[..., DaemonProcess]


@pytest.fixture
def start_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartDaemon]:
    """`start_daemon(environ, *arguments, state=, wait=)`; what was started is stopped at the end of the test."""
    started: list[DaemonProcess] = []

    def start(
        environ: Mapping[str, str], *arguments: str, state: Path | None = None, wait: bool = True
    ) -> DaemonProcess:
        daemon = DaemonProcess(state or tmp_path_factory.mktemp("moonxd"), environ, *arguments)
        started.append(daemon)
        return daemon.start(wait=wait)

    yield start
    for daemon in reversed(started):
        daemon.stop()
