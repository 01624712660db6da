"""The size and the state of the code: small files, small functions, small ports, nothing left for later."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from moonxd import ports
from moonxd.statistics import COLLECTORS
from moonxd.version import VERSION
from tests.architecture.source import modules, tree
from tests.services import ROOT

# Parsed once, by whichever worker has them.
pytestmark = pytest.mark.xdist_group("sources")

LONGEST_FILE = 400
LONGEST_FUNCTION = 60
MEDIAN_FUNCTION = 12
WIDEST_PORT = 8


def functions() -> Iterator[tuple[str, int]]:
    """Name and lines of every function that is shipped."""
    for module in modules():
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{module}.{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1


def test_files_stay_small() -> None:
    lengths = {module: len(file.read_text("utf-8").splitlines()) for module, file in modules().items()}
    assert not {module: length for module, length in lengths.items() if length > LONGEST_FILE}


def test_functions_stay_small() -> None:
    lengths = list(functions())
    assert not {name: length for name, length in lengths if length > LONGEST_FUNCTION}
    assert median(length for _, length in lengths) <= MEDIAN_FUNCTION


def test_ports_stay_narrow() -> None:
    protocols = [
        member
        for _, member in inspect.getmembers(ports, inspect.isclass)
        if getattr(member, "_is_protocol", False) and member.__module__.startswith(f"{ports.__name__}.")
    ]
    assert len(protocols) >= 8
    assert not {port.__name__: size for port in protocols if (size := len(methods(port))) > WIDEST_PORT}


def methods(port: type) -> list[str]:
    return [name for name, member in vars(port).items() if callable(member) and not name.startswith("_")]


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z", *patterns],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [file for name in listed.split("\0") if name and (file := ROOT / name).is_file()]


def test_nothing_is_left_for_later() -> None:
    # Put together here, or this file would find itself.
    later = re.compile(
        r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK", "NotImplemented" + "Error")) + r")\b"
    )
    found = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in tracked("*.py", "*.sql", "*.lua", "*.mjs", "*.toml", "Makefile", ".ci/run", "*.spec", "*.service")
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        if later.search(line)
    ]
    assert not found


def test_no_room_is_called_utils() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [module for module in modules() if vague & set(module.split("."))]


def test_the_version_is_stated_once() -> None:
    stated = [
        str(file.relative_to(ROOT))
        for file in tracked("moonxd/*.py", "tui/*.py", "pyproject.toml", "packaging/*", "Makefile")
        if re.search(rf"(?i)version.{{0,8}}[\"']{re.escape(VERSION)}[\"']", file.read_text("utf-8"))
    ]
    assert stated == ["moonxd/version.py"]


def test_every_file_of_statistics_is_a_line_in_the_table_of_collectors() -> None:
    files = {path.stem for path in (ROOT / "moonxd" / "stats").glob("*.py")} - {"__init__"}
    assert files == set(COLLECTORS)
