"""The live feed under two thousand browsers: memory of each, and from an event's commit to the page.

    python -m benchmarks.live --clients 2000 --seconds 20 [--json]

A real daemon (SQLite, one process); the clients are a process of their own, and so is what commits the events: 200 a
second for one user's room each and one a second for all. So the daemon sees them by looking, as those of other workers.
Latency is from just before the commit to the frame's arrival; memory what the daemon's RSS grew by, per client.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import trio

from moonxd.adapters.sqlite.ledger import open_sqlite_ledger
from moonxd.domain.ledger import Event
from tests.services import free_port

from .live_clients import Crowd
from .stats import nearest_rank

SECRET = "benchmarks need no secret, but 32 bytes of it"
_EVENTS_PER_COMMIT = 4
_START_S = 30.0


class Result(msgspec.Struct, frozen=True, kw_only=True):
    clients: int
    seconds: float
    #: kB of the daemon's RSS per client: idle, and after the load (what the window of events took included).
    idle_kb: float
    loaded_kb: float
    user_events: int
    broadcasts: int
    #: Milliseconds.
    user_p50: float
    user_p99: float
    broadcast_p50: float
    broadcast_p99: float
    #: Of all events, the share whose room was told within so long of the commit, as the daemon's own metric has it.
    told_in_100_ms: float
    told_in_250_ms: float
    #: Share of a core that the daemon used under load.
    cpu: float
    lost: int


def rss_kb(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def daemon(state: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(state),
        "MOONXD_STATE_DIR": str(state),
        "MOONXD_HTTP__LISTEN": f"127.0.0.1:{port}",
        "MOONXD_LIVE__HS256_SECRET": SECRET,
        "MOONXD_SCHEDULER__ENABLED": "false",
    }
    with (state / "daemon.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "moonxd", "serve"], env=environ, stdout=log, stderr=log)
    try:
        await_ready(port, process)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def await_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health/ready", trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit("the daemon did not start")


def told_within(port: int) -> dict[str, float]:
    """Shares by the metric's buckets, in seconds."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    buckets = dict(re.findall(r'^moonxd_live_lag_seconds_bucket\{le="([^"]+)"\} (\S+)$', text, re.MULTILINE))
    return {bound: float(count) / float(buckets["+Inf"]) for bound, count in buckets.items()}


def made_event(kind: str, key: str) -> Event:
    """About as large as a portfolio of ten tokens."""
    identity = uuid4()
    tokens = [{"chainId": 1, "address": "0x" + "ab" * 20, "symbol": f"T{n}", "balance": "1.5"} for n in range(10)]
    body = {
        "metadata": {"eventId": str(identity), "eventType": kind, "timestamp": int(time.time() * 1000)},
        "userId": key,
        "walletAddress": "0x" + "cd" * 20,
        "type": kind,
        "data": {"sentAt": time.time(), "tokens": tokens},
    }
    return Event(id=identity, type=kind, topic=kind, key=key, wallet="", body=json.dumps(body).encode())


async def commit_events(state: Path, clients: int, seconds: float) -> tuple[int, int]:
    """How many for one user, how many for all."""
    told = broadcasts = 0
    began = trio.current_time()
    async with open_sqlite_ledger(state / "moonxd.db") as ledger:
        while trio.current_time() - began < seconds:
            await trio.sleep_until(began + told / 200)
            users = [f"u{(told + n) * 7919 % clients}" for n in range(_EVENTS_PER_COMMIT)]
            events = [made_event("portfolio.updated", user) for user in users]
            if told // 200 >= broadcasts:
                events.append(made_event("stats.chain_performance_updated", "system"))
                broadcasts += 1
            await ledger.tell(events)
            told += _EVENTS_PER_COMMIT
    return told, broadcasts


async def measure(clients: int, seconds: float, state: Path) -> Result:
    port = free_port()
    with daemon(state, port) as process:
        async with Crowd.started(port, SECRET) as crowd:
            await crowd.grow(20)
            await trio.sleep(1)
            before = rss_kb(process.pid)
            await crowd.grow(clients)
            await trio.sleep(2)
            idle = rss_kb(process.pid)
            cpu = cpu_s(process.pid)
            told, broadcasts = await commit_events(state, clients, seconds)
            cpu = (cpu_s(process.pid) - cpu) / seconds
            await trio.sleep(2)
            loaded = rss_kb(process.pid)
            heard = await crowd.heard()
            within = await trio.to_thread.run_sync(told_within, port)
    user, everybody = heard["portfolio_update"], heard["chain_stats_update"]
    grown = clients - 20
    return Result(
        clients=clients,
        seconds=seconds,
        idle_kb=round((idle - before) / grown, 1),
        loaded_kb=round((loaded - before) / grown, 1),
        user_events=told,
        broadcasts=broadcasts,
        user_p50=round(nearest_rank(user, 0.5) * 1000, 1),
        user_p99=round(nearest_rank(user, 0.99) * 1000, 1),
        broadcast_p50=round(nearest_rank(everybody, 0.5) * 1000, 1),
        broadcast_p99=round(nearest_rank(everybody, 0.99) * 1000, 1),
        told_in_100_ms=round(within["0.1"], 4),
        told_in_250_ms=round(within["0.25"], 4),
        cpu=round(cpu, 3),
        lost=told + broadcasts * clients - len(user) - len(everybody),
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live", description=__doc__)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    given: Any = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, given.clients * 2 + 1024)), hard))
    with tempfile.TemporaryDirectory(prefix="moonxd-live-") as folder:
        result = trio.run(measure, given.clients, given.seconds, Path(folder))
    if given.json:
        print(json.dumps(msgspec.to_builtins(result)))
    else:
        for name, value in msgspec.to_builtins(result).items():
            print(f"{name:16}{value}")
    return 0 if result.lost == 0 and result.idle_kb < 60 and max(result.user_p99, result.broadcast_p99) < 500 else 1


if __name__ == "__main__":
    sys.exit(main())
