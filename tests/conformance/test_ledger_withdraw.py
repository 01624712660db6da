"""What changes an audit row without an attempt tells of it in the same transaction: every ledger alike."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from moonxd.domain.errors import LeaseLost
from moonxd.domain.ledger import Admitted, Event, Orphan, Withdrawal
from tests.conformance.conftest import Look
from tests.conformance.ledger_data import WholeLedger, admission, admitted, change, ending, event, holding, lease_of


async def _types(ledger: WholeLedger) -> list[str]:
    return [one.event.type for one in await ledger.read(0, 100)]


def _withdrawal(wallet: str, **others: Any) -> Withdrawal:
    told = (event(wallet, "sync.queued"), event(wallet, "sync.cancelled"))
    return Withdrawal(ask=admission(wallet, events=told, **others), reason="nobody wants it")


async def test_a_job_that_never_ran_gets_a_cancelled_row(ledger: WholeLedger, wallet: str, look: Look) -> None:
    assert await ledger.withdraw([_withdrawal(wallet)]) == 1
    (row,) = await ledger.operations(wallet=wallet)
    assert (row.status, row.error, row.retry_count, row.started_at) == ("cancelled", "nobody wants it", 0, None)
    assert row.completed_at is not None
    assert "rejected" not in row.metadata
    assert await _types(ledger) == ["sync.queued", "sync.cancelled"]
    assert look(f"SELECT * FROM user_sync_status WHERE wallet_address = '{wallet}'") == []


async def test_withdrawing_again_changes_and_tells_nothing(ledger: WholeLedger, wallet: str) -> None:
    job = _withdrawal(wallet)
    assert await ledger.withdraw([job, job]) == 1
    assert await ledger.withdraw([job]) == 0
    assert len(await ledger.read(0, 100)) == 2


@pytest.mark.parametrize("status", ["retrying", "released"])
async def test_a_job_between_two_attempts_is_closed(ledger: WholeLedger, wallet: str, status: str) -> None:
    lease = await admitted(ledger, admission(wallet))
    await ledger.close(ending(lease, status))
    assert await ledger.withdraw([_withdrawal(wallet)]) == 1
    (row,) = await ledger.operations(wallet=wallet)
    assert (row.status, row.error, row.duration_ms) == ("cancelled", "nobody wants it", None)


async def test_what_has_ended_stays_as_it_is(ledger: WholeLedger, wallet: str) -> None:
    lease = await admitted(ledger, admission(wallet))
    await ledger.commit(change(lease, [holding(1)]))
    assert await ledger.withdraw([_withdrawal(wallet)]) == 0
    assert [row.status for row in await ledger.operations(wallet=wallet)] == ["completed"]
    assert await ledger.read(0, 100) == ()


async def test_a_worker_that_everybody_took_for_dead_writes_nothing_any_more(ledger: WholeLedger, wallet: str) -> None:
    lease = await admitted(ledger, admission(wallet))
    assert await ledger.withdraw([_withdrawal(wallet)]) == 1
    with pytest.raises(LeaseLost):
        await ledger.commit(change(lease, [holding(1)]))
    assert [row.status for row in await ledger.operations(wallet=wallet)] == ["cancelled"]
    assert isinstance(await ledger.admit(admission(wallet, job="2")), Admitted), "the wallet is free"


async def test_a_sweep_tells_of_each_row_that_it_closes(ledger: WholeLedger, wallet: str) -> None:
    ask = admission(wallet, lease_s=-1.0, attempt=2)
    lease = await admitted(ledger, ask)
    seen: list[Orphan] = []

    def told(orphan: Orphan) -> Event:
        seen.append(orphan)
        return event(orphan.wallet, "sync.failed")

    assert await ledger.sweep(0, told) == 1
    assert await ledger.sweep(0, told) == 0
    assert seen == [Orphan(operation=ask.operation, user_id=ask.user_id, wallet=wallet, fence=lease.fence, attempt=2)]
    assert await _types(ledger) == ["sync.failed"]


async def test_what_was_told_of_a_portfolio_is_known_at_the_next_admission(ledger: WholeLedger, wallet: str) -> None:
    async def sync(job: str, told: Decimal | None) -> Decimal | None:
        ask = admission(wallet, job=job)
        answer = await ledger.admit(ask)
        assert isinstance(answer, Admitted)
        await ledger.commit(change(lease_of(ask, answer.fence), [holding(1)], told_value_usd=told))
        return answer.told_value_usd

    assert await sync("1", Decimal("12.345678901234567891")) is None
    assert await sync("2", None) == Decimal("12.345678901234567891")
    assert await sync("3", Decimal(7)) == Decimal("12.345678901234567891"), "a sync that tells nothing forgets nothing"
    assert await sync("4", None) == 7
