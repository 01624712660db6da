"""What the control plane needs of the daemon: ports and callables, no adapter and no configuration."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from ..api.messages import DependencyState, SchedulerStats, WorkerView
from ..api.schema import Snapshot
from ..api.stats import CollectorView
from ..api.users import ScheduleView
from ..domain.breakers import Breakers
from ..domain.fleet import Answer
from ..domain.ledger import Event, StoredEvent, Withdrawal
from ..domain.plan import Plan
from ..domain.schedule import Figures
from ..jobs import Terms
from ..ports import DeadLetters, History, Ledger, Outbox, QueueAdmin, QueueUpkeep, Schedule, StatsArchive
from .gate import Gate


class News(Protocol):
    """Takes what is to be told; neither waits nor fails."""

    def tell(self, events: Sequence[Event]) -> None: ...

    def withdraw(self, jobs: Sequence[Withdrawal]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Scheduling:
    """Periodic syncs: who is registered, when they are due, and how the scheduler of this process stands."""

    schedule: Schedule
    plan: Plan
    view: Callable[[], ScheduleView]
    #: Measured now, or a moment ago where that is a lot of work.
    figures: Callable[[], Awaitable[Figures]]
    #: For /health.
    stats: Callable[[], SchedulerStats]
    #: Look for due wallets now; False when this daemon runs no scheduler.
    trigger: Callable[[], bool]


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What was collected, and how the collectors of this process stand."""

    archive: StatsArchive
    collectors: Callable[[], tuple[CollectorView, ...]]
    #: Sentences about what looking costs at metered endpoints.
    costs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Deps:
    """Everything is called from the daemon's Trio loop. Callables that are not async must not block."""

    #: Names as others see them: the queue's ("sync-jobs") and this worker's.
    queue_name: str
    worker: str
    #: What /health calls us.
    service: str = "moonxd"
    queue_admin: QueueAdmin
    ledger: Ledger
    #: Without it, trimmed dead letters are not found.
    letters: DeadLetters | None
    #: Without it, GET /v1/events says that there is none.
    outbox: Outbox | None
    #: A fresh picture; its seq does not matter. Must answer when Redis is away (queue.fresh = False).
    sample: Callable[[], Awaitable[Snapshot]]
    #: Cancel a job that runs in this process; False when it does not.
    cancel_running: Callable[[str], bool]
    #: Stop (True) or resume (False) claiming in this process only.
    pause_worker: Callable[[bool], None]
    #: For /health/ready, by name ("redis", "database"); should bound its own waits, is cut after 5 s anyway.
    dependencies: Callable[[], Awaitable[Mapping[str, DependencyState]]]
    #: Prometheus text; may be async, to measure before it answers (a scrape wants the depth of the queue now).
    metrics: Callable[[], bytes | Awaitable[bytes]]
    #: The whole fleet from heartbeats; None shows this worker only.
    workers: Callable[[], Awaitable[tuple[WorkerView, ...]]] | None = None
    #: Order another worker of the fleet: (worker, verb, what about); None as answer: it gave none in time.
    ask_worker: Callable[[str, str, str], Awaitable[Answer | None]] | None = None
    #: Restart one worker process of this daemon, or each in turn (None); the names, KeyError for one that is not ours.
    #: None: this daemon is a single process.
    restart_workers: Callable[[str | None], tuple[str, ...]] | None = None
    #: For /queue-stats (counts per priority, oldest age) and the jobs' logs; None leaves them out.
    upkeep: QueueUpkeep | None = None
    #: What the job types' own terms are, by name: written into the jobs added here.
    terms: Callable[[], Mapping[str, Terms]] = dict
    #: Without them, /breakers says that there are none.
    breakers: Breakers | None = None
    #: Without it, /users and /schedule say that there are no periodic syncs.
    scheduling: Scheduling | None = None
    #: Without it, GET /v1/portfolio/{wallet}/history says that there is none.
    history: History | None = None
    #: What is done to jobs here is told through it; without it only their admission tells of them.
    news: News | None = None
    #: Told user and wallet of a portfolio that its user looked at.
    seen: Callable[[str, str], None] | None = None
    #: Sends published events again, in order, with the same ids; None where there is no Kafka.
    resend: Callable[[Sequence[StoredEvent]], Awaitable[None]] | None = None
    #: When the rate limit lets the user's next manual sync in, None: now. Without it POST /jobs asks nobody.
    frees_at: Callable[[str], Awaitable[datetime | None]] | None = None
    #: Without them, /stats says that there are none.
    statistics: Statistics | None = None
    #: Who may ask what over TCP.
    gate: Gate = field(default_factory=Gate)
    #: Unix seconds.
    now: Callable[[], float] = time.time
    pid: int = os.getpid()
