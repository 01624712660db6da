"""What every test shares: the real components' fixtures, unwrapped failures, and the closing table."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.services import NOTES_VARIABLE

_COMPONENTS = (
    "redis", "postgres", "kafka", "mongo", "node", "anvil", "simulator", "daemon", "relay", "binary", "chromium",
)  # fmt: skip
pytest_plugins = [f"tests.services.{name}" for name in _COMPONENTS if find_spec(f"tests.services.{name}")]


# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("moonxd", deadline=None)
hypothesis.settings.load_profile("moonxd")


def pytest_configure(config: pytest.Config) -> None:
    # Workers inherit the variable from the controller: one file collects the notes of all processes.
    if NOTES_VARIABLE not in os.environ:
        handle, path = tempfile.mkstemp(prefix="moonxd-tests-")
        os.close(handle)
        os.environ[NOTES_VARIABLE] = path


def pytest_collection_finish(session: pytest.Session) -> None:
    # Thousands of tests stay until the end: no pass of the collector need walk them.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """pytest-trio delivers failures inside one-member groups; show the failure itself."""
    try:
        return (yield)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if error is group:
            raise
        raise error  # noqa: B904 (the group adds nothing: the traceback is the inner one)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    notes = Path(os.environ.pop(NOTES_VARIABLE))
    rows = sorted({tuple(line.split("\t", 2)) for line in notes.read_text("utf-8").splitlines()})
    notes.unlink()
    if rows:
        terminalreporter.section("real components")
        for component, state, detail in rows:
            terminalreporter.write_line(f"{component:<18} {state:<8} {detail}")
