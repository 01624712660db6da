"""How operations end, what the janitor closes, and what is kept of jobs that failed for good: every ledger alike."""

from __future__ import annotations

from decimal import Decimal

import pytest

from moonxd.domain.errors import LeaseLost
from moonxd.domain.ledger import Admitted
from tests.conformance.conftest import Opener
from tests.conformance.ledger_data import (
    WholeLedger,
    admission,
    admitted,
    change,
    ending,
    event,
    holding,
    letter,
    new_wallet,
    synced,
)

# ---- endings, counters, audit --------------------------------------------------------------------------------------


async def test_an_operation_goes_from_pending_over_running_to_completed(ledger: WholeLedger, wallet: str) -> None:
    ask = admission(wallet, metadata={"chainIds": [1, 137]})
    lease = await admitted(ledger, ask)
    (running,) = await ledger.operations(wallet=wallet)
    assert (running.status, running.retry_count, running.worker_id) == ("running", 0, "worker-1")
    assert running.started_at is not None
    assert running.started_at.tzinfo is not None

    await ledger.close(ending(lease, "retrying", "the RPC endpoint was away"))
    (pending,) = await ledger.operations(wallet=wallet)
    assert (pending.status, pending.retry_count, pending.error) == ("pending", 1, "the RPC endpoint was away")
    assert pending.completed_at is None

    lease = await admitted(ledger, admission(wallet, metadata={"chainIds": [1, 137]}, attempt=2))
    await ledger.commit(change(lease, [holding(1)], metadata={"heights": {"1": [5, 5]}}, chains_synced=2))
    (done,) = await ledger.operations(wallet=wallet)
    assert (done.status, done.retry_count, done.error, done.duration_ms) == ("completed", 1, None, 100)
    assert (done.tokens_synced, done.chains_synced, done.total_value_usd) == (1, 2, Decimal("3.5"))
    assert done.metadata["chainIds"] == [1, 137]
    assert done.metadata["heights"] == {"1": [5, 5]}
    assert done.completed_at is not None
    assert done.id == ask.operation


async def test_an_ending_frees_the_wallet(ledger: WholeLedger, wallet: str) -> None:
    for number, status in enumerate(("retrying", "failed", "cancelled", "released")):
        lease = await admitted(ledger, admission(wallet, job=str(number)))
        await ledger.close(ending(lease, status))
    assert isinstance(await ledger.admit(admission(wallet, job="last")), Admitted)


@pytest.mark.parametrize(
    ("status", "stored", "retries"),
    [("retrying", "pending", 1), ("failed", "failed", 0), ("cancelled", "cancelled", 0), ("released", "pending", 0)],
)
async def test_each_ending_has_its_status(
    ledger: WholeLedger, wallet: str, status: str, stored: str, retries: int
) -> None:
    lease = await admitted(ledger, admission(wallet))
    await ledger.close(ending(lease, status))
    (operation,) = await ledger.operations(wallet=wallet)
    assert (operation.status, operation.retry_count) == (stored, retries)
    assert (operation.completed_at is None) == (stored == "pending")


async def test_repeating_an_ending_changes_nothing(ledger: WholeLedger, wallet: str) -> None:
    lease = await admitted(ledger, admission(wallet))
    last = ending(lease, "retrying", events=(event(wallet, "sync.retrying"),))
    await ledger.close(last)
    await ledger.close(last)
    (operation,) = await ledger.operations(wallet=wallet)
    assert operation.retry_count == 1
    assert await ledger.backlog() == 1


async def test_a_requeued_job_reopens_its_operation(ledger: WholeLedger, wallet: str) -> None:
    for attempt in (1, 2):
        lease = await admitted(ledger, admission(wallet, attempt=attempt))
        await ledger.close(ending(lease, "retrying"))
    lease = await admitted(ledger, admission(wallet, attempt=3))
    await ledger.close(ending(lease, "failed"))
    lease = await admitted(ledger, admission(wallet, attempt=1))
    (operation,) = await ledger.operations(wallet=wallet)
    assert (operation.status, operation.retry_count, operation.completed_at) == ("running", 0, None)
    await ledger.commit(change(lease, [holding(1)]))
    (operation,) = await ledger.operations(wallet=wallet)
    assert operation.status == "completed"


async def test_a_job_id_added_again_after_trimming_is_a_new_operation(ledger: WholeLedger, wallet: str) -> None:
    first = await admitted(ledger, admission(wallet, job="custom", timestamp=1000))
    await ledger.commit(change(first, [holding(1)]))
    second = await admitted(ledger, admission(wallet, job="custom", timestamp=2000))
    await ledger.commit(change(second, [holding(1, raw=5)]))
    assert len(await ledger.operations(wallet=wallet)) == 2


