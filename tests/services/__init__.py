"""Real components for the tests: one module per component, each with a starter and its pytest fixtures.

A component that this machine cannot get makes its tests skip, unless MOONXD_REQUIRE is set (CI does), then they fail.
`have` and `missing` note what happened for the table that closes every run.
"""

from __future__ import annotations

import os
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
