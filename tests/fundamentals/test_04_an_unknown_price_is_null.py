"""Prices are what a source said. Nobody knows: null. Nobody could be asked: the last one that was known."""

from __future__ import annotations

from decimal import Decimal

import trio
from trio.testing import MockClock

from .house import USDC, House

PRICES_GROW_OLD_S = 700.0


async def _price(house: House, chain_id: int) -> tuple[Decimal | None, Decimal | None]:
    """Price and value of the wallet's USDC on a chain."""
    (row,) = [row for row in (await house.portfolio()).holdings if (row.chain_id, row.address) == (chain_id, USDC)]
    return row.price_usd, row.value_usd


async def test_nobody_knows_it(clock: MockClock, house: House) -> None:
    del house.market.usd[USDC]
    result = await house.sync()
    assert await _price(house, 1) == (None, None), "not zero, not a cent"
    assert result["totalValueUsd"] == 6000, "only what has a price counts"
    assert result["tokensSync"] == 3, "the token itself is there"


async def test_nobody_can_be_asked(clock: MockClock, house: House) -> None:
    await house.sync()
    await trio.sleep(PRICES_GROW_OLD_S)
    house.market.open = False
    house.ethereum.holds[USDC] = 500_000_000
    result = await house.sync()
    assert await _price(house, 1) == (Decimal(1), Decimal(500)), "the new balance at the last known price"
    assert result["success"] is True, "an outage of prices is no reason to leave balances unread"


async def test_the_source_has_forgotten_it(clock: MockClock, house: House) -> None:
    await house.sync()
    await trio.sleep(PRICES_GROW_OLD_S)
    del house.market.usd[USDC]
    await house.sync()
    assert await _price(house, 1) == (None, None), "a source that answered and did not name it is an answer too"
