"""A job as the queue holds it, and what may become of it. The words are BullMQ's, since other programs read them."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

#: BullMQ's own scale, 1 is served first; 0 means "no priority", served before every priority.
PRIORITIES: dict[str, int] = {"high": 1, "medium": 5, "low": 10}


class JobState(StrEnum):
    WAITING = "waiting"
    PRIORITIZED = "prioritized"
    ACTIVE = "active"
    DELAYED = "delayed"
    WAITING_CHILDREN = "waiting-children"
    COMPLETED = "completed"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Backoff(msgspec.Struct, frozen=True):
    """`kind` fixed | exponential | a custom name from the table in domain/retry.py; `delay` in ms; `jitter` 0..1.

    `multiplier` is the factor of exponential growth: ours to configure, BullMQ's producers always mean 2.
    """

    kind: str = "exponential"
    delay: int = 5000
    jitter: float = 0.0
    multiplier: float = 2.0


class Keep(msgspec.Struct, frozen=True):
    """How many finished jobs stay: None means no bound. `Keep(count=0)` removes at once."""

    count: int | None = None
    age_s: int | None = None
    #: At most this many old jobs are removed per finished one (None: the queue's own bound of 1000).
    limit: int | None = None


KEEP_ALL = Keep()


class JobOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options that decide a job's fate. None means the producer said nothing and our defaults apply."""

    attempts: int | None = None
    backoff: Backoff | None = None
    priority: int = 0
    delay: int = 0
    lifo: bool = False
    remove_on_complete: Keep | None = None
    remove_on_fail: Keep | None = None
    #: How many stack traces stay, the newest ones; 0 keeps none, None keeps all.
    stack_limit: int | None = None
    #: How many lines the job's log keeps, the newest ones; None keeps all.
    keep_logs: int | None = None
    #: As stored by the producer, verbatim, so that a requeued dead letter keeps every option it came with.
    raw: dict[str, Any] = msgspec.field(default_factory=dict)


class Parent(msgspec.Struct, frozen=True):
    """The job in whose flow another one is a child. It waits until its children are done."""

    id: str
    #: Qualified name of the parent's queue: prefix, colon, queue name.
    queue_key: str
    #: What the child's final failure does to the parent: None (it waits on) | fail | continue | ignore | remove.
    on_failure: str | None = None


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job to add. `data` is any JSON value; `id` None lets the queue number it."""

    name: str
    data: Any
    options: JobOptions = JobOptions()
    id: str | None = None
    #: Epoch ms; None means now.
    timestamp: int | None = None
    #: While a job with this deduplication id is unfinished (or for `deduplication_ttl` ms), another is not added.
    deduplication_id: str | None = None
    deduplication_ttl: int | None = None
    parent: Parent | None = None
    #: Added as the parent of a flow: it is not waiting until its children (added later) are done.
    has_children: bool = False


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job read from the queue. Times are epoch milliseconds."""

    queue: str
    id: str
    name: str
    #: JSON as the producer wrote it, undecoded: jobs/ decides what it must look like.
    data: bytes
    options: JobOptions
    timestamp: int
    #: Attempts that ended (failed), not counting the current one.
    attempts_made: int = 0
    attempts_started: int = 0
    stalled: int = 0
    #: Fully qualified key of the parent in a flow.
    parent_key: str | None = None
    #: Traces of earlier failed attempts, oldest first, one entry per attempt.
    stack: tuple[str, ...] = ()
    #: Why this job must fail without being run: its hash cannot be read, it stalled too often, a child failed.
    doomed: str | None = None
    #: Lock token; empty unless we hold the job.
    token: str = ""


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as operators see it."""

    job: Job
    state: JobState
    progress: Any = None
    processed_on: int | None = None
    finished_on: int | None = None
    failed_reason: str | None = None
    stack: tuple[str, ...] = ()
    return_value: Any = None
    processed_by: str | None = None
    #: Epoch ms at which a delayed job becomes due.
    due_at: int | None = None


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs per state. `paused` counts the legacy list of BullMQ 5.x; `is_paused` is the flag every version reads."""

    waiting: int = 0
    prioritized: int = 0
    active: int = 0
    delayed: int = 0
    waiting_children: int = 0
    completed: int = 0
    failed: int = 0
    paused: int = 0
    is_paused: bool = False


# ---- outcomes: what the worker tells the queue about a job it holds ----------------------------------------------


class Completed(msgspec.Struct, frozen=True):
    """Done. `value` is the return value as JSON bytes."""

    value: bytes


class Retry(msgspec.Struct, frozen=True):
    """Failed, to be tried again after `delay_ms` (0: at once). Counts as an attempt.

    `stack` is added to the job's traces: one entry, the formatted trace of this attempt (here and in Failed).
    """

    delay_ms: int
    reason: str
    stack: tuple[str, ...] = ()


class Failed(msgspec.Struct, frozen=True):
    """Failed for good: to the failed set."""

    reason: str
    stack: tuple[str, ...] = ()


class Postpone(msgspec.Struct, frozen=True):
    """Not now: due again at `until_ms` (epoch ms). Does not count as an attempt."""

    until_ms: int


class Release(msgspec.Struct, frozen=True):
    """Handed back untouched (drain, shutdown): first in line again, not counted as an attempt."""


Outcome = Completed | Retry | Failed | Postpone | Release


class Claim(msgspec.Struct, frozen=True):
    """The answer to a claim: a job whose lock is ours, or none and when to look again.

    `wake_at` (epoch ms) is the next delayed job or the end of a rate limit; None means: wait for the marker.
    With `limited` (a rate limit, or the queue's own concurrency is used up) the marker says nothing before then.
    """

    job: Job | None = None
    wake_at: int | None = None
    limited: bool = False


class StalledSweep(msgspec.Struct, frozen=True):
    """Result of one stalled check: ids put back into the queue, and ids failed for stalling too often."""

    recovered: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
