"""The rate limit with several worker processes on one PostgreSQL: exact, whoever asks first."""

from __future__ import annotations

import subprocess
import sys
from uuid import uuid4

import pytest
import trio

from moonxd.adapters.postgres.ledger import open_postgres_ledger
from moonxd.domain.guard import Window
from moonxd.domain.ledger import RateLimited
from tests.conformance.ledger_data import admission, new_wallet

pytestmark = pytest.mark.postgres

#: One worker: all its requests at once over a pool of its own, once everybody is there.
WORKER = """
import sys
import trio
from moonxd.adapters.postgres.ledger import open_postgres_ledger
from moonxd.domain.guard import Window
from moonxd.domain.ledger import Admitted
from tests.conformance.ledger_data import address, admission, change, lease_of

dsn, user, first, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
admitted = []

async def one(ledger, wallet, number):
    ask = admission(wallet, job=str(number), user=user, counted=True, window=Window(most=5))
    # Delivered twice, as after a lost answer.
    for _ in range(2):
        answer = await ledger.admit(ask)
    if isinstance(answer, Admitted):
        await ledger.commit(change(lease_of(ask, answer.fence)))
        admitted.append(wallet)

async def main():
    async with open_postgres_ledger(dsn, min_size=4, max_size=8, wait_s=60) as ledger:
        await ledger.ping()
        print("ready", flush=True)
        sys.stdin.readline()
        async with trio.open_nursery() as nursery:
            for number in range(first, first + count):
                nursery.start_soon(one, ledger, address(0xFEED0000 + number), number)
    print(len(admitted), flush=True)

trio.run(main)
"""


@pytest.mark.slow
def test_four_workers_admit_exactly_five_of_two_hundred(postgres_dsn: str) -> None:
    user = f"user-{uuid4()}"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, postgres_dsn, user, str(number * 50), "50"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        counts = [int(worker.communicate(timeout=120)[0]) for worker in _started(workers)]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert sum(counts) == 5
    trio.run(_assert_full, postgres_dsn, user)


async def _assert_full(dsn: str, user: str) -> None:
    async with open_postgres_ledger(dsn) as ledger:
        assert len(await ledger.operations(user_id=user, limit=500)) == 5
        answer = await ledger.admit(admission(new_wallet(), user=user, counted=True, window=Window(most=5)))
        assert isinstance(answer, RateLimited)


def _started(workers: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    """All of them let go at the same moment."""
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    return workers
