"""The simulated world as a process of its own, as the demo and the benchmarks run it.

Fixtures: `simulator` (one process for the whole run, back at its start before every test, prices frozen) and
`start_simulator` (a factory for tests that need other settings, or that end it).
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.services import ROOT, have
from tests.services.redis import die_with_parent

_READY_WITHIN_S = 20.0
_ENDED_WITHIN_S = 10.0


class SimulatorProcess:
    """A running `python -m moonxd.sim`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._env_file = folder / "simulator.env"
        self.log = folder / "simulator.log"
        self._env_file.unlink(missing_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "moonxd.sim", "--env-file", str(self._env_file), *arguments],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent,
            )  # fmt: skip
        try:
            #: The variables that point a daemon at it.
            self.env = self._read_env()
        except BaseException:
            self.stop()
            raise
        self.url = self.env["RELAY_API_URL"].removesuffix("/relay")
        self.http = httpx.Client(base_url=self.url, timeout=10.0)

    def _read_env(self) -> dict[str, str]:
        deadline = time.monotonic() + _READY_WITHIN_S
        while not self._env_file.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the simulator did not start: {self.log.read_text()}")
            time.sleep(0.01)
        lines = self._env_file.read_text("utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def stop(self) -> int:
        """End it as an operator would; its exit code."""
        if hasattr(self, "http"):
            self.http.close()
        self.process.terminate()
        try:
            return self.process.wait(_ENDED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    # The simulator's own paths.

    def _sim(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        answer = self.http.request(method, f"/sim/{path}", json=body, params=query)
        assert answer.is_success, answer.text
        return answer.json()

    def turn(self, patch: Mapping[str, Mapping[str, Any]]) -> Any:
        """Change knobs: {upstream or group: {knob: value}}."""
        return self._sim("PATCH", "knobs", patch)

    def reset(self) -> None:
        """Knobs, counters, wallets and tokens as they were at the start."""
        self._sim("POST", "reset")

    def stats(self) -> Any:
        return self._sim("GET", "stats")

    def wallet(self, address: str, **query: Any) -> Any:
        """What a faultless reader would find; query: listed=1, min_confidence=0.9."""
        return self._sim("GET", f"wallets/{address}", **query)

    def put_wallet(self, address: str, balances: Mapping[str, Mapping[str, str]], *, replace: bool = False) -> Any:
        """Set raw balances: {chain: {token address or "native": "123"}}; the truth afterwards."""
        return self._sim("POST", f"wallets/{address}", {"balances": balances, "replace": replace})

    def deploy(self, **token: Any) -> str:
        """Put a token on a chain (fields: moonxd.sim.admin.TokenOrder); its address."""
        address: str = self._sim("POST", "tokens", token)["address"]
        return address

    # What everybody sees.

    def rpc(self, chain: str, method: str, *params: Any, path: str = "rpc") -> Any:
        """One JSON-RPC answer of a chain, whole."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        return self.http.post(f"/{path}/{chain}", json=body).json()


@pytest.fixture(scope="session")
def _simulator_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    running = SimulatorProcess(tmp_path_factory.mktemp("simulator"), "--price-bucket-s", "0")
    have("simulator", "moonxd simulate")
    yield running
    running.stop()


@pytest.fixture
def simulator(_simulator_process: SimulatorProcess) -> SimulatorProcess:
    _simulator_process.reset()
    return _simulator_process


@pytest.fixture
def start_simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., SimulatorProcess]]:
    """Starts a process with the given command line arguments; it ends with the test."""
    running: list[SimulatorProcess] = []

    def start(*arguments: str) -> SimulatorProcess:
        running.append(SimulatorProcess(tmp_path_factory.mktemp("simulator"), *arguments))
        return running[-1]

    yield start
    for one in running:
        one.stop()
