"""Requests and answers of the control plane. camelCase on the wire, since existing programs read these names."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from .schema import Rates

#: Grows when a change would break a client of the previous number.
API_VERSION = 1
#: The largest request body, in bytes.
MAX_BODY = 1_000_000

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=315_360_000)]
#: Milliseconds, up to ten years (what BullMQ can still put into a score).
DelayMs = Annotated[int, msgspec.Meta(ge=0, le=315_360_000_000)]


class Message(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of everything but the live view."""


class Request(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True
):
    """Base of request bodies. A misspelt field is refused, never ignored."""


class Problem(Message, frozen=True, kw_only=True):
    """`code` is for programs, `message` says what is wrong and where, `hint` what to do about it."""

    code: str
    message: str
    hint: str | None = None


class ErrorReply(Message, frozen=True, kw_only=True):
    """The body of every answer with a status of 400 or more."""

    error: Problem


class WalletAsk(Request, frozen=True, kw_only=True):
    """One wallet of a job about many. No user here means the request's own."""

    wallet_address: str
    user_id: Name | None = None


class EnqueueRequest(Request, frozen=True, kw_only=True):
    """POST /jobs. `chain_ids` are numbers, digits or slugs; none means every configured chain.

    portfolio-sync needs `user_id` and `wallet_address`; bulk-sync `wallets`; chain-sync `wallets` and one chain;
    token-metadata `tokens` (addresses) and one chain.
    """

    type: str
    user_id: Name | None = None
    wallet_address: str | None = None
    wallets: tuple[WalletAsk, ...] = ()
    tokens: tuple[str, ...] = ()
    #: None: medium for one wallet, low for a job about many.
    priority: Literal["high", "medium", "low"] | None = None
    delay: DelayMs = 0
    chain_ids: tuple[int | str, ...] = ()
    force_refresh: bool = False
    sync_type: Literal["portfolio", "trades", "full", "metadata"] = "portfolio"
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    #: An id of the caller's choice: while the queue keeps a job of that id, no second one is added.
    job_id: Name | None = None


class Accepted(Message, frozen=True, kw_only=True):
    """202. `existing` means that nothing was added: the queue holds a job of that id, in `state`."""

    job_id: str
    state: str
    existing: bool = False


class Timestamps(Message, frozen=True, kw_only=True):
    """Epoch milliseconds, as the queue keeps them."""

    created: int
    due: int | None = None
    processed: int | None = None
    finished: int | None = None


class JobDetail(Message, frozen=True, kw_only=True):
    """A job. `source`: "queue", "dead-letter" (the ledger's copy of a trimmed job) or "worker" (just ended here)."""

    job_id: str
    name: str
    queue: str
    state: str
    #: Attempts that have ended, the successful one included; a running one does not count.
    attempts: int
    timestamps: Timestamps
    max_attempts: int | None = None
    priority: int = 0
    progress: Any = None
    reason: str | None = None
    stack: tuple[str, ...] = ()
    #: The return value.
    result: Any = None
    #: The payload.
    data: Any = None
    processed_by: str | None = None
    #: The first lines of the job's own log; only where one job is asked for.
    logs: tuple[str, ...] = ()
    source: str = "queue"


class JobPage(Message, frozen=True, kw_only=True):
    state: str
    start: int
    jobs: tuple[JobDetail, ...]


class Cancelled(Message, frozen=True, kw_only=True):
    """`state` is what the job was in; a running job ends as soon as its attempt has cleaned up."""

    job_id: str
    cancelled: bool
    state: str


class Promoted(Message, frozen=True, kw_only=True):
    job_id: str
    state: str


class DeadFilter(Request, frozen=True, kw_only=True):
    """Which failed jobs: `ids`, or those that match every filter given, or `all` of them."""

    ids: tuple[str, ...] = ()
    #: A part of the failure's reason, case-insensitive.
    reason: str | None = None
    #: The job's name.
    name: str | None = None
    user: str | None = None
    #: Failed longer ago than this, and more recently than this; seconds.
    older_than: Seconds | None = None
    newer_than: Seconds | None = None
    all: bool = False
    #: Only count.
    dry_run: bool = False
    #: At most this many in one call; the answer says when there are more.
    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 10_000


class RequeueRequest(DeadFilter, frozen=True, kw_only=True):
    """Which jobs go back to waiting."""

    state: Literal["failed", "completed"] = "failed"


class PurgeRequest(DeadFilter, frozen=True, kw_only=True):
    """Which failed jobs are forgotten for good, the ledger's copies included."""


class PurgeResult(Message, frozen=True, kw_only=True):
    """`removed` left the queue's failed set, `forgotten` copies left the ledger (most jobs are in both)."""

    matched: int
    removed: int
    forgotten: int
    more: bool = False


class DeadPage(Message, frozen=True, kw_only=True):
    """Jobs that failed for good, newest first. `next` is what to pass as `after` for older ones."""

    total: int
    jobs: tuple[JobDetail, ...]
    next: str | None = None


