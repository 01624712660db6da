"""The life of a sync operation. Replaying these in order rebuilds `sync_operations` (domain/rebuild.py)."""

from __future__ import annotations

from decimal import Decimal

from .envelope import Data


class SyncQueued(Data, frozen=True, kw_only=True):
    """A sync waits in the queue. Told once per operation, at the latest when it is admitted for the first time."""

    queue: str
    job_id: str
    #: portfolio | full | metadata | trades
    sync_type: str
    #: high | medium | low
    priority: str
    #: Chains asked for; empty: every enabled one.
    chains: tuple[int, ...]
    force_refresh: bool
    #: Who asked: periodic, bulk, manual (through the API), or what the producer wrote; null: nobody said.
    trigger: str | None
    #: Milliseconds that the producer wanted it to wait.
    delay: int
    queued_at: int


class SyncStarted(Data, frozen=True, kw_only=True):
    """An attempt was let in: it alone may write the wallet now. A redelivery starts again, and says so."""

    sync_type: str
    chains: tuple[int, ...]
    priority: str
    #: 1 for the first.
    attempt: int
    max_attempts: int
    worker_id: str
    worker_version: str
    started_at: int


class SyncCompleted(Data, frozen=True, kw_only=True):
    """What was found is written."""

    processing_time: int
    #: Tokens on the chains that were read.
    tokens_sync: int
    chains_sync: int
    total_value_usd: Decimal
    success: bool
    #: Rows of the whole portfolio, chains that were not read included.
    tokens_total: int
    completed_at: int


class SyncRetrying(Data, frozen=True, kw_only=True):
    """An attempt ended without a result and another follows, not before `retry_at`."""

    #: Null when nothing went wrong: the worker stops and handed the job back.
    error: str | None
    processing_time: int
    #: Attempts that failed.
    retry_count: int
    retry_at: int
    #: The attempt does not count: its worker was stopped.
    handed_back: bool


class SyncFailed(Data, frozen=True, kw_only=True):
    """It failed for good. A requeue by hand may start it again."""

    error: str
    #: Null when the worker died and nobody measured it.
    processing_time: int | None
    retry_count: int
    failed_at: int
    #: Its worker died without a word, and nobody took the job up again.
    abandoned: bool


class SyncCancelled(Data, frozen=True, kw_only=True):
    """Somebody called it off, running or waiting."""

    reason: str
    #: Null when it was not running.
    processing_time: int | None
    #: Who says so.
    worker_id: str
    cancelled_at: int


class SyncRejected(Data, frozen=True, kw_only=True):
    """The user's rate limit declined it."""

    reason: str
    #: Who says so.
    worker_id: str
    rejected_at: int
