"""Keeps the states of breakers: written down when they change, taken up again at the next start."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec
import trio

from ..domain.breaker import State, restore
from ..domain.breakers import Breakers, Word
from ..domain.errors import MoonxdError
from ..ports import BreakerStore

log = logging.getLogger("moonxd.breakers")

#: Seconds between two tries to write down what could not be written.
RETRY_S = 5.0
#: Seconds after which an operator's word to another daemon is heard here.
LISTEN_S = 10.0
#: What the row of an operator's word is called, after the breaker's name.
_SPOKEN = " by operator"
#: Seconds that the last words of a stopping daemon may take.
LAST_S = 1.0


def new_breakers(opened: Callable[[str, str], None]) -> Breakers:
    """Breakers on wall time at the start and monotonic time since: a clock that is set meanwhile shuts nothing.

    `opened` is told the name of each one that opens or is cordoned, and why.
    """
    offset = time.time() - time.monotonic()
    return Breakers(lambda: offset + time.monotonic(), on_open=opened)


class BreakerKeeper:
    """`recover` before anything is asked, then `run` for as long as the daemon lives."""

    def __init__(
        self,
        breakers: Breakers,
        store: BreakerStore,
        *,
        recovered: Callable[[float], None],
        lost: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        """`recovered` is told the seconds that took, `lost` a sentence about each state that could not be read."""
        self._lost = lost
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
                    if name.endswith(_SPOKEN):
                        self._breakers.hear(name.removesuffix(_SPOKEN), _read_word(text))
                    else:
                        states[name] = restore(text)
                except ValueError as error:
                    self._lost(f"breaker {name} starts afresh, its row is set aside: {error}")
                    await self._store.set_aside(name)
        except MoonxdError as error:
            self._lost(f"breakers start afresh, their states cannot be read: {error}")
        self._breakers.restore(states)
        self._recovered(time.perf_counter() - started)

    async def run(self, ready: Callable[[], None]) -> None:
        ready()
        listen_at = trio.current_time() + LISTEN_S
        try:
            while True:
                with trio.move_on_at(listen_at):
                    await self._changed.wait()
                if self._changed.is_set():
                    self._changed = trio.Event()
                    if not await self._keep():
                        self._changed.set()
                        await trio.sleep(RETRY_S)
                if trio.current_time() >= listen_at:
                    await self._listen()
                    listen_at = trio.current_time() + LISTEN_S
        finally:
            # With their counts, which alone are no reason to write.
            self._breakers.mark_all()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_S):
                await self._keep()

    async def _listen(self) -> None:
        """Hear what operators said to other daemons meanwhile."""
        try:
            kept = await self._store.load()
        except MoonxdError as error:
            log.info("what operators said to other daemons is not known: %s", error)
            return
        for name, text in kept.items():
            if name.endswith(_SPOKEN):
                with suppress(ValueError):
                    self._breakers.hear(name.removesuffix(_SPOKEN), _read_word(text))

    async def _keep(self) -> bool:
        """Write down what changed; False when it could not be."""
        breakers = self._breakers
        names, spoken = set(breakers.dirty), set(breakers.spoken)
        breakers.dirty -= names
        breakers.spoken -= spoken
        if not names:
            return True
        is_kept = False
        try:
            words = {name + _SPOKEN: msgspec.json.encode(breakers.words[name]).decode() for name in spoken}
            await self._store.save({**breakers.dumps(names), **words})
            is_kept = True
        except MoonxdError as error:
            log.warning("the states of breakers are not written down yet: %s", error)
        finally:
            if not is_kept:
                breakers.dirty |= names
                breakers.spoken |= spoken
        return is_kept


def _read_word(text: str) -> Word:
    """Raises ValueError."""
    try:
        return msgspec.json.decode(text, type=Word)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError(f"not an operator's word: {error}") from error
