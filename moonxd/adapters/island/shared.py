"""One island for all who need asyncio in this process: a supervised part, and what its users do when it dies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from .loop import Island, open_island


class SharedIsland:
    """`run` is the supervised body; users run `alongside` it."""

    def __init__(self) -> None:
        self._island: Island | None = None
        self._up = trio.Event()

    async def run(self, ready: Callable[[], None]) -> None:
        """Open the loop and keep it until its thread dies, which raises Transient."""
        async with open_island() as island:
            self._island = island
            self._up.set()
            ready()
            try:
                await island.wait_dead()
            finally:
                self._island, self._up = None, trio.Event()

    async def alongside(self, work: Callable[[Island], Awaitable[None]]) -> None:
        """Run `work` with the island, once there is one. When that island dies, so does `work`: Transient, and the
        supervisor starts it again with the next one."""
        while (island := self._island) is None:
            await self._up.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(island.wait_dead)
            await work(island)
            nursery.cancel_scope.cancel()
