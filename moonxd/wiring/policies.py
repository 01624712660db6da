"""What the configuration says about limits, retention and alerts."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime

from ..agents.alarm import FailureAlarm, Notice
from ..agents.janitor import Pruner
from ..config import Config
from ..control.gate import Gate
from ..domain.alarm import AlarmRule
from ..domain.guard import Guards
from ..domain.job import JobOptions
from ..domain.ledger import Retention
from ..ports import (
    LedgerUpkeep,
)
from ..version import VERSION
from .place import WallClock, worker_name

_HOUR_S, _DAY_S = 3600.0, 86400.0


def job_defaults(config: Config) -> JobOptions:
    """What holds for jobs whose producer did not say otherwise."""
    queue = config.queue
    return JobOptions(
        attempts=queue.attempts,
        backoff=queue.backoff,
        remove_on_complete=queue.keep_completed,
        remove_on_fail=queue.keep_failed,
    )


def gate(config: Config) -> Gate:
    """Who may ask what over TCP."""
    http = config.http
    is_public = http.listen is not None and not http.listen.is_loopback
    return Gate(http.token.reveal() if http.token is not None else None, is_public=is_public)


def guards(config: Config) -> Guards:
    return Guards(window=config.rate_limit.window, breaker=config.breaker.trip)


def window_check(ledger: LedgerUpkeep, current: Callable[[], Guards]) -> Callable[[str], Awaitable[datetime | None]]:
    """When a user's next counted sync may be admitted, by the guards in force at that moment."""

    async def frees_at(user: str) -> datetime | None:
        window = current().window
        return None if window is None else await ledger.window_frees_at(user, window)

    return frees_at


def retention(config: Config) -> Retention:
    """Without Kafka nobody will publish what lies in the outbox, so its age alone decides."""
    keep = config.retention
    operations_s = keep.operations_days * _DAY_S
    return Retention(
        history_s=keep.history_days * _DAY_S or None,
        # The audit rows are what the rate limit counts.
        operations_s=max(operations_s, config.rate_limit.window_s + _HOUR_S) if operations_s else None,
        outbox_s=keep.outbox_days * _DAY_S or None,
        outbox_rows=keep.outbox_rows or None,
        unpublished=not config.kafka.is_external,
    )


def pruner(config: Config, ledger: LedgerUpkeep) -> Pruner:
    return Pruner(
        ledger,
        retention(config),
        interval_s=config.worker.janitor_interval_s,
        limit=config.retention.batch_size,
    )


def failure_alarm(config: Config, ledger: LedgerUpkeep, notices: deque[Notice]) -> FailureAlarm:
    alerts = config.alerts
    rule = AlarmRule(
        raise_at=alerts.failed_share,
        clear_at=alerts.cleared_share,
        window_s=alerts.window_s,
        min_jobs=alerts.min_jobs,
    )
    service, worker = config.daemon.service_name, worker_name(config)
    return FailureAlarm(ledger, WallClock(), rule, notices, service=service, worker=worker, version=VERSION)
