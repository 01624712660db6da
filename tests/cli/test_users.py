"""Periodic syncs from end to end: the daemon, its commands, its figures."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.services.daemon import DaemonProcess, StartDaemon, until
from tests.services.simulator import SimulatorProcess

pytestmark = pytest.mark.slow

WALLET = "0x" + "ab" * 20


def address(number: int) -> str:
    return f"0x{number + 0xBEEF0000:040x}"


def cli(daemon: DaemonProcess, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "moonxd", *arguments, "--state-dir", str(daemon.state)],
        capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(daemon.state)},
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def on_a_terminal(daemon: DaemonProcess, *arguments: str) -> str:
    """What a command writes to a terminal's stderr."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        process = subprocess.Popen(
            [sys.executable, "-m", "moonxd", *arguments, "--state-dir", str(daemon.state)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs,
            env={"PATH": "/usr/bin:/bin", "HOME": str(daemon.state), "TERM": "xterm"},
        )  # fmt: skip
        os.close(theirs)
        written = b""
        # The end of a terminal whose other side is closed is an error on Linux.
        with contextlib.suppress(OSError):
            while part := terminal.read(4096):
                written += part
        assert process.wait(60) == 0
    return written.decode()


def asked(daemon: DaemonProcess, *arguments: str) -> Any:
    return json.loads(cli(daemon, *arguments, "--json"))


def http(daemon: DaemonProcess, path: str) -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(daemon.socket)), base_url="http://moonxd") as client:
        return client.get(path)


def events(daemon: DaemonProcess) -> list[dict[str, Any]]:
    return [one["body"] for one in asked(daemon, "events")["events"]]


def test_a_manual_sync_registers_and_the_scheduler_goes_on(
    start_daemon: StartDaemon, simulator: SimulatorProcess
) -> None:
    daemon = start_daemon(simulator.env)
    assert asked(daemon, "users", "stats")["wallets"] == 0
    cli(daemon, "enqueue", "portfolio-sync", "--user", "u1", "--wallet", WALLET, "--wait")
    (user,) = until(lambda: asked(daemon, "users", "list")["users"], "the wallet is registered")
    assert (user["userId"], user["walletAddress"], user["active"]) == ("u1", WALLET, True)
    assert user["nextDueAt"] is not None

    assert asked(daemon, "schedule", "trigger", "--user", "u1") == {"wallets": 1, "looks": True}
    until(lambda: asked(daemon, "schedule")["scheduler"]["queued"] == 1, "it was queued")

    def ended() -> Any:
        return [job for job in asked(daemon, "jobs", "list")["jobs"] if job["jobId"].startswith("periodic-")
                and job["state"] == "completed"]  # fmt: skip

    (job,) = until(ended, "the periodic sync completed", explain=lambda: cli(daemon, "jobs", "list"))
    assert job["data"]["priority"] == "high"
    # Rich or not: behind what a person marked as urgent, before all other manual jobs.
    assert job["priority"] in (2, 3)
    assert len([one for one in events(daemon) if one["type"] == "user.activity"]) == 1, "the manual one alone"
    health = http(daemon, "/health").json()["schedulerStats"]
    assert (health["enabled"], health["running"]) == (True, True)
    shown = cli(daemon, "schedule")
    for part in ("next due", "missed", "drift", "fresh", "stale"):
        assert part in shown, shown
    view = asked(daemon, "schedule")
    assert (view["scheduler"]["missed"], view["scheduler"]["lastError"]) == (0, None)
    assert 0 <= view["scheduler"]["drift"] <= view["scheduler"]["worstDrift"]
    assert (view["wallets"]["freshRatio"], view["wallets"]["fresh"], view["wallets"]["stale"]) == (1.0, 1, 0)
    assert view["wallets"]["nextDueAt"] == asked(daemon, "users", "list")["users"][0]["nextDueAt"]
    assert "moonxd_wallets_fresh_ratio" in http(daemon, "/metrics").text
    assert {child["name"] for child in asked(daemon, "status")["children"]} >= {"scheduler", "activity"}


