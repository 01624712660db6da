"""The bundled binary, where `make binary` has left one that is not older than the code.

Fixture: `binary` (the path of the executable).
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.services import ROOT, have, missing

BINARY = ROOT / "dist" / "moonxd" / "moonxd"


def newest_source() -> float:
    """When what goes into the binary was last changed, in seconds since 1970."""
    folders = (ROOT / "moonxd", ROOT / "tui", ROOT / "packaging")
    files = [
        file for folder in folders for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts
    ]
    return max(file.stat().st_mtime for file in files)


@pytest.fixture(scope="session")
def binary() -> Path:
    if not BINARY.exists():
        missing("binary", "there is no dist/moonxd: run `make binary`")
    if BINARY.stat().st_mtime < newest_source():
        missing("binary", "dist/moonxd is older than the code: run `make binary`")
    said = subprocess.run([BINARY, "version"], capture_output=True, text=True, check=True, timeout=30).stdout
    have("binary", f"{said.strip()}, PyInstaller")
    return BINARY
