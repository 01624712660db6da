"""Every part of a whole daemon fails in turn, while the others go on: consumers, scheduler, collectors, publisher, all
children of one process.

The daemon and its supervisor are the real ones, with real parts around them; only a child's body stands in a nursery
that the test can break.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import msgspec
import pytest
import trio

from moonxd.api import calls
from moonxd.api import stats as stats_calls
from moonxd.api.client import Client
from moonxd.api.messages import EnqueueRequest
from moonxd.api.schema import Child as ChildView
from moonxd.config import load_config
from moonxd.daemon import Daemon
from moonxd.log import setup_logging
from moonxd.supervisor import Body, Child, Supervisor
from tests.services.daemon import until as wait_until
from tests.services.kafka import KafkaServer
from tests.services.redis import RedisServer, until
from tests.services.simulator import SimulatorProcess

pytestmark = [pytest.mark.slow, pytest.mark.redis]

CRON = "* * * * * *"
ENVIRON = {
    "CHAIN_PERFORMANCE_INTERVAL": CRON,
    "BRIDGE_LATENCY_INTERVAL": CRON,
    "STATS_COLLECTION_INTERVAL": CRON,
    "PERIODIC_SYNC_CRON_PATTERN": "* * * * * *",
    "MOONXD_RATE_LIMIT__ENABLED": "false",
}
CONSUMER, SCHEDULER, PUBLISHER = "consumer", "scheduler", "publisher"
COLLECTORS = ("stats-chain-performance", "stats-bridge-latency", "stats-overview", "stats-service-health")
#: What rests on a part and is started again with it.
RESTS_ON = {"island": {PUBLISHER, "activities", "stats-archive"}}


in_thread = partial(trio.to_thread.run_sync, abandon_on_cancel=True)


class Broken(Exception):
    """What a bug would raise."""


class Breakable(Supervisor):
    """The supervisor, with a way to make the body of a child raise."""

    daemon: Daemon

    def __init__(self, nursery: trio.Nursery, stop: trio.Event, on_restart: Callable[[str], None]) -> None:
        super().__init__(nursery, stop, on_restart)
        self._bombs: dict[str, trio.Event] = {}

    async def start(self, child: Child) -> None:
        await super().start(msgspec.structs.replace(child, body=partial(self._run, child.name, child.body)))

    def break_(self, name: str) -> None:
        self._bombs[name].set()

    def child(self, name: str) -> ChildView:
        return next(child for child in self.children() if child.name == name)

    async def _run(self, name: str, body: Body, ready: Callable[[], None]) -> None:
        bomb = self._bombs[name] = trio.Event()

        async def explode() -> None:
            await bomb.wait()
            raise Broken(f"{name} is broken")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(explode)
            await body(ready)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def running(environ: dict[str, str], state: Path) -> AsyncIterator[Breakable]:
    loaded = load_config(None, {"HOME": str(state), "MOONXD_STATE_DIR": str(state), **environ})
    started = trio.Event()
    with setup_logging("error", "json", ()) as logging_now:
        daemon = Daemon(loaded.config, lambda: loaded, logging_now)
        async with trio.open_nursery() as nursery:
            supervisor = Breakable(nursery, daemon.stop, daemon.telemetry.child_restarted)
            supervisor.daemon = daemon
            nursery.start_soon(daemon.run, supervisor, started.set)
            with trio.fail_after(60):
                await started.wait()
            yield supervisor
            daemon.stop.set()
    assert supervisor.failure is None


class Watcher:
    """What the daemon gets done, as it shows over its socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._wallets = 0

    def sync(self) -> None:
        """One job from the queue to its end."""
        self._wallets += 1
        ask = EnqueueRequest(type="portfolio-sync", user_id="u1", wallet_address=f"0x{0xABC000 + self._wallets:040x}")
        with Client(self._socket) as client:
            job = client.call(calls.wait_for_job(client.call(calls.enqueue(ask)).job_id, 60))
        assert job.state == "completed", job

    def rounds(self) -> dict[str, int]:
        with Client(self._socket) as client:
            return {one.name: one.rounds for one in client.call(stats_calls.overview()).collectors}

    def counted(self, name: str) -> float:
        """The sum of a metric's samples."""
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self._socket)), base_url="http://moonxd") as client:
            lines = client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def all_works(self, with_kafka: bool) -> None:
        """Jobs, collectors, scheduler and publisher each get something done from now on."""
        rounds, slots = self.rounds(), self.counted("moonxd_schedule_slots_total")
        published = self.counted("kafka_events_published_total")
        self.sync()
        fast = [name for name in rounds if name != "service_health"]
        wait_until(lambda: all(self.rounds()[name] > rounds[name] for name in fast), "every collector goes on", 40)
        wait_until(lambda: self.counted("moonxd_schedule_slots_total") > slots, "the scheduler goes on")
        if with_kafka:
            wait_until(lambda: self.counted("kafka_events_published_total") > published, "the publisher goes on")

    def status(self) -> dict[str, ChildView]:
        with Client(self._socket) as client:
            return {child.name: child for child in client.call(calls.status()).children}


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.kafka)], ids=["no-kafka", "kafka"])
def kafka(request: pytest.FixtureRequest) -> dict[str, str]:
    if not request.param:
        return {}
    server: KafkaServer = request.getfixturevalue("kafka_server")
    return {"KAFKA_BROKERS": server.address()}


# An asyncio thread that dies leaves its sockets to the garbage collector, which is to come while this test runs.
@pytest.mark.filterwarnings("ignore:(unclosed|Unclosed|loop is closed):ResourceWarning")
@pytest.mark.timeout(240)
async def test_each_part_fails_in_turn_and_the_others_go_on(
    tmp_path: Path, simulator: SimulatorProcess, start_redis: Callable[..., RedisServer], kafka: dict[str, str]
) -> None:
    environ = {**simulator.env, **ENVIRON, **kafka, "REDIS_URL": start_redis().url}
    watcher = Watcher(tmp_path / "moonxd.sock")
    async with running(environ, tmp_path) as supervisor:
        await in_thread(watcher.all_works, bool(kafka))
        shown = await in_thread(watcher.status)
        assert {CONSUMER, SCHEDULER, *COLLECTORS, *((PUBLISHER, "outbox", "island") if kafka else ())} <= set(shown)
        for name in shown:
            before = {child.name: child.restarts for child in supervisor.children()}
            supervisor.break_(name)
            await until(partial(_is_back, supervisor, name, before[name]), 20)
            is_told_apart = name in (CONSUMER, SCHEDULER, PUBLISHER, "island", "stats-office", *COLLECTORS)
            if is_told_apart:
                await in_thread(watcher.all_works, bool(kafka))
            else:
                await in_thread(watcher.sync)
            now = await in_thread(watcher.status)
            assert now[name].last_error == f"Broken: {name} is broken"
            others = {other for other, child in now.items() if child.restarts != before[other]} - {name}
            assert others <= RESTS_ON.get(name, set()), f"{name} took others with it"
        assert {child.state for child in supervisor.children()} == {"running"}
    gc.collect()


def _is_back(supervisor: Breakable, name: str, restarts: int) -> bool:
    child = supervisor.child(name)
    return child.restarts > restarts and child.state == "running"
