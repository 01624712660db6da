"""Carries out what another worker of the fleet orders: cancel a job that runs here, pause, resume, describe itself."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from ..domain.errors import MoonxdError
from ..domain.fleet import Answer, Order
from ..log import log_once_per
from ..ports import Fleet

log = logging.getLogger("moonxd.orders")

#: Carries out one verb; told what it is about. Must be quick: orders are taken one after the other.
Verb = Callable[[str], Awaitable[Answer]]


class Orders:
    """`verbs` are what this worker does for others."""

    def __init__(self, fleet: Fleet, worker: str, verbs: Mapping[str, Verb]) -> None:
        self._fleet = fleet
        self._worker = worker
        self._verbs = verbs

    async def run(self, ready: Callable[[], None]) -> None:
        ready()
        while True:
            try:
                order = await self._fleet.next_order(self._worker)
                if order is not None:
                    await self._fleet.answer(order, await self._obey(order))
            except MoonxdError as error:
                # The fleet's client waits by itself while Redis is away.
                log_once_per(60.0, log, logging.WARNING, "no orders can be taken: %s", error, key=str(error))

    async def _obey(self, order: Order) -> Answer:
        verb = self._verbs.get(order.verb)
        if verb is None:
            return Answer(done=False, body=f"this worker knows no order {order.verb!r}")
        log.info("ordered to %s %s", order.verb, order.about, extra={"order": order.verb})
        return await verb(order.about)
