"""Kafka is away for long: jobs do not notice, memory does not grow, and all of it leaves afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from moonxd.api import calls
from tests.services import have
from tests.services.daemon import DaemonProcess, StartDaemon, until
from tests.services.kafka import KafkaServer
from tests.services.simulator import SimulatorProcess

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.kafka]

#: Syncs of one load; each leaves five events.
LOAD = 250
#: The daemon that publishes may not be much faster than the one that cannot. Loads differ by a fifth on a busy machine.
SLOWER = 0.6
#: Of growth while 3,750 events more wait, MB.
GROWTH_MB = 12


def wallet(number: int) -> str:
    return f"0x{0xABE0000 + number:040x}"


def load(daemon: DaemonProcess, number: int) -> float:
    """Syncs per second of as many wallets as a load has, which were never seen before."""
    with daemon.client() as client:
        client.call(calls.pause())
        jobs = [daemon.enqueue(wallet(LOAD * number + one), f"u{one}") for one in range(LOAD)]
        began = time.monotonic()
        client.call(calls.resume())
        for job in jobs:
            assert daemon.wait(job).state == "completed"
        return LOAD / (time.monotonic() - began)


def rss_mb(daemon: DaemonProcess) -> float:
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text("ascii")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def backlog(daemon: DaemonProcess) -> int:
    with daemon.client() as client:
        return client.call(calls.events(limit=1)).backlog


@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_jobs_run_at_full_speed_and_memory_stays(
    start_daemon: StartDaemon,
    simulator: SimulatorProcess,
    start_kafka: Callable[..., KafkaServer],
    request: pytest.FixtureRequest,
    store: str,
) -> None:
    kafka = start_kafka()
    environ = {"KAFKA_BROKERS": kafka.address(), "MOONXD_STATS__ENABLED": "false", "PERIODIC_SYNC_ENABLED": "false"}
    if store == "postgres":
        environ["DATABASE_URL"] = request.getfixturevalue("postgres_dsn")
    simulator.turn({"*": {"latency_ms": 5}})
    daemon = start_daemon({**simulator.env, **environ})
    load(daemon, 0)
    until(lambda: backlog(daemon) == 0, "the first events leave")
    with_broker = load(daemon, 1)
    kafka.kill()
    without = [load(daemon, 2)]
    grown_from, waiting = rss_mb(daemon), backlog(daemon)
    without += [load(daemon, number) for number in range(3, 6)]
    grown = rss_mb(daemon) - grown_from
    assert backlog(daemon) - waiting >= 3 * LOAD * 4, "the outbox has them all"
    have(
        f"no broker, {store}",
        f"{max(without):.0f} syncs/s beside {with_broker:.0f} with one, {backlog(daemon)} events wait, {grown:+.1f} MB",
    )
    assert max(without) >= SLOWER * with_broker
    assert grown < GROWTH_MB
    kafka.start()
    until(lambda: backlog(daemon) == 0, "everything leaves", 60, daemon.log)
