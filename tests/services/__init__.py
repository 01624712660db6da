"""Real components for the tests: one module per component, each with a starter and its pytest fixtures.

A component that this machine cannot get makes its tests skip, unless MOONXD_REQUIRE is set (CI does), then they fail.
`have` and `missing` note what happened for the table that closes every run.
"""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path
from typing import NoReturn

import pytest

REQUIRE_VARIABLE = "MOONXD_REQUIRE"
NOTES_VARIABLE = "MOONXD_TEST_NOTES"
ROOT = Path(__file__).resolve().parents[2]
NODE_DIR = ROOT / "tests" / "node"


def _note(line: str) -> None:
    notes = os.environ.get(NOTES_VARIABLE)
    if notes:
        with open(notes, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def have(component: str, detail: str) -> None:
    """Note that `component` really ran; `detail` is its version or path."""
    _note(f"{component}\tran\t{detail}")


def missing(component: str, why: str) -> NoReturn:
    """Skip (or, when every component is required, fail) because `component` cannot be had; `why` says what to do."""
    _note(f"{component}\tMISSING\t{why}")
    if os.environ.get(REQUIRE_VARIABLE):
        pytest.fail(f"{component} is required here but missing: {why}", pytrace=False)
    pytest.skip(f"{component}: {why}")


#: Below the ephemeral range: a client that reconnects to a stopped server on an ephemeral port can meet itself.
_PORTS = range(12_000, 32_000)
#: Processes that run tests side by side, each with ports of its own; more of them share.
_SHARES = 16
_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that no other call here was or is given."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SHARES
    ours = _PORTS[worker::_SHARES]
    while True:
        port = random.choice(ours)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
