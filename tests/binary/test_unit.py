"""The systemd unit fits the daemon."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest

from moonxd import daemon
from moonxd.cli import exits
from moonxd.config import Config
from tests.services import ROOT

UNIT = ROOT / "packaging" / "moonxd.service"


def service() -> dict[str, str]:
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(UNIT.read_text("utf-8"))
    return dict(parser["Service"])


def test_it_waits_longer_than_the_drain() -> None:
    at_most = Config().daemon.drain_s + daemon.HAND_BACK_S + daemon.CONTROL_GRACE_S
    assert float(service()["TimeoutStopSec"].removesuffix("s")) >= at_most + 10


def test_the_embedded_redis_is_not_stopped_before_the_daemon() -> None:
    assert service()["KillMode"] == "mixed"


def test_a_bad_configuration_is_not_started_again_and_again() -> None:
    assert service()["RestartPreventExitStatus"] == str(exits.BAD_CONFIG)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_it(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text("utf-8")), "utf-8")
    verified = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
