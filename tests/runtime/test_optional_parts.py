"""Kafka, MongoDB, statistics and the live feed serve the syncs' surroundings: whatever is wrong with them, jobs go on,
and it is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.services.daemon import DaemonProcess, StartDaemon, until
from tests.services.simulator import SimulatorProcess

pytestmark = pytest.mark.slow

#: Nobody listens there.
NOBODY = "127.0.0.1:9"
WALLET = f"0x{0xFEED0001:040x}"


def is_child(name: str, *states: str) -> Callable[[DaemonProcess], bool]:
    def look(daemon: DaemonProcess) -> bool:
        snapshot = daemon.snapshot()
        assert snapshot is not None
        return any(child.name == name and child.state in states and child.last_error for child in snapshot.children)

    return look


def logs(words: str) -> Callable[[DaemonProcess], bool]:
    return lambda daemon: words in daemon.log()


def nothing(state: Path) -> None: ...


def a_directory(state: Path) -> None:
    (state / "statistics.db").mkdir(parents=True)


def garbage(state: Path) -> None:
    state.mkdir()
    (state / "statistics.db").write_bytes(b"no database" * 1000)


@pytest.mark.parametrize(
    ("environ", "prepare", "is_said"),
    [
        ({"KAFKA_BROKERS": NOBODY}, nothing, is_child("publisher", "failing")),
        ({"MONGODB_URI": f"mongodb://{NOBODY}/stats"}, nothing, logs("statistics wait in memory")),
        ({"MONGODB_URI": "mongodb://nobody.invalid/stats"}, nothing, logs("statistics wait in memory")),
        ({}, a_directory, is_child("stats-archive", "failed")),
        ({}, garbage, logs("statistics start afresh, the file is set aside")),
    ],
    ids=["kafka", "mongodb", "no such host", "a directory", "garbage"],
)
def test_syncs_go_on_without(
    start_daemon: StartDaemon,
    simulator: SimulatorProcess,
    tmp_path: Path,
    environ: Mapping[str, str],
    prepare: Callable[[Path], None],
    is_said: Callable[[DaemonProcess], bool],
) -> None:
    state = tmp_path / "state"
    prepare(state)
    often = {"MOONXD_STATS__OVERVIEW_CRON": "* * * * * *"}
    daemon = start_daemon({**simulator.env, **often, **environ}, state=state)
    assert daemon.wait(daemon.enqueue(WALLET)).state == "completed"
    until(lambda: is_said(daemon), "it is said", 30.0, daemon.log)
    assert daemon.terminate() == 0
    assert "Traceback" not in daemon.log()
