"""The licence texts of everything that is inside the binary, put beside it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution, packages_distributions
from pathlib import Path

Entry = tuple[str, str, str]
_LICENCE_FILE = re.compile(r"(?i)(licen[cs]e|copying|notice|authors)[^/]*$")
#: A wheel's own copy of a library carries a hash in its name: libpq-e9b5c9ac.so.5.18 is libpq.
_LIBRARY = re.compile(r"(?P<name>lib[\w.+-]+?)(-[0-9a-f]{8})?\.so[\d.]*")


def write_notices(folder: Path, root: Path, contents: Iterable[Entry]) -> None:
    """Fill `folder`/licenses from the distributions and libraries that `contents` (PyInstaller's lists) come from.

    Texts that no wheel brings along are in packaging/licenses. Raises ValueError when a distribution has no text at
    all: then one has to be added there.
    """
    contents = list(contents)
    licenses = folder / "licenses"
    shutil.copytree(root / "packaging" / "licenses", licenses, dirs_exist_ok=True)
    shutil.copy2(root / "LICENSE", folder / "LICENSE")
    lines = [f"{name} {version}: {text}" for name, version, text in _distributions(licenses, contents)]
    lines.append(f"Python {sys.version.split()[0]}: {_python(licenses)}")
    lines += [f"{library}: {text}" for library, text in _libraries(licenses, contents)]
    head = (
        "moonxd is under the MIT licence (../LICENSE). This folder holds the licences of what is bundled with it.\n\n"
    )
    (licenses / "README.txt").write_text(head + "\n".join(lines) + "\n", "utf-8")


def _distributions(licenses: Path, contents: list[Entry]) -> Iterable[tuple[str, str, str]]:
    owners = packages_distributions()
    packages = {re.split(r"[./]", name, maxsplit=1)[0] for name, _, _ in contents}
    names = {owner for package in packages for owner in owners.get(package, ())} - {"moonxd"}
    for name in sorted(names, key=str.lower):
        found = distribution(name)
        target = licenses / name
        for number, file in enumerate(_licence_files(found)):
            target.mkdir(exist_ok=True)
            shutil.copy2(
                file,
                target / (file.name if number == 0 or not (target / file.name).exists() else f"{number}-{file.name}"),
            )
        if not target.is_dir():
            raise ValueError(f"{name} has no licence text: add one as packaging/licenses/{name}/LICENSE")
        yield name, found.version, f"{_licence(found)} ({name}/)"


def _licence_files(found: Distribution) -> list[Path]:
    files = [file for file in found.files or () if ".dist-info/" in str(file) and _LICENCE_FILE.search(str(file))]
    return [Path(str(found.locate_file(file))) for file in files]


def _licence(found: Distribution) -> str:
    stated = found.metadata.get("License-Expression") or found.metadata.get("License") or ""
    classified = [
        line.rpartition(" :: ")[2] for line in found.metadata.get_all("Classifier", []) if "License ::" in line
    ]
    return stated if 0 < len(stated) < 60 else ", ".join(classified) or "see its text"


def _python(licenses: Path) -> str:
    text = Path(sysconfig.get_path("stdlib"), "LICENSE.txt")
    (licenses / "python").mkdir(exist_ok=True)
    if not text.exists():
        return "PSF-2.0 (docs.python.org/3/license.html)"
    shutil.copy2(text, licenses / "python" / "LICENSE.txt")
    return "PSF-2.0 (python/)"


def _libraries(licenses: Path, contents: list[Entry]) -> Iterable[tuple[str, str]]:
    """Shared libraries of the system, and of the same projects those that wheels brought: Debian's copyright files."""
    for name in sorted({Path(name).name for name, _, kind in contents if kind == "BINARY"}):
        library = _LIBRARY.fullmatch(name)
        if library is None or library["name"].startswith("libpython"):
            continue
        text = _debian_copyright(library["name"])
        if text is None:
            yield name, "its package on the build machine is not known"
            continue
        target = licenses / "libraries" / f"{text.parent.name}.txt"
        target.parent.mkdir(exist_ok=True)
        shutil.copy2(text, target)
        yield name, str(target.relative_to(licenses))


def _debian_copyright(library: str) -> Path | None:
    if shutil.which("dpkg") is None:
        return None
    # Some carry their version before the ending: libldap-2.5.so.0.
    pattern = f"/*lib/*/{library}[-.0-9]*so.*"
    found = subprocess.run(["dpkg", "-S", pattern], capture_output=True, text=True, check=False).stdout
    for package in re.findall(r"^([\w.+-]+)(?::\w+)?: ", found, re.MULTILINE):
        text = Path("/usr/share/doc", package, "copyright")
        if text.exists():
            return text
    return None
