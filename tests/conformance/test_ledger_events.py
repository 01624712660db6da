"""Events in commit order, and the truth about calls that were cancelled: every ledger alike."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
import trio

from moonxd.domain.ledger import Admitted, Busy
from tests.conformance.ledger_data import (
    WholeLedger,
    admission,
    admitted,
    change,
    event,
    holding,
    lease_of,
    new_wallet,
)

# ---- the outbox ----------------------------------------------------------------------------------------------------


async def test_events_come_in_commit_order_and_unchanged(ledger: WholeLedger, wallet: str) -> None:
    written = []
    for _ in range(3):
        started, updated, done = (
            event(wallet, kind) for kind in ("sync.started", "portfolio.updated", "sync.completed")
        )
        lease = await admitted(ledger, admission(wallet, job=str(uuid4()), events=(started,)))
        await ledger.commit(change(lease, [holding(1)], events=(updated, done)))
        written += [started, updated, done]
    stored = await ledger.read(0, 100)
    assert [one.event for one in stored] == written
    positions = [one.position for one in stored]
    assert positions == sorted(set(positions))
    assert await ledger.backlog() == 9
    assert [one.event for one in await ledger.read(positions[6], 100)] == written[7:]
    assert [one.event for one in await ledger.read(0, 2)] == written[:2]
    assert all(one.published_at is None for one in stored)


async def test_an_event_told_again_is_kept_once(ledger: WholeLedger, wallet: str) -> None:
    started = event(wallet, "sync.started")
    await admitted(ledger, admission(wallet, events=(started,)))
    await admitted(ledger, admission(wallet, events=(started,)))
    assert [one.event for one in await ledger.read(0, 10)] == [started]


async def test_a_failing_commit_writes_neither_rows_nor_events(ledger: WholeLedger, wallet: str) -> None:
    lease = await admitted(ledger, admission(wallet))
    broken: dict[str, Any] = {"snapshot": (holding(1),), "snapshot_type": "no such type"}
    with pytest.raises(Exception, match=r"(?i)check|refused"):
        await ledger.commit(change(lease, [holding(1)], events=(event(wallet),), **broken))
    assert await ledger.backlog() == 0
    assert [view for view in await ledger.portfolio(wallet) if view.holdings] == []
    await ledger.commit(change(lease, [holding(1)], events=(event(wallet),)))
    assert await ledger.backlog() == 1


async def test_no_reader_steps_over_an_event(ledger: WholeLedger) -> None:
    """Readers with a cursor see every event, and those of one wallet in order, while many writers commit."""
    wallets = [new_wallet() for _ in range(8)]
    seen: list[tuple[str, str]] = []
    done = trio.Event()

    async def write(wallet: str) -> None:
        for number in range(10):
            lease = await admitted(ledger, admission(wallet, job=str(number)))
            await ledger.commit(change(lease, [holding(number)], events=(event(wallet, str(number)),)))

    async def follow() -> None:
        position = 0
        while True:
            is_last = done.is_set()
            page = await ledger.read(position, 7)
            seen.extend((one.event.wallet, one.event.type) for one in page)
            position = page[-1].position if page else position
            if not page and is_last:
                return
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as readers:
        readers.start_soon(follow)
        async with trio.open_nursery() as writers:
            for wallet in wallets:
                writers.start_soon(write, wallet)
        done.set()
    for wallet in wallets:
        assert [kind for owner, kind in seen if owner == wallet] == [str(n) for n in range(10)]
    assert len(seen) == 80


# ---- being cancelled -----------------------------------------------------------------------------------------------


async def test_it_answers(ledger: WholeLedger) -> None:
    await ledger.ping()


async def test_a_cancelled_scope_writes_nothing(ledger: WholeLedger, wallet: str) -> None:
    lease = await admitted(ledger, admission(wallet))
    with trio.CancelScope() as scope:
        scope.cancel()
        await ledger.commit(change(lease, [holding(1)]))
    assert scope.cancelled_caught
    assert [op.status for op in await ledger.operations(wallet=wallet)] == ["running"]


async def test_what_was_reported_as_cancelled_was_not_written(ledger: WholeLedger) -> None:
    """Commits cancelled at every moment of their way: each one either returned or left nothing."""
    truth: dict[str, bool] = {}

    async def one(wallet: str, after: float) -> None:
        lease = await admitted(ledger, admission(wallet))
        truth[wallet] = False
        with trio.move_on_after(after):
            await ledger.commit(change(lease, [holding(1)], events=(event(wallet),)))
            truth[wallet] = True

    for burst in range(5):
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(one, new_wallet(), 0.0002 * number * (burst + 1))
    for wallet, is_written in truth.items():
        (operation,) = await ledger.operations(wallet=wallet)
        assert (operation.status == "completed") == is_written
        assert bool([view for view in await ledger.portfolio(wallet) if view.holdings]) == is_written
    assert await ledger.backlog() == sum(truth.values())


async def test_several_workers_meet_on_one_wallet(ledger: WholeLedger, wallet: str) -> None:
    """One admission at a time is let in; nobody fails for any other reason than being late."""
    outcomes: list[str] = []

    async def worker(number: int) -> None:
        for job in range(5):
            ask = admission(wallet, job=f"{number}-{job}")
            answer = await ledger.admit(ask)
            if isinstance(answer, Admitted):
                await ledger.commit(change(lease_of(ask, answer.fence), [holding(number + 1)]))
                outcomes.append("committed")
            else:
                assert isinstance(answer, Busy)
                outcomes.append("busy")

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(worker, number)
    assert outcomes.count("committed") >= 1
    assert len(await ledger.operations(wallet=wallet, limit=100)) == outcomes.count("committed")
