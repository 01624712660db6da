"""The ledger while its server is restarted and killed under load: every job commits once, in effect."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable

import psycopg
import pytest
import trio

from moonxd.adapters.postgres import connection as connection_module
from moonxd.adapters.postgres import ledger as module
from moonxd.adapters.postgres.ledger import PostgresLedger, open_postgres_ledger
from moonxd.adapters.postgres.migrate import migrate
from moonxd.domain.errors import Transient
from moonxd.domain.ledger import Admitted, AlreadyCommitted
from tests.conformance.ledger_data import admission, admitted, change, event, holding, lease_of, new_wallet
from tests.services.postgres import PostgresServer

pytestmark = [pytest.mark.postgres, pytest.mark.chaos]
#: What is told to be committed must survive a killed server, so commits wait for the log here.
DURABLE = ("synchronous_commit=on",)
JOBS = 60
WORKERS = 8


async def redeliver(ledger: PostgresLedger, wallet: str, job: int, tally: Counter[str]) -> None:
    """One job as the queue would deliver it: again and again until it is done."""
    ask = admission(wallet, job=str(job), user=f"user-{job % 3}")
    done = event(wallet)
    while True:
        try:
            answer = await ledger.admit(ask)
            if isinstance(answer, AlreadyCommitted):
                tally["answered from the ledger"] += 1
                return
            if isinstance(answer, Admitted):
                lease = lease_of(ask, answer.fence)
                await ledger.commit(change(lease, [holding(1, raw=job + 1)], events=(done,)))
                tally["committed"] += 1
                return
        except Transient:
            tally["tried again"] += 1
        await trio.sleep(0.005)


async def under_load(server: PostgresServer, disturb: Callable[[], Awaitable[None]]) -> Counter[str]:
    tally: Counter[str] = Counter()
    wallets = [new_wallet() for _ in range(10)]
    jobs = iter(range(JOBS * WORKERS))

    async def worker() -> None:
        for job in jobs:
            await redeliver(ledger, wallets[job % len(wallets)], job, tally)

    async with open_postgres_ledger(server.dsn, wait_s=5.0) as ledger:
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(worker)
            await disturb()
        assert await ledger.backlog() == JOBS * WORKERS
    with psycopg.connect(server.dsn) as connection:
        rows = connection.execute("SELECT status, count(*) FROM sync_operations GROUP BY 1").fetchall()
        assert rows == [("completed", JOBS * WORKERS)]
        counted = connection.execute("SELECT sum(total_syncs), sum(successful_syncs) FROM user_sync_status").fetchone()
        assert counted == (JOBS * WORKERS, JOBS * WORKERS)
        assert connection.execute(
            "SELECT count(*) FROM moonxd_wallets WHERE lease_operation IS NOT NULL"
        ).fetchone() == (0,)
    return tally


async def test_the_server_is_restarted_under_load(start_postgres: Callable[..., PostgresServer]) -> None:
    server = start_postgres(DURABLE)
    await migrate(server.dsn)

    async def disturb() -> None:
        for _ in range(3):
            await trio.sleep(0.15)
            server.restart()

    tally = await under_load(server, disturb)
    assert tally["committed"] + tally["answered from the ledger"] == JOBS * WORKERS


async def test_the_server_is_killed_under_load(start_postgres: Callable[..., PostgresServer]) -> None:
    server = start_postgres(DURABLE)
    await migrate(server.dsn)

    async def disturb() -> None:
        for _ in range(2):
            await trio.sleep(0.2)
            server.kill()
            server.start()

    await under_load(server, disturb)


async def test_backends_are_terminated_under_load(start_postgres: Callable[..., PostgresServer]) -> None:
    server = start_postgres(DURABLE)
    await migrate(server.dsn)

    async def disturb() -> None:
        for _ in range(15):
            await trio.sleep(0.03)
            server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'moonxd'")

    tally = await under_load(server, disturb)
    assert tally["tried again"] > 0


async def test_a_commit_without_an_answer_is_unknown_and_the_retry_finds_out(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CALL_S", 0.3)
    monkeypatch.setattr(connection_module, "GRACE_S", 0.5)
    wallet = new_wallet()
    async with open_postgres_ledger(postgres_dsn, min_size=1, max_size=1) as ledger:
        lease = await admitted(ledger, admission(wallet))
        async with ledger._pool.connection() as connection:
            pid = connection.info.backend_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(Transient, match=r"outcome is unknown|failed while committing"):
                await ledger.commit(change(lease, [holding(1)]))
        finally:
            os.kill(pid, signal.SIGCONT)
        monkeypatch.setattr(module, "CALL_S", 10.0)
        answer = await ledger.admit(admission(wallet))
        assert isinstance(answer, Admitted | AlreadyCommitted)
        (operation,) = await ledger.operations(wallet=wallet)
        assert operation.status == ("completed" if isinstance(answer, AlreadyCommitted) else "running")