async def test_a_fresh_queue_on_an_old_ledger_syncs(open_ledger: Opener, wallet: str) -> None:
    async with open_ledger() as ledger:
        lease = await admitted(ledger, admission(wallet, job="1", timestamp=1000))
        await ledger.commit(change(lease, [holding(1)]))
        # Automatic ids restart at 1 on a new Redis; the time of adding does not.
        again = await admitted(ledger, admission(wallet, job="1", timestamp=5000))
        await ledger.commit(change(again, [holding(2)]))
        (view,) = await ledger.portfolio(wallet)
        assert len(view.holdings) == 2


async def test_last_error_and_status_are_told(ledger: WholeLedger, wallet: str) -> None:
    lease = await admitted(ledger, admission(wallet))
    await ledger.close(ending(lease, "failed", "every chain was away"))
    (view,) = await ledger.portfolio(wallet)
    assert (view.sync_status, view.last_error, view.last_sync_at) == ("failed", "every chain was away", None)
    await synced(ledger, wallet, [holding(1)])
    (view,) = await ledger.portfolio(wallet)
    assert (view.sync_status, view.last_error) == ("completed", None)
    assert view.last_sync_at is not None


async def test_operations_are_filtered_and_newest_first(ledger: WholeLedger) -> None:
    one, two = new_wallet(), new_wallet()
    for number in range(3):
        lease = await admitted(ledger, admission(one, job=str(number)))
        await ledger.close(ending(lease, "failed"))
    await admitted(ledger, admission(two, job="x", user="user-2"))
    newest = await ledger.operations(wallet=one)
    assert [op.metadata["jobId"] for op in newest] == ["2", "1", "0"]
    assert len(await ledger.operations(wallet=one, limit=2)) == 2
    assert [op.wallet for op in await ledger.operations(user_id="user-2")] == [two]
    assert [op.wallet for op in await ledger.operations(status="running")] == [two]
    assert await ledger.operations(user_id="nobody") == ()


# ---- the janitor ---------------------------------------------------------------------------------------------------


async def test_the_sweep_closes_what_a_dead_worker_left(ledger: WholeLedger, wallet: str) -> None:
    await admitted(ledger, admission(wallet, lease_s=0.0))
    alive = new_wallet()
    await admitted(ledger, admission(alive))
    assert await ledger.sweep(60.0) == 0
    assert await ledger.sweep(0.0) == 1
    assert await ledger.sweep(0.0) == 0
    (operation,) = await ledger.operations(wallet=wallet)
    assert operation.status == "failed"
    assert operation.error is not None
    assert "janitor" in operation.error
    assert [op.status for op in await ledger.operations(wallet=alive)] == ["running"]


async def test_the_sweep_closes_an_operation_that_was_overtaken(ledger: WholeLedger, wallet: str) -> None:
    stale = await admitted(ledger, admission(wallet, job="1", lease_s=0.0))
    await admitted(ledger, admission(wallet, job="2"))
    assert await ledger.sweep(0.0) == 1
    statuses = {op.id: op.status for op in await ledger.operations(wallet=wallet)}
    assert statuses.pop(stale.operation) == "failed"
    assert set(statuses.values()) == {"running"}


async def test_a_swept_attempt_writes_nothing_more(ledger: WholeLedger, wallet: str) -> None:
    lease = await admitted(ledger, admission(wallet, lease_s=0.0))
    await ledger.sweep(0.0)
    with pytest.raises(LeaseLost):
        await ledger.commit(change(lease, [holding(1)]))
    # The redelivered job goes on where it was.
    again = await admitted(ledger, admission(wallet))
    await ledger.commit(change(again, [holding(1)]))


# ---- dead letters --------------------------------------------------------------------------------------------------


async def test_a_dead_letter_survives_in_every_detail(ledger: WholeLedger) -> None:
    kept = letter("7", data=b'{"bad": "\xff\x00"}', options={"nested": {"a": [1, None]}}, user_id="u", wallet="w")
    await ledger.bury(kept)
    assert await ledger.letter("sync-jobs", "7") == kept
    assert await ledger.letter("sync-jobs", "8") is None
    assert await ledger.letter("other", "7") is None


async def test_burying_again_overwrites(ledger: WholeLedger) -> None:
    await ledger.bury(letter("7"))
    await ledger.bury(letter("7", reason="worse\0", attempts_made=3))
    found = await ledger.letter("sync-jobs", "7")
    assert found is not None
    assert (found.reason, found.attempts_made) == ("worse", 3)


async def test_letters_are_listed_newest_first_and_exhumed(ledger: WholeLedger) -> None:
    for number in range(5):
        await ledger.bury(letter(str(number), failed_at=1000 + number))
    assert [one.job_id for one in await ledger.letters("sync-jobs", limit=3)] == ["4", "3", "2"]
    assert await ledger.exhume("sync-jobs", ["0", "4", "nope"]) == 2
    assert [one.job_id for one in await ledger.letters("sync-jobs")] == ["3", "2", "1"]
    assert await ledger.letters("other") == ()
    assert await ledger.exhume("sync-jobs", []) == 0
