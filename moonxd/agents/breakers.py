"""Keeps the states of breakers: written down when they change, taken up again at the next start."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import trio

from ..domain.breaker import State, restore
from ..domain.breakers import Breakers
from ..domain.errors import MoonxdError
from ..ports import BreakerStore

log = logging.getLogger("moonxd.breakers")

#: Seconds between two tries to write down what could not be written.
RETRY_S = 5.0
#: Seconds that the last words of a stopping daemon may take.
LAST_S = 1.0


def new_breakers(opened: Callable[[str], None]) -> Breakers:
    """Breakers on wall time at the start and monotonic time since: a clock that is set meanwhile shuts nothing.

    `opened` is told the name of each one that opens or is cordoned.
    """
    offset = time.time() - time.monotonic()

    def tell(name: str, reason: str) -> None:
        opened(name)
        log.error("breaker %s is shut: %s", name, reason, extra={"breaker": name, "alert": True})

    return Breakers(lambda: offset + time.monotonic(), on_open=tell)


class BreakerKeeper:
    """`recover` before anything is asked, then `run` for as long as the daemon lives."""

    def __init__(self, breakers: Breakers, store: BreakerStore, *, recovered: Callable[[float], None]) -> None:
        self._breakers = breakers
        self._store = store
        self._recovered = recovered
        self._changed = trio.Event()
        breakers.on_dirty = lambda: self._changed.set()

    async def recover(self) -> None:
        """Take up what was kept. What cannot be read is set aside, and a store that is away stops nobody."""
        started = time.perf_counter()
        states: dict[str, State] = {}
        try:
            kept = await self._store.load()
            for name, text in kept.items():
                try:
                    states[name] = restore(text)
                except ValueError as error:
                    log.error("breaker %s starts afresh, its row is set aside: %s", name, error, extra={"alert": True})
                    await self._store.set_aside(name)
        except MoonxdError as error:
            log.error("breakers start afresh, their states cannot be read: %s", error, extra={"alert": True})
        self._breakers.restore(states)
        self._recovered(time.perf_counter() - started)

    async def run(self, ready: Callable[[], None]) -> None:
        ready()
        try:
            while True:
                await self._changed.wait()
                self._changed = trio.Event()
                if not await self._keep():
                    self._changed.set()
                    await trio.sleep(RETRY_S)
        finally:
            # With their counts, which alone are no reason to write.
            self._breakers.mark_all()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_S):
                await self._keep()

    async def _keep(self) -> bool:
        names = set(self._breakers.dirty)
        self._breakers.dirty -= names
        if not names:
            return True
        try:
            await self._store.save(self._breakers.dumps(names))
        except MoonxdError as error:
            self._breakers.dirty |= names
            log.warning("the states of breakers are not written down yet: %s", error)
            return False
        except BaseException:
            self._breakers.dirty |= names
            raise
        return True
