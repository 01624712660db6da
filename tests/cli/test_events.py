"""`moonxd events` against a real daemon: followed, listed, sent again over a real Kafka, and what its topics say."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
import trio

from moonxd.adapters.island.kafka.settings import KafkaSettings
from moonxd.adapters.island.kafka.sink import open_kafka_sink
from moonxd.adapters.island.kafka.topic import open_kafka_topic
from moonxd.adapters.island.loop import open_island
from moonxd.cli.moment import parse_moment
from moonxd.domain.message import Message, Received
from moonxd.domain.rebuild import rebuild
from tests.cli.test_users import asked, cli
from tests.services.daemon import DaemonProcess, StartDaemon, until
from tests.services.event_schemas import assert_valid
from tests.services.kafka import KafkaServer
from tests.services.simulator import SimulatorProcess

WALLET = "0x" + "ab" * 20


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("15m", 1000_000_000 - 900),
        ("1d", 1000_000_000 - 86_400),
        ("now", 1000_000_000),
        ("2001-09-09T01:46:40Z", 1000_000_000),
        ("2001-09-09 03:46:40+02:00", 1000_000_000),
        ("2001-09-09", 999_993_600),
        ("1000000000.5", 1000_000_000.5),
    ],
)
def test_moments_as_people_write_them(text: str, moment: float) -> None:
    assert parse_moment(text, 1000_000_000) == moment


def test_a_moment_that_is_none_says_what_is() -> None:
    with pytest.raises(Exception, match="is no time: write"):
        parse_moment("soon", 0)


def test_a_schema_needs_no_daemon(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "moonxd", "events", "schema", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert json.loads(run("sync.queued").stdout)["title"] == "sync.queued"
    assert set(json.loads(run().stdout)) >= {"portfolio.updated", "stats.health_check"}
    assert run("--out", str(tmp_path)).returncode == 0
    assert (tmp_path / "user.activity.json").exists()
    unknown = run("sync.finished")
    assert unknown.returncode == 2
    assert "sync.completed" in unknown.stderr


class Tail:
    """`moonxd events tail` in a process of its own."""

    def __init__(self, daemon: DaemonProcess, *arguments: str) -> None:
        self._out = daemon.state / f"tail-{uuid.uuid4()}"
        with self._out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "moonxd", "events", "tail", *arguments, "--state-dir", str(daemon.state)],
                stdout=out, stderr=subprocess.STDOUT, env={"PATH": "/usr/bin:/bin", "HOME": str(daemon.state)},
            )  # fmt: skip

    def lines(self) -> list[str]:
        return self._out.read_text("utf-8").splitlines()

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(20)


@pytest.mark.slow
def test_events_are_followed_until_somebody_has_enough(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    daemon = start_daemon(simulator.env)
    cli(daemon, "enqueue", "portfolio-sync", "--user", "before", "--wallet", WALLET, "--wait")
    plain, mine = (
        Tail(daemon, "--last", "2"),
        Tail(daemon, "--json", "--type", "sync.*", "--user", "u2", "--since", "1h"),
    )
    try:
        until(lambda: len(plain.lines()) == 2, "the last two are shown", explain=lambda: "\n".join(plain.lines()))
        cli(daemon, "enqueue", "portfolio-sync", "--user", "u2", "--wallet", WALLET, "--wait")
        until(lambda: len(mine.lines()) == 3, "the story of one user", explain=lambda: "\n".join(mine.lines()))
        assert [json.loads(line)["type"] for line in mine.lines()] == ["sync.queued", "sync.started", "sync.completed"]
        until(lambda: any("sync.completed" in line and "u2" in line for line in plain.lines()), "everybody's story")
        assert (plain.interrupt(), mine.interrupt()) == (0, 0), "\n".join(plain.lines())
        assert not [line for line in plain.lines() if "Traceback" in line]
    finally:
        for tail in (plain, mine):
            tail.process.kill()
            tail.process.wait()
    listed = asked(daemon, "events", "list", "--type", "portfolio.updated")["events"]
    assert {one["key"] for one in listed} == {"before", "u2"}
    for one in asked(daemon, "events", "--limit", "1000")["events"]:
        assert_valid(one["body"])
    assert "publishes to no Kafka" in cli(daemon, "events", "replay", "--from", "1h", "--yes", code=1)
    # Whoever reads only the first lines is no reason for a trace.
    head = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m moonxd events tail --since 1h --state-dir {daemon.state} | head -1"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (len(head.stdout.splitlines()), head.stderr) == (1, "")


# ---- over a real Kafka ---------------------------------------------------------------------------------------------

TOPICS = ("PORTFOLIO_UPDATES", "SYNC_EVENTS", "SYSTEM_ALERTS", "USER_ACTIVITIES", "STATS_EVENTS")


class Broker:
    """The topics of one test."""

    def __init__(self, server: KafkaServer) -> None:
        self.events, self.activities, self.mirror = (f"{name}-{uuid.uuid4()}" for name in ("events", "users", "ws"))
        for name in (self.events, self.activities, self.mirror):
            server.create_topic(name)
        self._settings = KafkaSettings(brokers=(server.address(),), connect_timeout_s=5.0, request_timeout_s=10.0)
        self.env = {
            "MOONXD_KAFKA__BROKERS": server.address(),
            "MOONXD_KAFKA__WEBSOCKET_TOPIC": self.mirror,
            "MOONXD_KAFKA__GROUP": f"group-{uuid.uuid4()}",
            "MOONXD_KAFKA__CONNECT_TIMEOUT_S": "5",
            **{f"MOONXD_KAFKA__TOPICS__{name}": self.events for name in TOPICS},
            "MOONXD_KAFKA__TOPICS__USER_ACTIVITIES": self.activities,
        }

    def read(self, topic: str) -> list[Received]:
        async def main() -> list[Received]:
            found: list[Received] = []
            async with open_island() as island, open_kafka_topic(island, self._settings, topic) as reader:
                while page := await reader.page():
                    found += page
            return found

        return trio.run(main)

    def bodies(self, topic: str) -> list[Any]:
        return [json.loads(one.value or b"null") for one in self.read(topic)]

    def say(self, topic: str, *values: bytes) -> None:
        async def main() -> None:
            async with open_island() as island, open_kafka_sink(island, self._settings) as sink:
                await sink.send([Message(topic=topic, key="web", value=value) for value in values])

        trio.run(main)


@pytest.mark.kafka
@pytest.mark.slow
def test_what_leaves_is_mirrored_heard_and_sent_again(
    start_daemon: StartDaemon, simulator: SimulatorProcess, kafka_server: KafkaServer
) -> None:
    broker = Broker(kafka_server)
    daemon = start_daemon({**simulator.env, **broker.env})
    for user in ("u1", "u2"):
        cli(daemon, "enqueue", "portfolio-sync", "--user", user, "--wallet", WALLET, "--wait")

    def published() -> bool:
        page = asked(daemon, "events", "--limit", "1000")
        return page["backlog"] == 0 and len(page["events"]) == 10

    until(published, "everything is published", explain=lambda: daemon.log()[-3000:])
    told = {one["id"]: one["body"] for one in asked(daemon, "events", "--limit", "1000")["events"]}
    first = broker.bodies(broker.events)
    assert len(first) == 8
    for one in [*first, *broker.bodies(broker.activities)]:
        assert_valid(one)
        assert told[one["metadata"]["eventId"]]["data"] == one["data"]
    operations = asked(daemon, "operations")["operations"]
    rows = rebuild([one.value or b"" for one in broker.read(broker.events)])
    assert {str(key): row.status for key, row in rows.items()} == {one["id"]: one["status"] for one in operations}

    # The WebSocket service's own topic: syncs and portfolios as they are.
    mirrored = broker.bodies(broker.mirror)
    assert {one["type"] for one in mirrored} == {"sync.queued", "sync.started", "sync.completed", "portfolio.updated"}

    # What others say of users is heard; our own word, and garbage, are not.
    seen = {"metadata": {"source": "web", "timestamp": 4102444800000}, "userId": "u9", "walletAddress": WALLET,
            "type": "user.activity", "data": {"activityType": "portfolio_viewed"}}  # fmt: skip
    broker.say(broker.activities, b"garbage", json.dumps(seen).encode())
    users = until(
        lambda: [one for one in asked(daemon, "users", "list")["users"] if one["userId"] == "u9"],
        "the user is awake",
        explain=lambda: daemon.log()[-3000:],
    )
    assert users[0]["active"]

    counted = asked(daemon, "events", "replay", "--from", "1h", "--dry-run", "--type", "portfolio.*")
    assert counted == {"matched": 2, "sent": 0}
    assert "add --yes" in cli(daemon, "events", "replay", "--from", "1h", code=2)
    of_syncs = asked(daemon, "events", "replay", "--from", "1h", "--topic", "sync.events", "--dry-run")
    assert of_syncs == {"matched": 6, "sent": 0}
    assert asked(daemon, "events", "replay", "--from", "2h", "--to", "1h", "--dry-run")["matched"] == 0
    assert "2 of 2 events sent again" in cli(
        daemon, "events", "replay", "--from", "1h", "--type", "portfolio.*", "--yes"
    )
    again = broker.bodies(broker.events)
    assert len(again) == 10
    assert sorted(one["metadata"]["eventId"] for one in again if one["type"] == "portfolio.updated") == sorted(
        2 * [one["metadata"]["eventId"] for one in first if one["type"] == "portfolio.updated"]
    )
    assert len(broker.bodies(broker.mirror)) == len(mirrored), "browsers are not told old news"
