"""Tells the fleet, again and again, that this worker lives and how it does."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from ..domain.errors import MoonxdError, Transient
from ..domain.fleet import Heartbeat
from ..ports import Fleet

log = logging.getLogger("moonxd.heartbeat")

#: A worker is forgotten after this many heartbeats that did not come.
LIVES = 3
#: How often we look whether the state (paused, draining) has changed: that is told at once.
LOOK_S = 0.5
#: Seconds that taking leave may take.
LEAVE_S = 1.0


class Heart:
    """A heartbeat every `interval_s` and whenever the state changes. `describe()` says how this worker does now."""

    def __init__(self, fleet: Fleet, describe: Callable[[], Heartbeat], *, interval_s: float) -> None:
        self._fleet = fleet
        self._describe = describe
        self._interval_s = interval_s

    async def run(self, ready: Callable[[], None]) -> None:
        """Until cancelled; then the fleet is told that this worker is gone."""
        await self._warn_of_a_namesake()
        try:
            first = True
            while True:
                told = await self._beat()
                if first:
                    ready()
                    first = False
                await self._until_news(told)
        finally:
            await self._leave()

    async def _beat(self) -> Heartbeat:
        now = self._describe()
        try:
            await self._fleet.beat(now, LIVES * self._interval_s)
        except MoonxdError as error:
            log.warning("the fleet was not told that this worker lives: %s", error)
        return now

    async def _until_news(self, told: Heartbeat) -> None:
        with trio.move_on_after(self._interval_s):
            while True:
                await trio.sleep(LOOK_S)
                now = self._describe()
                if (now.state, now.is_paused) != (told.state, told.is_paused):
                    return

    async def _warn_of_a_namesake(self) -> None:
        """Orders go to names: two workers of one name would take each other's."""
        mine = self._describe()
        try:
            fleet = await self._fleet.heartbeats()
        except Transient:
            return
        for other in fleet:
            if other.worker == mine.worker and (other.host, other.pid) != (mine.host, mine.pid):
                log.warning(
                    "another worker is called %s too (on %s, process %d), or was until it died: "
                    "give each a worker_name of its own",
                    mine.worker, other.host, other.pid,
                )  # fmt: skip

    async def _leave(self) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + LEAVE_S):
            try:
                await self._fleet.leave(self._describe().worker)
            except MoonxdError:
                pass  # the heartbeat expires by itself
