"""When a sync leaves a snapshot in the wallet's history: on a change, and at most once an hour."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.runtime.test_attempt import TOKEN, WALLET, World, make_job

MINUTE = 60


@pytest.fixture
def world() -> World:
    return World()


async def sync(world: World, number: int, held: int) -> list[int]:
    """The balances in the history, newest first, after a sync that finds `held`."""
    world.base.answer = {TOKEN: held}
    await world.run(make_job(str(number), chainIds=[8453]))
    return [one.holdings[0].raw for one in await world.ledger.history(WALLET)]


async def test_a_snapshot_on_a_change_and_at_most_one_an_hour(autojump_clock: MockClock, world: World) -> None:
    assert await sync(world, 1, 10) == [10]
    await trio.sleep(90 * MINUTE)
    assert await sync(world, 2, 10) == [10], "nothing changed"
    assert await sync(world, 3, 11) == [11, 10], "the first change since the last one, an hour and more ago"
    for number in range(4, 9):
        await trio.sleep(10 * MINUTE)
        assert await sync(world, number, 10 + number) == [11, 10], "changes within the hour"
    await trio.sleep(11 * MINUTE)
    assert await sync(world, 9, 30) == [30, 11, 10]


async def test_what_changed_within_the_hour_is_not_forgotten(autojump_clock: MockClock, world: World) -> None:
    assert await sync(world, 1, 10) == [10]
    await trio.sleep(5 * MINUTE)
    assert await sync(world, 2, 20) == [10]
    await trio.sleep(60 * MINUTE)
    assert await sync(world, 3, 20) == [20, 10], "it differs from the last snapshot"
