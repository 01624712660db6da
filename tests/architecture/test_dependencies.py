"""What we stand on: argued for, pinned with hashes, free of GPL."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import Distribution, distribution, distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.services import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
RUNTIME = [Requirement(line) for line in PROJECT["dependencies"]]
DEVELOPMENT = [Requirement(line) for line in PROJECT["optional-dependencies"]["dev"]]


def locked(name: str) -> dict[str, str]:
    """Package -> version, of requirements/`name`.lock."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text("utf-8")
    return {
        canonicalize_name(package): version for package, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.M)
    }


def test_each_direct_dependency_is_argued_for() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text("utf-8")
    rows = {canonicalize_name(name) for name in re.findall(r"^\| `([\w.-]+)", page, re.M)}
    direct = {canonicalize_name(requirement.name) for requirement in RUNTIME + DEVELOPMENT}
    assert direct - rows == set(), "no row in docs/dependencies.md"
    assert rows - direct == set(), "a row for something that is not used"


def test_the_locks_satisfy_the_project() -> None:
    runtime, development = locked("runtime"), locked("dev")
    for requirement in RUNTIME:
        assert runtime[canonicalize_name(requirement.name)] in requirement.specifier
    for requirement in RUNTIME + DEVELOPMENT:
        assert development[canonicalize_name(requirement.name)] in requirement.specifier
    assert {name: version for name, version in runtime.items() if development.get(name) != version} == {}


def test_the_locks_have_hashes_and_name_no_host() -> None:
    for name in ("runtime", "dev"):
        text = (ROOT / "requirements" / f"{name}.lock").read_text("utf-8")
        assert "://" not in text
        assert "--index" not in text
        assert all("--hash=sha256:" in entry for entry in re.split(r"\n(?=[A-Za-z0-9])", text)[1:])


def test_no_gpl_in_the_runtime_closure() -> None:
    """LGPL is a library's licence and stays one: psycopg lies beside the binary as files that can be replaced."""
    installed = {canonicalize_name(found.name): found for found in distributions()}
    closure = [installed[name] for name in locked("runtime") if name in installed]
    assert len(closure) > 30
    guilty = {found.name: licence(found) for found in closure if re.search(r"\bA?GPL", licence(found))}
    assert guilty == {}
    assert {found.name for found in closure if "LGPL" in licence(found)} == {"psycopg", "psycopg-binary"}


def test_what_is_gpl_among_the_tools_runs_as_a_program_and_is_never_imported() -> None:
    """The stand-in for MongoDB: its own process, in tests only."""
    assert "secantusdb" not in locked("runtime")
    importing = re.compile(r"^\s*(import|from) secantus", re.MULTILINE)
    sources = [
        file for room in ("moonxd", "tui", "tests", "benchmarks", "packaging") for file in (ROOT / room).rglob("*.py")
    ]
    assert not [file for file in sources if importing.search(file.read_text("utf-8"))]


def licence(found: Distribution) -> str:
    metadata = found.metadata
    stated = metadata.get("License-Expression") or metadata.get("License") or ""
    classified = [line for line in metadata.get_all("Classifier", []) if line.startswith("License ::")]
    # Some have put the whole text into the field; its first line says which it is. LGPL is not GPL with an L.
    return "; ".join([stated.partition("\n")[0], *classified]).replace("GNU General Public", "GPL")


def test_the_scripts_are_of_the_distribution_that_is_pinned() -> None:
    pinned = next(requirement for requirement in RUNTIME if requirement.name == "bullmq")
    assert str(pinned.specifier) == f"=={distribution('bullmq').version}"
