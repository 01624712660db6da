"""What other programs read in the ledger's tables: counters, history, touched rows."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from moonxd.domain.token import TokenRef
from tests.conformance.conftest import Look, exact
from tests.conformance.ledger_data import (
    WholeLedger,
    address,
    admission,
    admitted,
    change,
    ending,
    holding,
    synced,
)

COUNTERS = "total_syncs, successful_syncs, failed_syncs, consecutive_failures"


def counters(look: Look, wallet: str) -> tuple[int, ...]:
    """(total, successful, failed, consecutive failures)."""
    rows = look(f"SELECT {COUNTERS} FROM user_sync_status WHERE wallet_address = '{wallet}'")
    return tuple(rows[0].values()) if rows else (0, 0, 0, 0)


def status(look: Look, wallet: str) -> dict[str, Any]:
    (row,) = look(f"SELECT * FROM user_sync_status WHERE wallet_address = '{wallet}'")
    return row


async def run(ledger: WholeLedger, wallet: str, *endings: str, job: str = "1") -> None:
    """Attempts of one operation, each ended so."""
    for attempt, how in enumerate(endings, 1):
        lease = await admitted(ledger, admission(wallet, job=job, attempt=attempt))
        if how == "completed":
            await ledger.commit(change(lease, [holding(1)], duration_ms=100 * attempt))
        else:
            await ledger.close(ending(lease, how))


@pytest.mark.parametrize(
    ("endings", "expected"),
    [
        (["completed"], (1, 1, 0, 0)),
        (["retrying", "retrying", "completed"], (1, 1, 0, 0)),
        (["retrying", "retrying", "failed"], (1, 0, 1, 1)),
        (["failed", "completed"], (1, 1, 0, 0)),
        (["failed", "failed"], (1, 0, 1, 2)),
        (["failed", "cancelled"], (1, 0, 1, 1)),
        (["cancelled"], (0, 0, 0, 0)),
        (["released", "released", "completed"], (1, 1, 0, 0)),
        (["retrying"], (0, 0, 0, 0)),
    ],
)
async def test_each_operation_counts_once_by_its_latest_outcome(
    ledger: WholeLedger, look: Look, wallet: str, endings: list[str], expected: tuple[int, ...]
) -> None:
    await run(ledger, wallet, *endings)
    assert counters(look, wallet) == expected


async def test_operations_add_up(ledger: WholeLedger, look: Look, wallet: str) -> None:
    for job, how in enumerate(["completed", "failed", "failed", "completed", "failed"]):
        await run(ledger, wallet, how, job=str(job))
    assert counters(look, wallet) == (5, 2, 3, 1)


async def test_a_swept_operation_counts_as_failed_until_it_is_redelivered(
    ledger: WholeLedger, look: Look, wallet: str
) -> None:
    await admitted(ledger, admission(wallet, lease_s=0.0))
    await ledger.sweep(0.0)
    assert counters(look, wallet) == (1, 0, 1, 1)
    await run(ledger, wallet, "completed")
    assert counters(look, wallet) == (1, 1, 0, 0)


async def test_the_average_is_that_of_successful_syncs(ledger: WholeLedger, look: Look, wallet: str) -> None:
    for number, duration in enumerate((100, 200, 600)):
        lease = await admitted(ledger, admission(wallet, job=f"ok-{number}"))
        await ledger.commit(change(lease, [holding(1)], duration_ms=duration))
        lease = await admitted(ledger, admission(wallet, job=f"bad-{number}"))
        await ledger.close(ending(lease, "failed"))
    row = status(look, wallet)
    assert (row["avg_sync_duration_ms"], row["sync_duration_ms"]) == (300, 600)


async def test_the_status_row_tells_of_the_last_success(ledger: WholeLedger, look: Look, wallet: str) -> None:
    lease = await admitted(ledger, admission(wallet, job="1"))
    await ledger.commit(
        change(lease, [holding(1), holding(2, chain=56)], chains_synced=2, total_value_usd=Decimal("12.5"))
    )
    await run(ledger, wallet, "failed", job="2")
    row = status(look, wallet)
    assert str(row["last_sync_operation_id"]) == str(lease.operation)
    assert (row["tokens_count"], row["chains_count"], row["sync_type"]) == (2, 2, "portfolio")
    assert exact(row["total_value_usd"]) == Decimal("12.5")
    assert row["sync_status"] == "failed"
    assert row["last_error_message"] == "the chain was away"
    assert row["last_sync_at"] is not None
    assert row["is_sync_enabled"]


async def test_history_is_written_only_when_asked(ledger: WholeLedger, look: Look, wallet: str) -> None:
    rows = (holding(1), holding(2, chain=56))
    await synced(ledger, wallet, rows)
    lease = await synced(ledger, wallet, rows[:1], snapshot=rows, snapshot_type="scheduled")
    await synced(ledger, wallet, rows)
    history = look(f"SELECT * FROM user_token_holdings_history WHERE wallet_address = '{wallet}' ORDER BY chain_id")
    assert [(row["chain_id"], row["balance"], row["snapshot_type"]) for row in history] == [
        (1, str(rows[0].raw), "scheduled"),
        (56, str(rows[1].raw), "scheduled"),
    ]
    assert {str(row["sync_operation_id"]) for row in history} == {str(lease.operation)}
    assert exact(history[0]["value_usd"]) == rows[0].value_usd


async def test_rows_of_synced_chains_are_touched_and_others_are_not(
    ledger: WholeLedger, look: Look, wallet: str
) -> None:
    def touched() -> dict[int, Any]:
        rows = look(f"SELECT token_address, last_updated FROM user_token_holdings WHERE wallet_address = '{wallet}'")
        return {int(row["token_address"], 16): row["last_updated"] for row in rows}

    await synced(ledger, wallet, [holding(1), holding(2), holding(3, chain=56)])
    before = touched()
    await synced(ledger, wallet, [holding(1, raw=7)], chains=(1,))
    after = touched()
    assert after[1] > before[1]
    assert after[2] > before[2]
    assert after[3] == before[3]


async def test_readers_find_the_columns_they_know(ledger: WholeLedger, look: Look, wallet: str) -> None:
    await synced(ledger, wallet, [holding(1, raw=2**200, decimals=0, said={"alchemy": True})], removed=())
    (row,) = look(f"SELECT * FROM user_token_holdings WHERE wallet_address = '{wallet}'")
    assert (row["user_id"], row["token_address"], row["balance"]) == ("user-1", address(1), str(2**200))
    assert (row["token_symbol"], row["token_name"], row["token_decimals"]) == ("T1", "Token 1", 0)
    assert row["alchemy_data"] in ({"alchemy": True}, '{"alchemy":true}')
    (operation,) = look(f"SELECT * FROM sync_operations WHERE wallet_address = '{wallet}'")
    assert (operation["type"], operation["priority"], operation["max_retries"]) == ("portfolio", "high", 2)
    assert operation["worker_version"] == "0.1.0"


async def test_a_sweep_leaves_other_programs_running_rows_alone_for_a_while(
    ledger: WholeLedger, look: Look, wallet: str
) -> None:
    lease = await admitted(ledger, admission(wallet, lease_s=0.0))
    assert (await ledger.operations(wallet=wallet))[0].metadata["fence"] == lease.fence
    assert await ledger.sweep(3600.0) == 0


async def test_tokens_seen_are_the_wallets_not_the_users(ledger: WholeLedger, wallet: str) -> None:
    await synced(ledger, wallet, [holding(1)])
    answer: Any = await ledger.admit(admission(wallet, user="user-2", job="other"))
    assert answer.seen == (TokenRef(1, address(1)),)
    assert answer.previous == ()
