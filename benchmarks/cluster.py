"""How work scales with worker processes: `python -m benchmarks.cluster --workers 1,2,4 --jobs 2000 --latency-ms 30`.

Each round starts a fresh daemon on embedded Redis and ledger against one simulator, enqueues wallet syncs into a paused
queue, resumes it, and counts until all are done. Prints a line of JSON per round: jobs/s and the smallest and largest
worker's share. At the end jobs that run for seconds are cancelled through the head, which runs none itself:
`--cancels N` of them, from the call until the job has failed, HTTP included.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from moonxd.api import calls
from moonxd.api.client import Client, ClientError
from moonxd.api.messages import EnqueueRequest
from moonxd.bundle import command


@contextmanager
def child(arguments: list[str], environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([*command(), *arguments], env=environ, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def read_env(file: Path) -> dict[str, str]:
    while not file.exists():
        time.sleep(0.05)
    return dict(line.split("=", 1) for line in file.read_text("utf-8").splitlines())


def ready(socket: Path, workers: int) -> Client:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if socket.exists():
            client = Client(socket)
            try:
                fleet = client.call(calls.workers()).workers
            except ClientError:
                fleet = ()
            if sum(one.state == "running" for one in fleet) == workers:
                return client
            client.close()
        time.sleep(0.1)
    raise SystemExit("the daemon did not start")


def measure(workers: int, jobs: int, slots: int, environ: dict[str, str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="moonxd-bench-") as state:
        settings = {**environ, "MOONXD_STATE_DIR": state, "MOONXD_QUEUE__REMOVE_ON_COMPLETE": "-1"}
        settings |= {"WORKER_STATS_INTERVAL": "1000", "WORKER_CONCURRENCY": str(slots), "LOG_LEVEL": "warning"}
        with child(["serve", "--workers", str(workers)], settings):
            client = ready(Path(state) / "moonxd.sock", workers)
            client.call(calls.pause())
            for number in range(jobs):
                ask = EnqueueRequest(type="portfolio-sync", user_id=f"u{number}", wallet_address=f"0x{number + 1:040x}")
                client.call(calls.enqueue(ask))
            began = time.monotonic()
            client.call(calls.resume())
            while client.call(calls.status()).queue.completed < jobs:
                time.sleep(0.1)
            took = time.monotonic() - began
            shares: Counter[str | None] = Counter()
            for start in range(0, jobs, 1000):
                page = client.call(calls.jobs("completed", start=start, limit=1000))
                shares.update(job.processed_by for job in page.jobs)
            client.close()
    return {
        "workers": workers,
        "jobs_per_s": round(jobs / took, 1),
        "seconds": round(took, 2),
        "least_share": round(min(shares.values()) / jobs, 3),
        "largest_share": round(max(shares.values()) / jobs, 3),
    }


def cancels(count: int, environ: dict[str, str]) -> dict[str, Any]:
    """Milliseconds from the call to another process until the job has failed; the reads would take seconds."""
    took: list[float] = []
    with tempfile.TemporaryDirectory(prefix="moonxd-bench-") as state:
        settings = {**environ, "MOONXD_STATE_DIR": state, "WORKER_STATS_INTERVAL": "1000", "LOG_LEVEL": "warning"}
        with child(["serve", "--workers", "1"], settings):
            client = ready(Path(state) / "moonxd.sock", 1)
            for number in range(count):
                ask = EnqueueRequest(type="portfolio-sync", user_id=f"u{number}", wallet_address=f"0x{number + 1:040x}")
                job_id = client.call(calls.enqueue(ask)).job_id
                while [job.step for job in client.call(calls.status()).running] != ["fetch"]:
                    time.sleep(0.02)
                began = time.monotonic()
                client.call(calls.cancel(job_id))
                while client.call(calls.job(job_id)).state != "failed":
                    pass
                took.append((time.monotonic() - began) * 1000)
            client.close()
    return {"cancels": count, "median_ms": round(median(took), 1), "worst_ms": round(max(took), 1)}


def show(row: dict[str, Any]) -> None:
    print(json.dumps({**row, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--slots", type=int, default=10)
    parser.add_argument("--latency-ms", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--cancels", type=int, default=20)
    given = parser.parse_args()
    for _ in range(given.rounds):
        for workers in given.workers.split(",") if given.jobs else ():
            with simulated(given.latency_ms) as environ:
                show(measure(int(workers), given.jobs, given.slots, environ))
    if given.cancels:
        with simulated(8000) as environ:
            show(cancels(given.cancels, environ))


@contextmanager
def simulated(latency_ms: float) -> Iterator[dict[str, str]]:
    """The environment of daemons on a simulator of one chain."""
    with tempfile.TemporaryDirectory(prefix="moonxd-bench-") as folder:
        file = Path(folder) / "simulator.env"
        environ = {"PATH": os.environ["PATH"], "HOME": folder}
        simulate = ["simulate", "--port", "0", "--env-file", str(file), "--latency-ms", str(latency_ms)]
        with child(simulate, environ):
            sim = read_env(file)
            kept = {name: value for name, value in sim.items() if not name.endswith("_RPC_URL") or "BASE" in name}
            yield {**environ, **kept, "ENABLED_CHAINS": "base"}


if __name__ == "__main__":
    main()
