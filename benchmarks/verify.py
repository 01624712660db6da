"""How long `moonxd verify` takes and what memory it needs, per operation: 100,000 completed syncs on SQLite."""

from __future__ import annotations

import argparse
import json
import resource
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio

from moonxd.adapters.memory.queue import MemoryQueue
from moonxd.adapters.scratch import open_scratch
from moonxd.adapters.sqlite.database import open_file
from moonxd.adapters.sqlite.records import open_sqlite_records
from moonxd.adapters.sqlite.rows import time_text
from moonxd.domain import event
from moonxd.domain.job import Job, JobOptions
from moonxd.domain.ledger import Event, Retention
from moonxd.domain.operation import operation_id
from moonxd.domain.payload import WalletSync
from moonxd.domain.verify import Claim, Report
from moonxd.verifying import Plan, Stores, verify

_AT = 1_700_000_000


def story(number: int) -> tuple[tuple[Any, ...], list[Event]]:
    """The row and the events of one sync."""
    job = Job(queue="q", id=f"job-{number}", name="portfolio-sync", data=b"{}", options=JobOptions(), timestamp=number)
    task = WalletSync(user_id=f"user-{number % 1000}", wallet=f"0x{number % 50_000:040x}")
    operation = operation_id(job.queue, job.id, job.timestamp)
    about = event.Subject(operation=operation, user_id=task.user_id, wallet=task.wallet, version="1", at_ms=number)
    result = {"processingTime": 5, "tokensSync": 0, "chainsSync": 6, "success": True}
    events = [
        event.queued(job, task, "1"),
        event.started(about, task, job=job, attempts=3, chains=(1,), worker_id="w"),
        event.completed(about, result=result, total_value_usd=0, tokens_total=0),  # type: ignore[arg-type]
    ]
    at = time_text(_AT)
    said = json.dumps({"queue": "q", "jobId": job.id, "fence": 1, "result": result})
    row = (str(operation), task.user_id, task.wallet, task.sync_type, task.priority, at, at, 6, "0", "w", said, at, at)
    return row, events


def fill(db: sqlite3.Connection, syncs: int) -> None:
    db.execute("BEGIN")
    for row, events in map(story, range(syncs)):
        db.execute(
            "INSERT INTO sync_operations (id, user_id, wallet_address, type, status, priority, started_at, "
            "completed_at, duration_ms, chains_synced, total_value_usd, worker_id, metadata, created_at, updated_at) "
            "VALUES (?, ?, ?, ?, 'completed', ?, ?, ?, 5, ?, ?, ?, ?, ?, ?)",
            row,
        )
        db.executemany(
            "INSERT INTO moonxd_outbox (event_id, event_type, topic, event_key, wallet_address, body, created_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(str(e.id), e.type, e.topic, e.key, e.wallet, e.body.decode(), row[5]) for e in events],
        )
    db.execute("COMMIT")


async def measure(path: Path, syncs: int) -> Report:
    def claims() -> Iterator[Claim]:
        return (Claim(job_id=f"job-{number}", timestamp=number) for number in range(syncs))

    plan = Plan(queue="q", keep=Retention(), places={}, claims=claims)
    async with open_sqlite_records(path) as records, open_scratch(256) as scratch:
        return await verify(Stores(queue=MemoryQueue("q"), records=records, scratch=scratch), plan)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--syncs", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "moonxd.db"
        db = open_file(path)
        fill(db, given.syncs)
        db.close()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        report = trio.run(measure, path, given.syncs)
        took = time.perf_counter() - began
    assert report.ok, report.found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = {
        "syncs": given.syncs,
        "seconds": round(took, 1),
        "operations_per_second": round(given.syncs / took),
        "peak_mb": round(peak / 1024),
        "before_mb": round(before / 1024),
    }
    print(json.dumps(answer) if given.json else "\n".join(f"{name:24}{value}" for name, value in answer.items()))


if __name__ == "__main__":
    main()
