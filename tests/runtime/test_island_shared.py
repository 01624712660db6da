"""One island for several users: they wait for it, and end with it."""

from __future__ import annotations

import asyncio

import pytest
import trio

from moonxd.adapters.island.loop import Island
from moonxd.adapters.island.shared import SharedIsland
from moonxd.domain.errors import Transient, single


async def _answer() -> int:
    await asyncio.sleep(0)
    return 42


async def test_users_wait_for_the_island_and_may_come_and_go() -> None:
    shared, answers = SharedIsland(), []

    async def work(island: Island) -> None:
        answers.append(await island.call(_answer))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as users:
                users.start_soon(shared.alongside, work)
                users.start_soon(shared.alongside, work)
                nursery.start_soon(shared.run, lambda: None)
            nursery.cancel_scope.cancel()
    assert answers == [42, 42]


async def test_users_end_with_the_island_and_get_the_next_one() -> None:
    shared, seen = SharedIsland(), []

    async def die() -> None:
        raise SystemExit("the thread is gone")

    async def work(island: Island) -> None:
        seen.append(island)
        with pytest.raises(Transient):
            await island.call(die)
        await trio.sleep_forever()

    async def keep() -> None:
        with pytest.raises(Transient):
            await shared.run(lambda: None)

    with trio.fail_after(20):
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep)
                with pytest.raises(ExceptionGroup) as ended:
                    await shared.alongside(work)
                assert isinstance(single(ended.value), Transient)
    assert len(seen) == 2
    assert seen[0] is not seen[1]
