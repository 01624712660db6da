"""Where a daemon and its clients meet."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from moonxd import paths
from moonxd.paths import default_socket, default_state_dir, find_socket


@pytest.mark.parametrize(
    ("environ", "uid", "expected"),
    [
        ({"MOONXD_STATE_DIR": "/srv/m", "XDG_STATE_HOME": "/x", "HOME": "/home/a"}, 1000, "/srv/m"),
        ({"XDG_STATE_HOME": "/x", "HOME": "/home/a"}, 1000, "/x/moonxd"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/home/a"}, 1000, "/home/a/.local/state/moonxd"),
        ({"HOME": "/home/a"}, 1000, "/home/a/.local/state/moonxd"),
        ({"HOME": "/root"}, 0, "/var/lib/moonxd"),
        ({"HOME": "/root", "XDG_STATE_HOME": "/x"}, 0, "/x/moonxd"),
        ({"MOONXD_STATE_DIR": "", "HOME": "/home/a"}, 1000, "/home/a/.local/state/moonxd"),
    ],
)
def test_state_directory(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], uid: int, expected: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert default_state_dir(environ) == Path(expected)
    assert default_socket(environ) == Path(expected) / "moonxd.sock"


def test_socket_named_by_hand_wins() -> None:
    assert default_socket({"MOONXD_SOCKET": "/run/m.sock", "MOONXD_STATE_DIR": "/srv/m"}) == Path("/run/m.sock")


def test_client_who_named_nothing_finds_the_machines_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(paths, "SYSTEM_STATE_DIR", tmp_path)
    home = {"HOME": str(tmp_path / "home")}
    own = tmp_path / "home/.local/state/moonxd/moonxd.sock"
    assert find_socket(home) == own, "nothing is there: the message names the usual place"
    (tmp_path / "moonxd.sock").touch()
    assert find_socket(home) == tmp_path / "moonxd.sock"
    assert find_socket(home | {"MOONXD_STATE_DIR": "/srv/m"}) == Path("/srv/m/moonxd.sock")
    own.parent.mkdir(parents=True)
    own.touch()
    assert find_socket(home) == own
