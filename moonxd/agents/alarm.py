"""Calls for help when too many jobs fail for good: a system.alert event, and another one when it is over."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from ..domain import event
from ..domain.alarm import Alarm, AlarmRule, Reading
from ..domain.errors import Transient
from ..domain.guard import REJECTED
from ..domain.job import Completed, Failed, Outcome
from ..domain.ledger import Event
from ..ports import Clock, LedgerUpkeep

log = logging.getLogger("moonxd.alarm")

#: Seconds between two looks at the share, and before an alert that could not be written is tried again.
LOOK_S = 1.0
FAILED_RATE = "job_failure_rate"


class FailureAlarm:
    """`settled` is told by the consumer; `run` writes the alerts, and waits for a ledger that is away."""

    def __init__(self, ledger: LedgerUpkeep, clock: Clock, rule: AlarmRule, *, worker: str, version: str) -> None:
        self._ledger = ledger
        self._clock = clock
        self._alarm = Alarm(rule)
        self._window_s = rule.window_s
        self._worker = worker
        self._version = version

    def settled(self, outcome: Outcome) -> None:
        """Only what ended for good counts, and not what was declined on purpose."""
        if isinstance(outcome, Completed) or (isinstance(outcome, Failed) and not outcome.reason.startswith(REJECTED)):
            self._alarm.ended(isinstance(outcome, Failed), trio.current_time())

    async def run(self, ready: Callable[[], None]) -> None:
        ready()
        while True:
            await trio.sleep(LOOK_S)
            reading = self._alarm.look(trio.current_time())
            if reading is not None:
                await self._tell(self._alert(reading), reading)

    def _alert(self, reading: Reading) -> Event:
        share = f"{reading.failed} of {reading.ended} jobs ({reading.share:.0%}) failed for good"
        message = f"{share} within {self._window_s:g} s" if reading.raised else f"over: {share}"
        return event.alert(
            FAILED_RATE,
            message,
            severity="critical" if reading.raised else "info",
            service=self._worker,
            version=self._version,
            at_ms=int(self._clock.now() * 1000),
            metadata={"raised": reading.raised, "failed": reading.failed, "ended": reading.ended},
        )

    async def _tell(self, alert: Event, reading: Reading) -> None:
        level = logging.ERROR if reading.raised else logging.INFO
        log.log(level, "too many jobs fail" if reading.raised else "fewer jobs fail again",
                extra={"failed": reading.failed, "ended": reading.ended})  # fmt: skip
        while True:
            try:
                await self._ledger.tell([alert])
                return
            except Transient as error:
                log.warning("an alert waits: %s", error)
            await trio.sleep(LOOK_S)
