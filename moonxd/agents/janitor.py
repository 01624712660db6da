"""Closes what a crashed worker left open, so that no audit row says "running" for ever."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from ..domain.errors import Transient
from ..ports import Ledger

log = logging.getLogger("moonxd.janitor")


class Janitor:
    """Every `interval_s`: rows still running though their lease ended more than `grace_s` ago are closed.

    The grace must exceed the time in which a stalled job is redelivered: a redelivery reopens its own row.
    """

    def __init__(self, ledger: Ledger, *, interval_s: float, grace_s: float) -> None:
        self._ledger = ledger
        self._interval_s = interval_s
        self._grace_s = grace_s

    async def run(self, ready: Callable[[], None]) -> None:
        ready()
        while True:
            try:
                closed = await self._ledger.sweep(self._grace_s)
            except Transient as error:
                # A database that is away is nobody's fault here: the next round finds the same rows.
                log.warning("nothing was swept: %s", error)
                closed = 0
            if closed:
                log.warning("closed %d operations whose worker died", closed, extra={"closed": closed})
            await trio.sleep(self._interval_s)
