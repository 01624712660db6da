"""Where a daemon and its clients meet: the state directory and the control socket in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

SOCKET_NAME = "moonxd.sock"
SYSTEM_STATE_DIR = Path("/var/lib/moonxd")


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """MOONXD_STATE_DIR, else $XDG_STATE_HOME/moonxd, else /var/lib/moonxd for root, else ~/.local/state/moonxd."""
    given = environ.get("MOONXD_STATE_DIR")
    if given:
        return Path(given).expanduser()
    # The specification says that a relative XDG path is to be ignored.
    xdg = environ.get("XDG_STATE_HOME", "")
    if xdg.startswith("/"):
        return Path(xdg) / "moonxd"
    if os.geteuid() == 0:
        return SYSTEM_STATE_DIR
    return Path(environ.get("HOME") or Path.home()) / ".local" / "state" / "moonxd"


def default_socket(environ: Mapping[str, str]) -> Path:
    """Where a daemon listens: MOONXD_SOCKET, else `moonxd.sock` in the state directory."""
    given = environ.get("MOONXD_SOCKET")
    return Path(given).expanduser() if given else default_state_dir(environ) / SOCKET_NAME


def find_socket(environ: Mapping[str, str]) -> Path:
    """Where a client knocks: as above, but one who named nothing and runs no daemon also finds the machine's own."""
    socket = default_socket(environ)
    named = environ.get("MOONXD_SOCKET") or environ.get("MOONXD_STATE_DIR")
    machine = SYSTEM_STATE_DIR / SOCKET_NAME
    return machine if not named and not socket.exists() and machine.exists() else socket
