"""Our own source files, read and parsed once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path

from tests.services import ROOT

PACKAGES = ("moonxd", "tui")


@lru_cache(maxsize=1)
def modules() -> dict[str, Path]:
    """Dotted name -> file, of everything that is shipped."""
    files = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text("utf-8"))


def foreign_imports(module: str) -> Iterator[str]:
    """Top-level names of the packages outside of ours that `module` imports, wherever in the file."""
    for node in ast.walk(tree(module)):
        match node:
            case ast.Import(names=names):
                found = [alias.name for alias in names]
            case ast.ImportFrom(module=str(name), level=0):
                found = [name]
            case _:
                continue
        yield from (name.partition(".")[0] for name in found if name.partition(".")[0] not in PACKAGES)
