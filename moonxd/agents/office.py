"""Holds one office of the fleet for as long as this daemon lives and the election can be asked."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable

import trio

from ..domain.errors import Transient
from ..ports import Election

log = logging.getLogger("moonxd.office")

#: Seconds to let go of it at the end; whoever wants it waits for the rest of its time otherwise.
LEAVE_S = 1.0

Body = Callable[[Callable[[], None]], Awaitable[None]]


class Office:
    """`ttl_s` seconds after its holder died another one takes it; it is asked for three times as often."""

    def __init__(self, election: Election, name: str, *, ttl_s: float = 30.0) -> None:
        self._election = election
        self._name = name
        self._ttl_s = ttl_s
        self._ours_until = -math.inf
        self._changed = trio.Event()
        #: How often it became ours.
        self.terms = 0

    @property
    def is_held(self) -> bool:
        """Whether it is ours for certain: never when the election has not been asked for a while."""
        return trio.current_time() < self._ours_until

    async def while_held(self, body: Body, ready: Callable[[], None]) -> None:
        """Run `body` while it is ours, again and again; ready at once, since it may be another's for ever."""
        ready()
        while True:
            while not self.is_held:
                await self._changed.wait()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(body, lambda: None)
                await self._lost()
                nursery.cancel_scope.cancel()

    async def run(self, ready: Callable[[], None]) -> None:
        """Stand for it for ever; ready after the first answer, so that nobody who asks `is_held` comes too early."""
        try:
            await self.stand()
            ready()
            while True:
                await trio.sleep(self._ttl_s / 3)
                await self.stand()
        finally:
            await self._leave()

    async def _lost(self) -> None:
        """Return when it is not ours any more."""
        while self.is_held:
            # Renewed it is held for longer; another's, or left, it is not held at once.
            with trio.move_on_at(self._ours_until):
                await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def stand(self) -> None:
        """Ask once."""
        asked = trio.current_time()
        try:
            is_ours = await self._election.hold(self._name, self._ttl_s)
        except Transient as error:
            log.warning("%s", error, extra={"office": self._name})
            return
        was_held = self.is_held  # only now: our time may have run out over the question
        self._ours_until = asked + self._ttl_s if is_ours else -math.inf
        if is_ours is not was_held:
            self.terms += is_ours
            self._tell()
            who = "this daemon" if is_ours else "another daemon"
            log.info("%s is in charge of %s", who, self._name, extra={"office": self._name})

    async def _leave(self) -> None:
        if not self.is_held:
            return
        self._ours_until = -math.inf
        self._tell()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + LEAVE_S):
            try:
                await self._election.leave(self._name)
            except Transient as error:
                log.info("%s", error, extra={"office": self._name})