def test_users_are_added_changed_paused_and_removed(
    start_daemon: StartDaemon, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    daemon = start_daemon(simulator.env)
    assert asked(daemon, "schedule", "pause", "--reason", "maintenance") == {"isPaused": True}
    assert "is registered" in cli(daemon, "users", "add", "u1", WALLET, "--interval", "30m")
    assert "registered already" in cli(daemon, "users", "add", "u1", WALLET)
    cli(daemon, "users", "set", "u1", "--timezone", "Europe/Berlin", "--disable")
    (user,) = asked(daemon, "users", "list")["users"]
    assert (user["intervalMinutes"], user["timezone"], user["enabled"]) == (30, "Europe/Berlin", False)
    cli(daemon, "users", "set", "u1", WALLET, "--interval", "default", "--timezone", "default", "--enable")
    (user,) = asked(daemon, "users", "list", "--user", "u1")["users"]
    assert (user["intervalMinutes"], user["timezone"], user["enabled"]) == (None, None, True)
    assert asked(daemon, "users", "touch", "u1")["wallets"] == 1
    assert "no time zone" in cli(daemon, "users", "set", "u1", "--timezone", "Mars/Olympus", code=1)
    assert "nothing to change" in cli(daemon, "users", "set", "u1", code=1)
    assert "whole minutes" in cli(daemon, "users", "set", "u1", "--interval", "30s", code=2)
    assert "not registered" in cli(daemon, "users", "touch", "nobody", code=1)

    file = tmp_path / "users.csv"
    rows = "\n".join(f"{address(n)},u{n % 100},{'60' if n % 2 else ''}" for n in range(2500))
    file.write_text(f"\ufeffwallet,user_id,interval_minutes\n{rows}\n\n")
    assert asked(daemon, "users", "import", str(file)) == {"added": 2500, "known": 0}
    assert asked(daemon, "users", "import", str(file)) == {"added": 0, "known": 2500}
    assert len(asked(daemon, "users", "list", "--all")["users"]) == 2501
    assert len(asked(daemon, "users", "list", "--limit", "1200")["users"]) == 1200
    assert "importing" in on_a_terminal(daemon, "users", "import", str(file))
    file.write_text(f"u1,{WALLET},soon\n")
    assert "line 1: interval_minutes is 'soon'" in cli(daemon, "users", "import", str(file), code=2)
    file.write_text("u1,0x12\n")
    assert "has 2 hex digits" in cli(daemon, "users", "import", str(file), code=1)

    stats = asked(daemon, "users", "stats")
    assert (stats["wallets"], stats["users"], stats["isPaused"], stats["pausedReason"]) == (
        2501,
        100,
        True,
        "maintenance",
    )
    assert "paused" in cli(daemon, "schedule")
    assert asked(daemon, "schedule")["scheduler"]["queued"] == 0
    assert asked(daemon, "users", "remove", "u7")["wallets"] == 25
    assert "not registered" in cli(daemon, "users", "remove", "u7", code=1)
    assert asked(daemon, "schedule", "resume") == {"isPaused": False}
    cli(daemon, "users", "list")


def test_a_daemon_without_the_scheduler_still_notes_who_is_active(
    start_daemon: StartDaemon, simulator: SimulatorProcess
) -> None:
    daemon = start_daemon({**simulator.env, "PERIODIC_SYNC_ENABLED": "false"})
    cli(daemon, "enqueue", "portfolio-sync", "--user", "u1", "--wallet", WALLET, "--wait")
    until(lambda: asked(daemon, "users", "list")["users"], "the wallet is registered")
    assert "runs no scheduler" in cli(daemon, "schedule")
    assert "runs no scheduler" in cli(daemon, "schedule", "trigger", code=1)
    assert http(daemon, "/v1/health").json()["schedulerStats"]["enabled"] is False
