"""The import contracts of .importlinter, run as a test so that no one has to remember the other command."""

from __future__ import annotations

from pathlib import Path

import pytest
from importlinter.cli import lint_imports

from tests.services import ROOT


def test_the_import_contracts_are_kept(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    failed = lint_imports(config_filename=str(ROOT / ".importlinter"), no_cache=True)
    assert not failed, capfd.readouterr().out


def test_every_job_type_is_held_independent() -> None:
    contract = (ROOT / ".importlinter").read_text("utf-8")
    shared = {"__init__", "contract"}
    types = {Path(file).stem for file in (ROOT / "moonxd" / "jobs").glob("*.py")} - shared
    assert types
    assert not {name for name in types if f"moonxd.jobs.{name}" not in contract}
