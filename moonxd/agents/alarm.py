"""Calls for help when too many jobs fail for good: a system.alert event, and another one when it is over."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import trio

from ..domain import event
from ..domain.alarm import Alarm, AlarmRule, Reading
from ..domain.errors import Transient
from ..domain.guard import REJECTED
from ..domain.job import Completed, Failed, Outcome
from ..ports import Clock, LedgerUpkeep

log = logging.getLogger("moonxd.alarm")

#: Seconds between two looks at the share, and before an alert that could not be written is tried again.
LOOK_S = 1.0
FAILED_RATE = "job_failure_rate"
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.ERROR}


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Something that somebody has to know of. `severity`: info | warning | critical."""

    kind: str
    message: str
    severity: str = "warning"
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


def torn_queue(state_dir: Path) -> Notice:
    return Notice(
        kind="queue_file_torn",
        message=f"the queue's file in {state_dir / 'redis'} ended in the middle of a command and was cut there: what "
        "was enqueued in the last second before the crash may be gone; the ledger's operations tell what was synced",
    )


class FailureAlarm:
    """`settled` is told by the consumer; `run` writes the alerts, and waits for a ledger that is away.

    What others put into `notices` is written as well, in order.
    """

    def __init__(
        self,
        ledger: LedgerUpkeep,
        clock: Clock,
        rule: AlarmRule,
        notices: deque[Notice],
        *,
        service: str,
        worker: str,
        version: str,
    ) -> None:
        self._notices = notices
        self._ledger = ledger
        self._clock = clock
        self._alarm = Alarm(rule)
        self._window_s = rule.window_s
        self._service = service
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
                self._notices.append(self._notice(reading))
            while self._notices:
                await self._tell(self._notices.popleft())

    def _notice(self, reading: Reading) -> Notice:
        share = f"{reading.failed} of {reading.ended} jobs ({reading.share:.0%}) failed for good"
        return Notice(
            kind=FAILED_RATE,
            message=f"{share} within {self._window_s:g} s" if reading.raised else f"over: {share}",
            severity="critical" if reading.raised else "info",
            metadata={"raised": reading.raised, "failed": reading.failed, "ended": reading.ended},
        )

    async def _tell(self, notice: Notice) -> None:
        log.log(_LEVELS[notice.severity], "%s", notice.message, extra={"alert": notice.kind, **notice.metadata})
        alert = event.alert(
            notice.kind,
            notice.message,
            severity=notice.severity,
            service=self._service,
            worker=self._worker,
            version=self._version,
            at_ms=int(self._clock.now() * 1000),
            metadata=notice.metadata,
        )
        while True:
            try:
                await self._ledger.tell([alert])
                return
            except Transient as error:
                log.warning("an alert waits: %s", error)
            await trio.sleep(LOOK_S)