class RequeueResult(Message, frozen=True, kw_only=True):
    """`requeued` went back from the queue's set, `restored` were added again from the ledger's copies."""

    matched: int
    requeued: int
    restored: int
    #: Asked for but neither in the set nor among the copies (or taken by somebody meanwhile).
    skipped: int
    ids: tuple[str, ...]
    #: True when the call reached its limit: ask again for the rest.
    more: bool = False


class BreakerRequest(Request, frozen=True, kw_only=True):
    """POST /breakers/{name}/cordon|uncordon|reset. `ttl_s` (seconds) bounds a cordon; none: until it is lifted."""

    reason: Annotated[str, msgspec.Meta(max_length=500)] | None = None
    ttl_s: Annotated[float, msgspec.Meta(gt=0, le=31_536_000)] | None = msgspec.field(default=None, name="ttl_s")


class BreakerView(Message, frozen=True, kw_only=True):
    """state: closed | open | half-open | cordoned. `opened_at` is unix seconds."""

    name: str
    state: str
    failures: int
    opened_at: float | None = None
    reason: str | None = None


class Breakers(Message, frozen=True, kw_only=True):
    breakers: tuple[BreakerView, ...]


class PauseRequest(Request, frozen=True, kw_only=True):
    """Nothing given pauses the queue for every worker; `worker` ("this" or its name) only that worker's claiming."""

    worker: str | None = None
    queue: str | None = None
    reason: str | None = None


class PauseResult(Message, frozen=True, kw_only=True):
    """`scope`: queue | worker."""

    scope: str
    name: str
    is_paused: bool


class RestartRequest(Request, frozen=True, kw_only=True):
    """Nothing given means every worker process of this daemon, one after the other."""

    worker: str | None = None
    reason: str | None = None


class RestartResult(Message, frozen=True, kw_only=True):
    """202. The workers that will be restarted, in this order."""

    workers: tuple[str, ...]


class QueueStats(Message, frozen=True, kw_only=True):
    """`by_priority` counts waiting jobs per BullMQ priority (1 first); None when the queue was not asked."""

    queue: str
    is_paused: bool
    #: False when Redis did not answer: the numbers are the last ones known.
    fresh: bool
    counts: dict[str, int]
    by_priority: dict[str, int] | None
    rates: Rates
    #: Seconds; None when nothing waits.
    oldest_waiting_age: float | None


class WorkerView(Message, frozen=True, kw_only=True):
    """Times are unix seconds."""

    worker: str
    queue: str
    host: str
    pid: int
    version: str
    state: str
    slots: int
    slots_busy: int
    is_paused: bool
    started_at: float
    seen_at: float
    #: Jobs ended per second, lately.
    per_second: float = 0.0
    #: Since it started.
    completed: int = 0
    failed: int = 0
    rss_bytes: int = 0
    #: Share of one core, 1.0 = a whole core.
    cpu: float = 0.0


class Workers(Message, frozen=True, kw_only=True):
    workers: tuple[WorkerView, ...]


class DependencyState(Message, frozen=True, kw_only=True):
    """One thing the daemon leans on. `detail` says what is wrong and what to do; never a URL or a password."""

    ok: bool
    detail: str | None = None
    #: Readiness fails only with a required one.
    required: bool = True
    latency_ms: float | None = None


class SchedulerStats(Message, frozen=True, kw_only=True):
    """What dashboards read of the periodic scheduler under /health."""

    enabled: bool = False
    running: bool = False
    total_users: int = 0
    active_users: int = 0
    is_market_hours: bool = False
    #: scheduled | not_scheduled
    next_scheduled_sync: str = "not_scheduled"


class Health(Message, frozen=True, kw_only=True):
    """`status`: healthy | degraded (a child has failed or an answer is missing)."""

    status: str
    service: str
    version: str
    #: Seconds since the daemon started.
    uptime: float
    #: Unix seconds.
    timestamp: float
    state: str
    scheduler_stats: SchedulerStats
    problems: tuple[str, ...] = ()


class Ready(Message, frozen=True, kw_only=True):
    """`status`: ready | not-ready; then `problems` names each dependency and why."""

    status: str
    dependencies: dict[str, DependencyState]
    problems: tuple[str, ...] = ()


class EventView(Message, frozen=True, kw_only=True):
    """A committed event; `body` is the whole Kafka value."""

    position: int
    id: UUID
    type: str
    topic: str
    key: str
    wallet: str
    body: msgspec.Raw
    created_at: datetime
    published_at: datetime | None


class EventsPage(Message, frozen=True, kw_only=True):
    """`next` is what to pass as `after` for the following page; `backlog` counts events not yet published."""

    events: tuple[EventView, ...]
    next: int
    backlog: int
    #: Whether something may stand behind `next`.
    more: bool = False


class Version(Message, frozen=True, kw_only=True):
    """Who answers. `job_types` are the names that POST /jobs takes."""

    version: str
    api: int
    pid: int
    worker: str
    queue: str
    job_types: tuple[str, ...]


class Index(Message, frozen=True, kw_only=True):
    """GET /v1: every method and path."""

    api: int
    paths: tuple[str, ...]
