"""Our worker beside npm bullmq's and PyPI bullmq's on no-op jobs, in one run, and what Redis itself could do.

    python -m benchmarks.queue --jobs 100000 --concurrency 50 --rounds 5 --json

Every contender is one long-lived process that is warmed up first (Node's compiler needs it) and works with its full
semantics: locks and their renewal, stalled check, events, retries ready. In each round every contender drains a queue
that was filled before (the Python port a tenth of it) and then, idle, picks up single jobs that come 8 ms apart. Rounds
are interleaved and start with another contender each; ratios are taken within a round, since machines drift.
The ceiling is the official scripts as a prebuilt pipelined stream. CPU is that of the worker's process.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from benchmarks import queue_ceiling
from benchmarks.stats import Spread, nearest_rank, ratios, spread
from moonxd.adapters.bullmq.queue import BullQueue
from moonxd.adapters.redis.binary import find_binary
from moonxd.adapters.redis.client import Redis, open_redis, parse_redis_url
from moonxd.domain.job import JobOptions, NewJob

_ROOT = Path(__file__).parents[1]
_NODE_FOLDER = _ROOT / "tests" / "node"
_PAGE = 1000
_GAP_S = 0.008


class Sample(msgspec.Struct):
    """One contender in one round."""

    jobs_per_s: float
    cpu_us_per_job: float
    rss_mb: float
    pickup_p50_ms: float
    pickup_p99_ms: float


class Contender:
    """A worker process under our command."""

    def __init__(self, name: str, command: list[str], share: float = 1.0) -> None:
        self.name = name
        self.share = share
        self.samples: list[Sample] = []
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_ROOT, text=True)

    def tell(self, **command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"contender {self.name} ended with {self._process.wait()}")
        heard: dict[str, Any] = json.loads(line)
        return heard

    @property
    def rss_mb(self) -> float:
        """Highest resident memory so far."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        return 0.0

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def running_redis(binary: str, *, appendonly: bool) -> Iterator[int]:
    """The port of a redis-server of its own."""
    folder = tempfile.mkdtemp(prefix="moonxd-bench-")
    port = _free_port()
    options = ["--port", str(port), "--dir", folder, "--save", "", "--appendonly", "yes" if appendonly else "no"]
    process = subprocess.Popen([binary, "--bind", "127.0.0.1", *options], stdout=subprocess.DEVNULL)
    try:
        _await_listening(port)
        yield port
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await_listening(port: int) -> None:
    give_up = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.01)


async def fill(redis: Redis, name: str, jobs: int) -> int:
    """Empty Redis and put `jobs` no-op jobs into queue `name`; the first one's id."""
    await redis.call("FLUSHALL")
    queue = BullQueue(redis, name, worker_name="producer", defaults=JobOptions(attempts=1))
    first = 0
    for at in range(0, jobs, _PAGE):
        ids = await queue.add([NewJob(name="noop", data={"n": n}) for n in range(at, min(at + _PAGE, jobs))])
        first = first or int(ids[0])
    return first


async def drain(redis: Redis, contender: Contender, jobs: int, concurrency: int) -> tuple[float, float]:
    """Jobs per second, and microseconds of the worker's CPU per job."""
    count = max(1000, int(jobs * contender.share))
    await fill(redis, "drain", count)
    contender.tell(do="drain", queue="drain", jobs=count, concurrency=concurrency)
    heard = contender.hear()
    return count / heard["seconds"], heard["cpu"] / count * 1e6


async def pickup(redis: Redis, contender: Contender, jobs: int, concurrency: int) -> tuple[float, float]:
    """p50 and p99 of milliseconds from just before a job is added until its handler runs, the worker being idle."""
    await redis.call("FLUSHALL")
    queue = BullQueue(redis, "idle", worker_name="producer", defaults=JobOptions(attempts=1))
    contender.tell(do="pickup", queue="idle", jobs=jobs, concurrency=concurrency)
    contender.hear()
    await trio.sleep(0.2)
    for _ in range(jobs):
        await queue.add([NewJob(name="noop", data={"sent": time.time() * 1000})])
        await trio.sleep(_GAP_S)
    latencies = contender.hear()["latencies"]
    return nearest_rank(latencies, 0.5), nearest_rank(latencies, 0.99)


