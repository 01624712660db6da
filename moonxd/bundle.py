"""What is different when we run as the bundled binary."""

from __future__ import annotations

import sys
from collections.abc import Mapping

_LIBRARIES = "LD_LIBRARY_PATH"
#: Where the binary's start-up code keeps what the user had set.
_LIBRARIES_BEFORE = "LD_LIBRARY_PATH_ORIG"


def is_bundled() -> bool:
    return bool(getattr(sys, "frozen", False))


def command() -> list[str]:
    """How to start another moonxd: the binary itself, or this Python."""
    return [sys.executable] if is_bundled() else [sys.executable, "-m", "moonxd"]


def users_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` as it was before the binary pointed the library path at its own folder.

    Every child needs it: a system's program must not load our copy of OpenSSL, and another moonxd would take our folder
    for what the user had set, and hand it on.
    """
    before = dict(environ)
    if is_bundled():
        original = before.pop(_LIBRARIES_BEFORE, None)
        before.pop(_LIBRARIES, None)
        if original:
            before[_LIBRARIES] = original
    return before
