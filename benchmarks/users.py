"""`python -m benchmarks.users`: what a user's limit and breaker cost, and that they are exact and there at once.

On a PostgreSQL of its own: an admission with and without guards, 200 requests of one user at once over four pools, and
the first decision after opening a ledger that holds 100,000 users' states.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from uuid import uuid4

import psycopg
import trio

from moonxd.adapters.postgres.ledger import PostgresLedger, open_postgres_ledger
from moonxd.adapters.postgres.migrate import migrate
from moonxd.domain.guard import Trip, Window
from moonxd.domain.ledger import Admission, Admitted, BreakerOpen

from .postgres import postgres

STATES = 100_000
AT_ONCE = 200
ROUNDS = 5
_PER_ROUND = 200


def ask_for(user: str, number: int, *, window: Window | None = None, breaker: Trip | None = None) -> Admission:
    return Admission(
        operation=uuid4(),
        user_id=user,
        wallet=f"0x{number:040x}",
        sync_type="portfolio",
        priority="high",
        queue="benchmark",
        job_id=str(number),
        attempt=1,
        max_attempts=3,
        worker_id="benchmark",
        worker_version="0",
        lease_s=60.0,
        counted=window is not None,
        window=window,
        breaker=breaker,
    )


async def admission_us(ledger: PostgresLedger, *, guarded: bool) -> float:
    """Microseconds per admission, one after the other, each of a user of its own with some rows."""
    window, breaker = (Window(most=1000), Trip()) if guarded else (None, None)
    users = [str(uuid4()) for _ in range(20)]
    started = time.perf_counter()
    for number in range(_PER_ROUND):
        ask = ask_for(users[number % len(users)], number, window=window, breaker=breaker)
        answer = await ledger.admit(ask)
        assert isinstance(answer, Admitted)
    return (time.perf_counter() - started) / _PER_ROUND * 1e6


async def at_once(dsn: str) -> tuple[int, float]:
    """How many of AT_ONCE simultaneous requests of one user were admitted, and the milliseconds until all knew."""
    user, admitted = str(uuid4()), 0

    async def one(ledger: PostgresLedger, number: int) -> None:
        nonlocal admitted
        answer = await ledger.admit(ask_for(user, number, window=Window()))
        admitted += isinstance(answer, Admitted)

    async with AsyncExitStack() as stack:
        pools = [await stack.enter_async_context(open_postgres_ledger(dsn, max_size=8, wait_s=60.0)) for _ in range(4)]
        for pool in pools:
            await pool.ping()
        started = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for number in range(AT_ONCE):
                nursery.start_soon(one, pools[number % 4], number)
        return admitted, (time.perf_counter() - started) * 1000


def fill(dsn: str) -> None:
    """STATES users whose breaker is open."""
    with psycopg.connect(dsn, autocommit=True) as database:
        database.execute(
            b"INSERT INTO user_sync_status (user_id, wallet_address, consecutive_failures, last_error_at) "
            b"SELECT 'state-' || n, '0x0', 5, clock_timestamp() + interval '1 hour' FROM generate_series(1, %d) n"
            % STATES
        )
        database.execute(b"ANALYZE")


async def first_decision_ms(dsn: str) -> float:
    """From opening the ledger to the first answer about one of the open breakers."""
    started = time.perf_counter()
    async with open_postgres_ledger(dsn, min_size=1) as ledger:
        answer = await ledger.admit(ask_for(f"state-{STATES // 2}", 0, breaker=Trip()))
        took = (time.perf_counter() - started) * 1000
    assert isinstance(answer, BreakerOpen)
    return took


async def measure(dsn: str) -> dict[str, object]:
    await migrate(dsn)
    async with open_postgres_ledger(dsn) as ledger:
        plain, guarded = [], []
        for _ in range(ROUNDS):
            plain.append(await admission_us(ledger, guarded=False))
            guarded.append(await admission_us(ledger, guarded=True))
    crowds = [await at_once(dsn) for _ in range(ROUNDS)]
    fill(dsn)
    starts = [await first_decision_ms(dsn) for _ in range(ROUNDS)]
    return {
        "admission_us": _three(plain),
        "guarded_admission_us": _three(guarded),
        "admitted_of_200": sorted({admitted for admitted, _ in crowds}),
        "200_at_once_ms": _three([took for _, took in crowds]),
        "first_decision_among_100000_ms": _three(starts),
    }


def _three(values: list[float]) -> list[float]:
    """Median, lowest, highest."""
    return [round(median(values), 1), round(min(values), 1), round(max(values), 1)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.users", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with postgres(Path(folder) / "postgres") as server:
            found = trio.run(measure, server.create("users"))
    if given.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:36}{value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
