"""What every ledger promises: memory, SQLite and PostgreSQL alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
import trio

from moonxd.domain.errors import LeaseLost
from moonxd.domain.ledger import Admitted, AlreadyCommitted, Busy
from moonxd.domain.token import TokenRef
from tests.conformance.conftest import Opener
from tests.conformance.ledger_data import (
    WholeLedger,
    address,
    admission,
    admitted,
    change,
    ending,
    event,
    holding,
    lease_of,
    letter,
    new_wallet,
    refs,
    synced,
)

# ---- admission, fence, lease ---------------------------------------------------------------------------------------


async def test_a_first_admission_finds_an_empty_wallet(ledger: WholeLedger, wallet: str) -> None:
    answer = await ledger.admit(admission(wallet))
    assert isinstance(answer, Admitted)
    assert (answer.previous, answer.seen, answer.snapshot_at) == ((), (), None)
    assert answer.fence >= 1


async def test_another_operation_is_told_who_holds_the_wallet_and_until_when(ledger: WholeLedger, wallet: str) -> None:
    held = await admitted(ledger, admission(wallet, job="1"))
    answer = await ledger.admit(admission(wallet, job="2"))
    assert isinstance(answer, Busy)
    assert answer.operation == held.operation
    assert timedelta() < answer.until - datetime.now(UTC) <= timedelta(seconds=61)


async def test_a_refused_admission_leaves_no_trace(ledger: WholeLedger, wallet: str) -> None:
    await admitted(ledger, admission(wallet, job="1"))
    await ledger.admit(admission(wallet, job="2", events=(event(wallet),)))
    assert len(await ledger.operations(wallet=wallet)) == 1
    assert await ledger.backlog() == 0


async def test_redelivery_takes_the_lease_over_at_once_with_a_higher_fence(ledger: WholeLedger, wallet: str) -> None:
    first = await admitted(ledger, admission(wallet))
    second = await admitted(ledger, admission(wallet, worker_id="worker-2"))
    assert second.fence > first.fence
    with pytest.raises(LeaseLost, match="nothing was written"):
        await ledger.commit(change(first, [holding(1)], events=(event(wallet),)))
    with pytest.raises(LeaseLost):
        await ledger.close(ending(first, "failed"))
    assert await ledger.backlog() == 0
    await ledger.commit(change(second, [holding(2)]))
    (view,) = await ledger.portfolio(wallet)
    assert refs(view.holdings) == {TokenRef(1, address(2))}


async def test_an_expired_lease_goes_to_whoever_asks(ledger: WholeLedger, wallet: str) -> None:
    stale = await admitted(ledger, admission(wallet, job="1", lease_s=0.0))
    fresh = await admitted(ledger, admission(wallet, job="2"))
    assert fresh.fence > stale.fence
    with pytest.raises(LeaseLost):
        await ledger.commit(change(stale, [holding(1)]))


async def test_an_expired_lease_that_nobody_took_may_still_commit(ledger: WholeLedger, wallet: str) -> None:
    late = await admitted(ledger, admission(wallet, lease_s=0.0))
    await ledger.commit(change(late, [holding(1)]))
    (view,) = await ledger.portfolio(wallet)
    assert len(view.holdings) == 1


async def test_the_fence_grows_over_finished_operations_too(ledger: WholeLedger, wallet: str) -> None:
    fences = [(await synced(ledger, wallet)).fence for _ in range(3)]
    assert fences == sorted(set(fences))


async def test_two_users_of_one_wallet_do_not_block_each_other(ledger: WholeLedger, wallet: str) -> None:
    one = await admitted(ledger, admission(wallet, job="1", user="user-1"))
    two = await admitted(ledger, admission(wallet, job="2", user="user-2"))
    await ledger.commit(change(one, [holding(1)]))
    await ledger.commit(change(two, [holding(2)]))
    views = await ledger.portfolio(wallet)
    assert [view.user_id for view in views] == ["user-1", "user-2"]
    assert [refs(view.holdings) for view in views] == [{TokenRef(1, address(1))}, {TokenRef(1, address(2))}]


async def test_renewal_keeps_ours_and_names_the_lost(ledger: WholeLedger) -> None:
    ours, theirs = new_wallet(), new_wallet()
    kept = await admitted(ledger, admission(ours, lease_s=0.0))
    stale = await admitted(ledger, admission(theirs))
    await admitted(ledger, admission(theirs))
    assert await ledger.renew([kept, stale], 60.0) == (stale.operation,)
    assert isinstance(await ledger.admit(admission(ours, job="2")), Busy)
    assert await ledger.renew([], 60.0) == ()


# ---- the commit ----------------------------------------------------------------------------------------------------


async def test_a_redelivered_operation_is_answered_with_its_result(ledger: WholeLedger, wallet: str) -> None:
    ask = admission(wallet)
    lease = await admitted(ledger, ask)
    result = {"success": True, "tokensSync": 2, "totalValueUsd": "3.5", "chainsFailed": []}
    await ledger.commit(change(lease, [holding(1)], result=result))
    again = await ledger.admit(ask)
    assert again == AlreadyCommitted(result)
    # Even while a later operation holds the wallet.
    await admitted(ledger, admission(wallet, job="2"))
    assert await ledger.admit(ask) == AlreadyCommitted(result)


async def test_repeating_a_commit_after_an_unknown_outcome_changes_nothing(ledger: WholeLedger, wallet: str) -> None:
    lease = await admitted(ledger, admission(wallet))
    commit = change(lease, [holding(1)], events=(event(wallet),))
    await ledger.commit(commit)
    await ledger.commit(commit)
    (operation,) = await ledger.operations(wallet=wallet)
    assert operation.status == "completed"
    assert await ledger.backlog() == 1


async def test_chains_that_failed_keep_their_rows(ledger: WholeLedger, wallet: str) -> None:
    await synced(ledger, wallet, [holding(1, chain=1), holding(2, chain=137)])
    lease = await admitted(ledger, admission(wallet, job="partial"))
    await ledger.commit(
        change(lease, [holding(3, chain=1)], chains=(1,), removed=(TokenRef(1, address(1)),), tokens_count=2)
    )
    (view,) = await ledger.portfolio(wallet)
    assert refs(view.holdings) == {TokenRef(1, address(3)), TokenRef(137, address(2))}


async def test_removed_rows_are_gone_but_never_forgotten(ledger: WholeLedger, wallet: str) -> None:
    await synced(ledger, wallet, [holding(1), holding(2)])
    await synced(ledger, wallet, [], chains=(1,), removed=(TokenRef(1, address(1)),))
    answer = await ledger.admit(admission(wallet, job="next"))
    assert isinstance(answer, Admitted)
    assert refs(answer.previous) == {TokenRef(1, address(2))}
    assert set(answer.seen) == {TokenRef(1, address(1)), TokenRef(1, address(2))}


async def test_a_changed_row_overwrites(ledger: WholeLedger, wallet: str) -> None:
    await synced(ledger, wallet, [holding(1, raw=10**18)])
    newer = holding(1, raw=7, price=None, symbol="NEW", is_spam=True, logo="https://logo.example/x.png")
    await synced(ledger, wallet, [newer])
    (view,) = await ledger.portfolio(wallet)
    assert view.holdings == (newer,)


async def test_rows_come_back_as_they_went_in(ledger: WholeLedger, wallet: str) -> None:
    rows = (
        holding(1, said={"source": "alchemy", "nested": {"list": [1, "two", None]}}, is_verified=True),
        holding(2, decimals=None, price=None, symbol=None, name=None),
        holding(3, chain=42161, logo="https://logo.example/a.png"),
    )
    await synced(ledger, wallet, rows)
    answer = await ledger.admit(admission(wallet, job="next"))
    assert isinstance(answer, Admitted)
    assert answer.previous == rows


@pytest.mark.parametrize("decimals", [0, 6, 18, 77, 255])
async def test_a_uint256_survives_with_any_decimals(ledger: WholeLedger, wallet: str, decimals: int) -> None:
    rows = tuple(holding(n, raw=raw, decimals=decimals) for n, raw in enumerate((2**256 - 1, 1, 10**77 + 7), 1))
    await synced(ledger, wallet, rows)
    (view,) = await ledger.portfolio(wallet)
    assert view.holdings == rows


@pytest.mark.parametrize(
    "price", ["1E-12", "1E+30", "0.000000000000000000000000000001", "12345678901234567890.123456789"]
)
async def test_prices_are_exact(ledger: WholeLedger, wallet: str, price: str) -> None:
    rows = (holding(1, raw=123456789012345678901, price=Decimal(price)),)
    total = rows[0].value_usd
    assert total is not None
    await synced(ledger, wallet, rows, total_value_usd=total)
    (view,) = await ledger.portfolio(wallet)
    assert (view.holdings, view.total_value_usd) == (rows, total)
    assert (await ledger.operations(wallet=wallet))[0].total_value_usd == total


async def test_names_of_any_length_and_script_are_kept(ledger: WholeLedger, wallet: str) -> None:
    rows = (
        holding(1, symbol="S" * 200, name="N" * 2000),
        holding(2, symbol="🦄🚀", name="日本語 \U0001f469‍\U0001f469‍\U0001f467 ‮evil"),
        holding(3, symbol="'; DROP TABLE user_token_holdings; --", name='"quoted" \\u0000 \\ back\n\t'),
    )
    await synced(ledger, wallet, rows)
    (view,) = await ledger.portfolio(wallet)
    assert view.holdings == rows


async def test_what_no_database_stores_is_left_out(ledger: WholeLedger, wallet: str) -> None:
    lease = await admitted(ledger, admission(wallet, metadata={"source": "a\0b"}))
    odd = holding(1, symbol="A\0B", name="\ud800lone", said={"k\0": ["v\0", {"x": "\0"}]})
    await ledger.commit(change(lease, [odd], result={"text": "r\0"}, metadata={"why": "\0"}, snapshot=(odd,)))
    (view,) = await ledger.portfolio(wallet)
    (row,) = view.holdings
    assert (row.symbol, row.name, row.said) == ("AB", "lone", {"k": ["v", {"x": ""}]})
    assert await ledger.admit(admission(wallet)) == AlreadyCommitted({"text": "r"})


async def test_spam_and_unpriced_rows_are_kept_but_not_counted(ledger: WholeLedger, wallet: str) -> None:
    rows = [holding(1, raw=10**18, price=Decimal(3)), holding(2, is_spam=True), holding(3, price=None)]
    await synced(ledger, wallet, rows)
    (view,) = await ledger.portfolio(wallet)
    assert len(view.holdings) == 3
    assert view.total_value_usd == Decimal(3)


async def test_a_snapshot_is_remembered(ledger: WholeLedger, wallet: str) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    row = holding(1)
    await synced(ledger, wallet, [row], snapshot=(row,))
    answer = await ledger.admit(admission(wallet, job="next"))
    assert isinstance(answer, Admitted)
    assert answer.snapshot_at is not None
    assert before < answer.snapshot_at < datetime.now(UTC) + timedelta(seconds=1)


async def test_five_hundred_rows_are_one_commit(ledger: WholeLedger, wallet: str) -> None:
    rows = tuple(holding(n, chain=1 + n % 3) for n in range(1, 601))
    await synced(ledger, wallet, rows, snapshot=rows)
    (view,) = await ledger.portfolio(wallet)
    assert refs(view.holdings) == refs(rows)


async def test_an_unknown_wallet_has_no_portfolio(ledger: WholeLedger, wallet: str) -> None:
    assert await ledger.portfolio(wallet) == ()
    assert await ledger.portfolio(wallet, "user-1") == ()


async def test_a_portfolio_can_be_one_users(ledger: WholeLedger, wallet: str) -> None:
    for user in ("user-1", "user-2"):
        lease = await admitted(ledger, admission(wallet, job=user, user=user))
        await ledger.commit(change(lease, [holding(1)]))
    (view,) = await ledger.portfolio(wallet, "user-2")
    assert view.user_id == "user-2"


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
