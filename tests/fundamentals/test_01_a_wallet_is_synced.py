"""What moonxd is for: a producer asks, and a moment later the wallet's portfolio is in the ledger."""

from __future__ import annotations

from decimal import Decimal

from trio.testing import MockClock

from .house import ALICE, House


async def test_from_the_queue_to_the_ledger(clock: MockClock, house: House) -> None:
    result = await house.sync(ALICE)

    # The producer gets what BullMQ calls the return value.
    assert result["success"] is True
    assert (result["tokensSync"], result["chainsSync"], result["chainsFailed"]) == (3, 2, [])
    assert result["totalValueUsd"] == 6350

    # Readers of the ledger find rows per chain and token; amounts are exact decimals.
    assert await house.holdings(ALICE) == {
        ("ethereum", "ETH"): Decimal(3),
        ("ethereum", "USDC"): Decimal(250),
        ("base", "USDC"): Decimal(100),
    }

    # And the audit trail says who did what.
    (operation,) = await house.ledger.operations(wallet=ALICE)
    assert (operation.status, operation.user_id, operation.chains_synced) == ("completed", "alice", 2)


async def test_all_chains_are_read_at_once(clock: MockClock, house: House) -> None:
    house.ethereum.takes_s, house.base.takes_s = 2.0, 3.0
    result = await house.sync()
    assert 3000 <= result["processingTime"] < 3500, "as long as the slowest chain, not as long as all of them"


async def test_only_the_chains_that_were_asked_for(clock: MockClock, house: House) -> None:
    await house.sync(chainIds=["8453"])
    assert (house.ethereum.reads, house.base.reads) == (0, 1)
    await house.sync(chainIds=["ethereum"])
    assert len(await house.holdings()) == 3, "rows of the other chain stay"


async def test_what_a_wallet_no_longer_holds_is_removed(clock: MockClock, house: House) -> None:
    await house.sync()
    house.base.holds.clear()
    await house.sync()
    assert ("base", "USDC") not in await house.holdings()
    assert (await house.portfolio()).total_value_usd == 6250
