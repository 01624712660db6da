"""`python -m benchmarks [NAME ...] [--list]`: every benchmark, or those named, one after the other."""

from __future__ import annotations

import argparse
import subprocess
import sys

#: Each is a module here with its own options and `--json`.
BENCHMARKS = {
    "chainstats": "a round of chain statistics beside its slowest probe",
    "cluster": "how work scales with worker processes, and how fast a running job is cancelled",
    "hedge": "the tail of reads with and without a second request to another endpoint",
    "kafka": "messages through the sink beside plain aiokafka",
    "live": "two thousand browsers on the live feed: memory of each, from commit to page",
    "queue": "no-op jobs beside npm's and PyPI's workers, and Redis' own ceiling",
    "relay": "events from the outbox to a real Kafka: a backlog, and how late they are (needs `make kafka`)",
    "relay_syncs": "how late events are while wallets are synced at full speed, and syncs without a broker",
    "rpc": "CPU per JSON-RPC request beside httpx",
    "sync": "a whole wallet sync: overhead, throughput, memory, start, steps of the event loop",
    "scheduler": "a million registered wallets, 50,000 of them due; manual jobs behind stale ones",
    "tui": "the live view",
    "verify": "comparing queue, ledger and outbox of 100,000 syncs: seconds and memory",
    "users": "what the rate limit and the breaker of users cost, and that they are exact",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run the benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default all")
    parser.add_argument("--list", action="store_true", help="say what there is")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}: use one of {', '.join(BENCHMARKS)}")
    if given.list:
        for name, what in BENCHMARKS.items():
            print(f"{name:12}{what}")
        return 0
    # A process each: what one leaves in memory must not weigh on the next.
    codes = [_run(name) for name in given.names or BENCHMARKS]
    return max(codes)


def _run(name: str) -> int:
    print(f"== {name}: {BENCHMARKS[name]}", flush=True)
    return subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
