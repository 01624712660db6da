"""`moonxd serve` as its operator knows it: start, wrong values, SIGHUP, SIGTERM, secrets, two on one directory."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from moonxd.api import calls
from tests.services import free_port
from tests.services.daemon import DaemonProcess, StartDaemon, until
from tests.services.redis import RedisServer
from tests.services.simulator import SimulatorProcess

pytestmark = pytest.mark.slow

WALLET = "0x" + "ab" * 20
TOKEN = "a token that nobody guesses".replace(" ", "-")


def cli(daemon: DaemonProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "moonxd", *arguments, "--state-dir", str(daemon.state)],
        capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(daemon.state)},
    )  # fmt: skip


def logged(daemon: DaemonProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in daemon.log().splitlines() if line.startswith("{")]


def test_a_scripts_day(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    daemon = start_daemon(simulator.env)
    status = json.loads(cli(daemon, "status", "--json").stdout)
    for key in ("waiting", "prioritized", "active", "delayed", "waiting_children", "completed", "failed", "paused"):
        assert status["queue"][key] == 0
    assert status["queue"]["is_paused"] is False
    assert {child["name"] for child in status["children"]} >= {"redis-server", "control", "consumer", "stalled-check"}
    assert all(child["state"] == "running" and child["restarts"] == 0 for child in status["children"])

    done = cli(daemon, "enqueue", "portfolio-sync", "--user", "u1", "--wallet", WALLET, "--wait", "--json")
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert job["state"] == "completed"
    assert job["result"]["success"] is True
    held = json.loads(cli(daemon, "portfolio", WALLET, "--user", "u1", "--json").stdout)
    truth = {
        (chain["chainId"], token["address"]): token["raw"]
        for chain in simulator.wallet(WALLET)["chains"].values()
        for token in chain["tokens"]
    }
    rows = held["portfolios"][0]["holdings"]
    assert len(rows) > 10
    assert all(truth[row["chainId"], row["address"]] == row["balance"] for row in rows)

    refused = cli(daemon, "enqueue", "portfolio-sync", "--user", "u1", "--wallet", "0x12", "--wait", "--json")
    assert refused.returncode == 1
    assert "has 2 hex digits" in refused.stdout + refused.stderr

    assert cli(daemon, "pause").returncode == 0
    queued = json.loads(cli(daemon, "enqueue", "portfolio-sync", "--user", "u1", "--wallet", WALLET, "--json").stdout)
    assert json.loads(cli(daemon, "status", "--json").stdout)["queue"]["is_paused"] is True
    assert cli(daemon, "resume").returncode == 0
    assert daemon.wait(queued["jobId"]).state == "completed"


def test_wrong_values_are_all_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[worker]\nconcurrency = 0\nconcurency = 5\n[redis]\nurl = "http://:hunter2hunter2@x"\n')
    ended = subprocess.run(
        [sys.executable, "-m", "moonxd", "serve", "--config", str(file), "--state-dir", str(tmp_path)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ended.returncode == 78
    assert "worker.concurrency" in ended.stderr
    assert "did you mean" in ended.stderr
    assert "redis.url" in ended.stderr
    assert "hunter2" not in ended.stderr


def test_nobody_is_there(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "moonxd", "status", "--state-dir", str(tmp_path)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ended.returncode == 69
    assert "moonxd serve" in ended.stderr, "the error says what to do"


def test_a_second_daemon_on_the_same_directory_is_refused(
    start_daemon: StartDaemon, simulator: SimulatorProcess
) -> None:
    first = start_daemon(simulator.env)
    second = DaemonProcess(first.state, simulator.env)
    second.log_file = first.state / "second.log"
    second.start(wait=False)
    assert second.process is not None
    assert second.process.wait(30) == 78
    assert "another" in second.log()
    assert first.wait(first.enqueue(WALLET)).state == "completed", "the first one did not notice"


def test_sighup_reloads_what_can_be_reloaded_and_says_what_cannot(
    start_daemon: StartDaemon, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[log]\nlevel = "info"\n[worker]\nconcurrency = 3\n')
    environ = {name: value for name, value in simulator.env.items() if not name.startswith("POLYGON")}
    daemon = start_daemon({**environ, "ENABLED_CHAINS": "base"}, "--config", str(file))
    assert daemon.process is not None
    assert daemon.wait(daemon.enqueue(WALLET)).result["chainsSync"] == 1

    file.write_text('[log]\nlevel = "warning"\n[worker]\nconcurrency = 4\n[prices]\nttl_s = 5\n')
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: "needs a restart" in daemon.log() or "next restart" in daemon.log(), "the reload is told")
    assert any("worker.concurrency" in line["message"] for line in logged(daemon))
    snapshot = daemon.snapshot()
    assert snapshot is not None
    assert snapshot.daemon.slots == 3
    assert daemon.wait(daemon.enqueue(WALLET)).state == "completed", "the chains were opened anew"

    file.write_text("[worker]\nconcurrency = -1\n")
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: "old configuration stays" in daemon.log(), "a wrong file changes nothing")
    assert daemon.wait(daemon.enqueue(WALLET)).state == "completed"


def test_sigterm_ends_it_cleanly_and_a_new_one_finds_everything(
    start_daemon: StartDaemon, simulator: SimulatorProcess
) -> None:
    daemon = start_daemon(simulator.env)
    daemon.wait(daemon.enqueue(WALLET))
    assert daemon.terminate() == 0
    assert not daemon.socket.exists()
    assert not [line for line in logged(daemon) if line["level"] in ("warning", "error", "critical")]
    daemon.start()
    with daemon.client() as client:
        assert client.call(calls.portfolio(WALLET)).portfolios


def test_secrets_appear_nowhere(start_daemon: StartDaemon, simulator: SimulatorProcess, start_redis: Any) -> None:
    secret = "correct-horse-battery-staple"
    redis: RedisServer = start_redis(password=secret)
    environ = {**simulator.env, "REDIS_URL": redis.url, "ALCHEMY_API_KEY": "alchemy-" + secret, "LOG_LEVEL": "debug"}
    daemon = start_daemon(environ)
    daemon.wait(daemon.enqueue(WALLET))
    redis.kill()
    until(lambda: "Redis is away" in daemon.log(), "the loss is logged")
    redis.start()
    until(lambda: "Redis is connected" in daemon.log(), "the return is logged")
    shown = subprocess.run(
        [sys.executable, "-m", "moonxd", "config", "show"], capture_output=True, text=True, timeout=30, check=True,
        env={"PATH": "/usr/bin:/bin", "HOME": "/", **environ},
    ).stdout  # fmt: skip
    status = cli(daemon, "status", "--json").stdout
    for text in (daemon.log(), shown, status):
        assert "staple" not in text


def test_the_api_on_loopback(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    port = free_port()
    daemon = start_daemon({**simulator.env, "PORT": str(port), "MOONXD_HTTP__TOKEN": TOKEN})
    base, bearer = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {TOKEN}"}
    body = {"type": "portfolio-sync", "userId": "u", "walletAddress": WALLET}
    assert httpx.post(f"{base}/jobs", json=body).status_code == 401
    answer = httpx.post(f"{base}/jobs", json=body, headers=bearer)
    assert answer.status_code == 202
    assert daemon.wait(answer.json()["jobId"]).state == "completed"
    assert httpx.get(f"{base}/health/live").status_code == 200
    assert httpx.get(f"{base}/health/ready").json()["status"] == "ready"
    metrics = httpx.get(f"{base}/metrics").text
    assert 'sync_jobs_processed_total{type="portfolio-sync"} 1.0' in metrics
    assert 'moonxd_queue_jobs{queue="sync-jobs",state="completed"} 1.0' in metrics
    assert "process_resident_memory_bytes" in metrics
    assert WALLET not in metrics
    assert TOKEN not in daemon.log()


def test_the_api_on_other_addresses(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    port = free_port()
    listen = {"MOONXD_HTTP__LISTEN": f"0.0.0.0:{port}", "MOONXD_HTTP__TOKEN": TOKEN}
    daemon = start_daemon({**simulator.env, **listen})
    base, bearer = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {TOKEN}"}
    for path in ("/health", "/health/live", "/health/ready", "/metrics"):
        assert httpx.get(base + path).status_code == 200, path
    assert httpx.get(f"{base}/jobs").status_code == 401
    assert httpx.get(f"{base}/jobs", headers=bearer).status_code == 200
    assert httpx.post(f"{base}/workers/pause", json={}, headers=bearer).status_code == 200
    snapshot = daemon.snapshot()
    assert snapshot is not None
    assert snapshot.queue.is_paused


def test_other_addresses_need_a_token(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "moonxd", "serve", "--listen", "0.0.0.0:0", "--state-dir", str(tmp_path)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ended.returncode == 78
    assert "loopback" in ended.stderr


def test_a_part_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"redis://:topsecretword@127.0.0.1:{closed.getsockname()[1]}"
        daemon = DaemonProcess(tmp_path / "state", {"REDIS_URL": url}).start(wait=False)
        until(lambda: "Redis is away" in daemon.log(), "it says what it waits for")
        assert "topsecretword" not in daemon.log()
        assert daemon.terminate() == 0, "and can be stopped while it waits"
