"""What every ledger promises: memory, SQLite and PostgreSQL alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from moonxd.domain.errors import LeaseLost
from moonxd.domain.ledger import Admitted, AlreadyCommitted, Busy
from moonxd.domain.token import TokenRef
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


async def test_a_snapshot_that_is_owed_is_remembered(ledger: WholeLedger, wallet: str) -> None:
    async def sync(job: str, owed: bool | None, **others: Any) -> bool:
        """Whether one was owed before."""
        ask = admission(wallet, job=job)
        answer = await ledger.admit(ask)
        assert isinstance(answer, Admitted)
        await ledger.commit(change(lease_of(ask, answer.fence), [holding(1)], snapshot_owed=owed, **others))
        return answer.snapshot_owed

    assert await sync("1", None) is False
    assert await sync("2", True) is False
    assert await sync("3", None, told_value_usd=Decimal(7)) is True
    assert await sync("4", False) is True
    assert await sync("5", None) is False
    answer = await ledger.admit(admission(wallet, job="6"))
    assert isinstance(answer, Admitted)
    assert answer.told_value_usd == 7, "one note leaves the other"


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


async def test_operations_are_found_by_type_and_age_and_say_which_version_ran(ledger: WholeLedger, wallet: str) -> None:
    await admitted(ledger, admission(wallet, worker_version="9.9"))
    (operation,) = await ledger.operations(wallet=wallet, sync_type="portfolio")
    assert operation.worker_version == "9.9"
    now = datetime.now(UTC)
    assert await ledger.operations(wallet=wallet, sync_type="full") == ()
    assert await ledger.operations(wallet=wallet, since=now - timedelta(minutes=1)) == (operation,)
    assert await ledger.operations(wallet=wallet, since=now + timedelta(minutes=1)) == ()
