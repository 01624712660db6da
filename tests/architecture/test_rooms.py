"""The import contracts of .importlinter, run as a test so that no one has to remember the other command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.services import ROOT


def test_the_import_contracts_are_kept() -> None:
    # In a process of its own: the command turns off every logger that exists.
    command = Path(sys.executable).with_name("lint-imports")
    line = [command, "--config", ".importlinter", "--no-cache"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_job_type_is_held_independent() -> None:
    contract = (ROOT / ".importlinter").read_text("utf-8")
    shared = {"__init__", "contract"}
    types = {Path(file).stem for file in (ROOT / "moonxd" / "jobs").glob("*.py")} - shared
    assert types
    assert not {name for name in types if f"moonxd.jobs.{name}" not in contract}