async def measure(redis: Redis, contenders: list[Contender], port: int, args: argparse.Namespace) -> list[float]:
    """Fill every contender's samples; the ceiling's jobs per second, one per round."""
    for contender in contenders:
        await drain(redis, contender, args.warm_up, args.concurrency)
        await pickup(redis, contender, 50, args.concurrency)
    ceilings: list[float] = []
    for number in range(args.rounds):
        turn = number % len(contenders)
        for contender in contenders[turn:] + contenders[:turn]:
            per_s, cpu_us = await drain(redis, contender, args.jobs, args.concurrency)
            p50, p99 = await pickup(redis, contender, args.pickups, args.concurrency)
            contender.samples.append(Sample(per_s, cpu_us, contender.rss_mb, p50, p99))
        first = await fill(redis, "ceiling", args.jobs)
        ceilings.append(args.jobs / queue_ceiling.drain(port, "ceiling", first, args.jobs))
    return ceilings


def report(contenders: list[Contender], ceilings: list[float], args: argparse.Namespace) -> dict[str, Any]:
    def column(contender: Contender, field: str) -> list[float]:
        return [getattr(sample, field) for sample in contender.samples]

    fields = Sample.__struct_fields__
    told: dict[str, Any] = {
        "jobs": args.jobs,
        "concurrency": args.concurrency,
        "rounds": args.rounds,
        "appendonly": args.appendonly,
        "contenders": {c.name: {field: spread(column(c, field), 3) for field in fields} for c in contenders},
        "ceiling_jobs_per_s": spread(ceilings, 0),
    }
    ours, *others = contenders
    found: dict[str, Spread] = {}
    for other in others:
        for field in ("jobs_per_s", "cpu_us_per_job", "pickup_p99_ms"):
            found[f"{field}: moonxd / {other.name}"] = ratios(column(ours, field), column(other, field))
    found["jobs_per_s: moonxd / ceiling"] = ratios(column(ours, "jobs_per_s"), ceilings)
    told["ratios"] = found
    return told


def show(told: dict[str, Any]) -> None:
    print(f"{told['jobs']} jobs, concurrency {told['concurrency']}, {told['rounds']} rounds: median [low-high]")
    for name, row in told["contenders"].items():
        print(name)
        for field, value in row.items():
            print(f"  {field:<16} {value}")
    print(f"ceiling of Redis   {told['ceiling_jobs_per_s']} jobs/s")
    for name, value in told["ratios"].items():
        print(f"{name:<45} {value}")


async def main(args: argparse.Namespace) -> None:
    binary, _ = await find_binary(args.redis)
    node = shutil.which("node")
    with running_redis(binary, appendonly=args.appendonly) as port:
        url = f"redis://127.0.0.1:{port}/0"
        contenders = [Contender("moonxd", [sys.executable, "-m", "benchmarks.queue_ours", url])]
        if node is not None and "node" in args.against:
            script = ["benchmarks/queue_node.mjs", str(_NODE_FOLDER), args.package, "127.0.0.1", str(port)]
            contenders.append(Contender("node", [node, *script]))
        if "python" in args.against:
            contenders.append(Contender("python", [sys.executable, "-m", "benchmarks.queue_python", url], share=0.1))
        try:
            async with open_redis(parse_redis_url(url, command_timeout_s=60.0)) as redis:
                await redis.wait_connected()
                ceilings = await measure(redis, contenders, port, args)
        finally:
            for contender in contenders:
                contender.end()
    told = report(contenders, ceilings, args)
    print(msgspec.json.encode(told).decode()) if args.json else show(told)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000, help="jobs per drain")
    parser.add_argument("--concurrency", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=20_000, help="jobs every contender drains before it counts")
    parser.add_argument("--pickups", type=int, default=300, help="single jobs per round for the pick-up latency")
    parser.add_argument("--against", default="node,python", help="comma-separated: node, python")
    parser.add_argument("--package", default="bullmq6", help="which npm package of tests/node: bullmq6 or bullmq5")
    parser.add_argument("--redis", default=None, help="path of the redis-server to use")
    parser.add_argument("--appendonly", action="store_true", help="with the append-only file (everysec)")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    trio.run(main, arguments())
