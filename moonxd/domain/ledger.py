"""What the worker asks of the ledger, and what it answers: one job's life in the database."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from .errors import LeaseLost
from .guard import COUNTED, Trip, Window
from .token import Holding, TokenRef


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A row for the outbox, written in the transaction of the change it tells of. Built by domain/event.py."""

    id: UUID
    #: For example "sync.completed".
    type: str
    #: Which configured topic: "sync.events", "portfolio.updates", "system.alerts", "user.activities".
    topic: str
    #: Partition key: the user id.
    key: str
    wallet: str
    #: The whole Kafka value as JSON.
    body: bytes


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An outbox row as read back: `position` grows in commit order per wallet."""

    position: int
    event: Event
    created_at: datetime
    published_at: datetime | None = None
    #: Why it was set aside instead of being published.
    parked: str | None = None


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """What waits for the relay."""

    count: int
    #: Seconds since the oldest of them was written, by the ledger's own clock; 0 when there is none.
    age_s: float = 0.0


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """Ask to run one attempt of a sync."""

    operation: UUID
    user_id: str
    wallet: str
    #: portfolio | full | metadata | trades
    sync_type: str
    #: high | medium | low
    priority: str
    queue: str
    job_id: str
    #: 1 for the first attempt.
    attempt: int
    max_attempts: int
    worker_id: str
    worker_version: str
    #: Seconds the wallet's lease lasts unless renewed.
    lease_s: float
    #: Kept in the audit row (chainIds, triggeredAt, the producer's metadata).
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    #: Written with the audit row (sync.started).
    events: tuple[Event, ...] = ()
    #: Counts against the user's window; said once per operation, however often it is delivered.
    counted: bool = False
    #: Asked of counted operations that were not admitted before.
    window: Window | None = None
    #: None lets the sync through an open breaker.
    breaker: Trip | None = None
    #: Written with a cancelled audit row when the window rejects (sync.rejected), and the reason that stands there.
    rejection: tuple[Event, ...] = ()
    rejection_reason: str = ""


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """Go: the wallet's lease is ours under `fence`; a later attempt gets a higher one and ours writes nothing more."""

    fence: int
    #: The wallet's rows as they stand: the lease holder alone may change them, so they stay true until our commit.
    previous: tuple[Holding, ...]
    #: Every token this wallet was ever seen to hold, on any chain.
    seen: tuple[TokenRef, ...]
    #: Last history snapshot of this wallet (None: none yet), and whether it changed since, too soon for another one.
    snapshot_at: datetime | None = None
    snapshot_owed: bool = False
    #: Total of the last portfolio.updated of this wallet; None: there was none.
    told_value_usd: Decimal | None = None


class Busy(msgspec.Struct, frozen=True):
    """Another live operation holds the wallet's lease until (at most) `until`."""

    operation: UUID
    until: datetime


class AlreadyCommitted(msgspec.Struct, frozen=True):
    """This very operation was committed before (the worker died between the commit and the queue's answer)."""

    result: dict[str, Any]


class RateLimited(msgspec.Struct, frozen=True):
    """The user's window is full until `retry_at`. With `Window.reject` the audit row says cancelled."""

    retry_at: datetime


class BreakerOpen(msgspec.Struct, frozen=True):
    """The user's syncs keep failing: no other one before `retry_at`."""

    retry_at: datetime


Decision = Admitted | Busy | AlreadyCommitted | RateLimited | BreakerOpen


class Lease(msgspec.Struct, frozen=True):
    """The right to write one wallet."""

    operation: UUID
    user_id: str
    wallet: str
    fence: int


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """One transaction: holdings, history, status, audit row and events, or nothing."""

    lease: Lease
    sync_type: str
    #: Chains whose rows are replaced; all rows of other chains stay as they are.
    chains: tuple[int, ...]
    #: Rows to insert or overwrite.
    changed: tuple[Holding, ...]
    #: Rows to delete (balance gone).
    removed: tuple[TokenRef, ...]
    #: The whole portfolio after this commit, for the history snapshot; None when no snapshot is due.
    snapshot: tuple[Holding, ...] | None
    #: "scheduled" for the scheduler's syncs, else "sync"; other programs wrote auto and manual.
    snapshot_type: str
    #: Whether a later sync owes the history a snapshot; None: as it stands.
    snapshot_owed: bool | None = None
    total_value_usd: Decimal
    #: Rows of the whole portfolio after this commit, chains read successfully for it.
    tokens_count: int
    chains_synced: int
    duration_ms: int
    #: The job's return value, kept so that a redelivery can answer with it.
    result: dict[str, Any]
    #: Merged into the audit row's metadata: block heights, failed chains and reasons, quarantined tokens.
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    events: tuple[Event, ...] = ()
    #: The total that a portfolio.updated among the events tells; None: there is none.
    told_value_usd: Decimal | None = None
    #: The user breaker's rule, for the view that readers find in `sync_metadata`.
    breaker: Trip | None = None


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that ended without a commit. Frees the lease; written only if the fence is still ours.

    status: retrying (audit row back to pending, retry_count + 1) | failed | cancelled |
    released (handed back by a drain: pending, nothing counted).
    """

    lease: Lease
    sync_type: str
    status: str
    error: str | None
    duration_ms: int
    events: tuple[Event, ...] = ()
    breaker: Trip | None = None


class Orphan(msgspec.Struct, frozen=True, kw_only=True):
    """A running operation whose worker is gone. `attempt` is None in rows of other programs."""

    operation: UUID
    user_id: str
    wallet: str
    fence: int
    attempt: int | None = None


class Withdrawal(msgspec.Struct, frozen=True, kw_only=True):
    """A job that will not run any more though it did not end by itself. `ask` is what its admission would have been.

    Its audit row, opened if there is none, becomes cancelled; with it the ask's events are written.
    """

    ask: Admission
    reason: str


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger's copy of a job that failed for good; survives removeOnFail. Times are epoch ms."""

    queue: str
    job_id: str
    name: str
    timestamp: int
    #: The payload as the producer wrote it.
    data: bytes
    options: dict[str, Any]
    reason: str
    stack: tuple[str, ...]
    attempts_made: int
    failed_at: int
    user_id: str | None = None
    wallet: str | None = None


class LetterFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters; what is None does not matter."""

    ids: tuple[str, ...] | None = None
    #: A part of the reason, case-insensitive.
    reason: str | None = None
    name: str | None = None
    user: str | None = None
    #: Failed before this, epoch ms.
    before: int | None = None
    #: Failed at or after this, epoch ms.
    since: int | None = None

    def matches(self, *, reason: str | None, name: str, user: str | None, failed_at: int | None) -> bool:
        """The rule itself, for failed jobs that the ledger has no copy of."""
        return (
            (self.reason is None or self.reason.lower() in (reason or "").lower())
            and self.name in (None, name)
            and self.user in (None, user)
            and (self.before is None or (failed_at is not None and failed_at < self.before))
            and (self.since is None or (failed_at is not None and failed_at >= self.since))
        )


class Page(msgspec.Struct, frozen=True):
    """Where a page of dead letters ended: the last one's time and id. Newest first, so the next ones are older."""

    failed_at: int
    job_id: str


class PastPortfolio(msgspec.Struct, frozen=True, kw_only=True):
    """A wallet as one sync found it, from the history."""

    user_id: str
    wallet: str
    taken_at: datetime
    #: sync | scheduled | manual | auto
    type: str
    operation: UUID | None
    holdings: tuple[Holding, ...]
    #: Spam and unpriced rows are left out of it.
    total_value_usd: Decimal


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long rows are kept, in seconds; None keeps them for ever."""

    history_s: float | None = None
    #: Ended operations only; the last one of a wallet always stays.
    operations_s: float | None = None
    outbox_s: float | None = None
    #: Rows of the outbox beyond the newest this many go, whatever their age.
    outbox_rows: int | None = None
    #: Whether events that were never published go as well: nobody is going to publish them.
    unpublished: bool = False


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows one batch removed."""

    history: int = 0
    operations: int = 0
    outbox: int = 0


class Portfolio(msgspec.Struct, frozen=True, kw_only=True):
    """One user's view of one wallet."""

    user_id: str
    wallet: str
    holdings: tuple[Holding, ...]
    #: Spam and unpriced rows are left out of it.
    total_value_usd: Decimal
    last_sync_at: datetime | None
    sync_status: str | None
    last_error: str | None = None


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `sync_operations`."""

    id: UUID
    user_id: str
    wallet: str
    type: str
    status: str
    priority: str
    started_at: datetime | None
    completed_at: datetime | None
    duration_ms: int | None
    tokens_synced: int
    chains_synced: int
    total_value_usd: Decimal | None
    error: str | None
    retry_count: int
    worker_id: str | None
    worker_version: str | None
    metadata: dict[str, Any]


# ---- rules that every ledger keeps ---------------------------------------------------------------------------------

#: What the audit row becomes when an attempt ends without a commit.
AFTER_ENDING: dict[str, str] = {
    "retrying": "pending",
    "failed": "failed",
    "cancelled": "cancelled",
    "released": "pending",
}

#: Why an operation ended that somebody called off.
CANCELLED = "cancelled by an operator"
#: Why the janitor closed a row whose worker is gone.
ABANDONED = "the worker stopped without a word and its lease ran out: the operation was closed by the janitor"
#: Rows that another program left 'running' hold no lease of ours; they count as abandoned after this many seconds.
FOREIGN_GRACE_S = 3600.0


def storable(text: str | None) -> str | None:
    """`text` without what no database keeps: NUL characters and lone surrogates (token names contain both)."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return text.replace("\0", "").encode("utf-8", "ignore").decode("utf-8")


def storable_value(value: Any) -> Any:
    """`storable` for a JSON-like value, keys included."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable_value(key): storable_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [storable_value(item) for item in value]
    return value


def storable_json(value: Any) -> str:
    """JSON text of `value` that every database keeps."""
    try:
        text = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        return msgspec.json.encode(storable_value(msgspec.to_builtins(value))).decode()
    # Looking for the escape once is far cheaper than walking every value of every row.
    if "\\u0000" in text:
        return msgspec.json.encode(storable_value(msgspec.json.decode(text))).decode()
    return text


def raw_balance(text: str | None) -> int:
    """The raw balance of a stored row. What an earlier program left there and is no integer reads as 0: the next
    sync sees a difference and overwrites it."""
    text = (text or "").strip()
    try:
        return max(0, int(text, 16 if text[:2] in ("0x", "0X") else 10))
    except ValueError:
        return 0


def audit_metadata(ask: Admission, fence: int) -> dict[str, Any]:
    """What the audit row says about an admitted attempt, beside the producer's own words."""
    return {
        **ask.metadata,
        "queue": ask.queue,
        "jobId": ask.job_id,
        "attempt": ask.attempt,
        "maxAttempts": ask.max_attempts,
        "fence": fence,
        COUNTED: ask.counted,
    }


def lease_lost(lease: Lease) -> LeaseLost:
    return LeaseLost(
        f"wallet {lease.wallet} of user {lease.user_id} is no longer held by operation {lease.operation} "
        f"(fence {lease.fence}): a later attempt took it over, nothing was written"
    )
