"""What the inside asks of the outside. Every Protocol has at most eight methods and one conformance suite.

Rules for whoever implements one: map foreign errors to domain.errors at your border (Transient when trying again can
help, Permanent when it cannot), never swallow a cancellation, bound every wait, leave nothing half-done when cancelled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, runtime_checkable
from uuid import UUID

from .domain.chain import Chain
from .domain.fleet import Answer, Heartbeat, Order
from .domain.guard import Window
from .domain.job import Claim, Counts, Job, JobState, JobView, NewJob, Outcome, StalledSweep
from .domain.ledger import (
    Admission,
    Commit,
    DeadLetter,
    Decision,
    Ending,
    Event,
    Lease,
    LetterFilter,
    Operation,
    Page,
    PastPortfolio,
    Portfolio,
    Pruned,
    Retention,
    StoredEvent,
)
from .domain.quota import Charge
from .domain.schedule import Change, Figures, Mark, Registration, Scheduled, Taken, Targets
from .domain.token import ChainSnapshot, Price, TokenMeta, TokenRef

ANY_LETTER = LetterFilter()


class Clock(Protocol):
    """Wall time, for what others read. Deadlines use trio's monotonic clock instead."""

    def now(self) -> float:
        """Unix seconds."""
        ...


class Queue(Protocol):
    """The worker's side of one queue."""

    @property
    def name(self) -> str: ...

    async def claim(self) -> Claim:
        """Take the next job under a fresh lock, or learn when to look again. One round trip."""
        ...

    async def settle(self, job: Job, outcome: Outcome, *, fetch: bool) -> Claim | None:
        """End our hold on `job`. With `fetch` the same round trip may claim the next job (None: it did not look).

        Raises LeaseLost when the lock is no longer ours; the queue is unchanged then. Safe to repeat when the
        connection broke midway: the second call finds the work done and says so by LeaseLost.
        """
        ...

    async def wait(self, timeout: float) -> bool:
        """True when the queue's marker says there may be work, False after `timeout` seconds. Never polls."""
        ...

    async def extend(self, jobs: Sequence[Job]) -> tuple[str, ...]:
        """Renew the locks of `jobs`; returns the ids whose lock was lost."""
        ...

    async def recover_stalled(self) -> StalledSweep:
        """Put back jobs whose worker stopped renewing, fail those that stalled too often."""
        ...

    async def progress(self, job: Job, value: Any) -> None:
        """Publish progress (any JSON value) to whoever listens to the queue's events."""
        ...

    async def log(self, job: Job, line: str) -> None:
        """Append a line to the job's own log."""
        ...


class QueueAdmin(Protocol):
    """The producers' and operators' side of one queue."""

    async def add(self, jobs: Sequence[NewJob]) -> tuple[str, ...]:
        """Add jobs in order; the ids they have now. An id that exists already is returned, not added twice."""
        ...

    async def counts(self) -> Counts: ...

    async def get(self, job_id: str) -> JobView | None: ...

    async def list(self, state: JobState, *, start: int = 0, limit: int = 50) -> tuple[JobView, ...]:
        """A page of one state; waiting-like states oldest first, finished ones newest first."""
        ...

    async def requeue(self, job_ids: Sequence[str]) -> tuple[str, ...]:
        """Failed or completed jobs back to waiting, attempts reset, in batches; the ids that were moved."""
        ...

    async def promote(self, job_id: str) -> bool:
        """A delayed job becomes due now. False when it is not delayed."""
        ...

    async def remove(self, job_ids: Sequence[str]) -> tuple[str, ...]:
        """Remove jobs that nobody holds (children included); the ids that were removed."""
        ...

    async def pause(self, paused: bool) -> None:
        """Pause or resume the queue for every worker of every version; resuming strands no job."""
        ...


class QueueUpkeep(Protocol):
    """What operators ask of a queue less often."""

    async def priorities(self) -> Mapping[int, int]:
        """How many jobs wait per priority (0: none given); priorities without jobs are absent."""
        ...

    async def oldest_waiting(self) -> int | None:
        """Epoch ms at which the job that is next in line was added; None when nothing waits."""
        ...

    async def logs(self, job_id: str, *, start: int = 0, limit: int = 100) -> tuple[str, ...]:
        """Lines of a job's own log, oldest first."""
        ...

    async def clean(self, state: JobState, *, grace_ms: int = 0, limit: int = 1000) -> tuple[str, ...]:
        """Remove up to `limit` jobs that have been in `state` for longer than `grace_ms`; their ids."""
        ...

    async def update_data(self, job_id: str, data: Any) -> bool:
        """Replace a job's payload. False when there is no such job."""
        ...

    async def reprioritize(self, job_id: str, priority: int) -> bool:
        """Give a job another priority (0: none, served first). False when there is no such job."""
        ...

    async def limit(self, *, concurrency: int | None, rate: tuple[int, int] | None) -> None:
        """Bound the queue for all its workers: jobs at once, and (jobs, per ms). None lifts a bound."""
        ...

    async def drain(self, *, delayed: bool = False) -> None:
        """Remove every waiting job (and delayed ones); those being worked on are left alone."""
        ...


class Ledger(Protocol):
    """The durable truth about wallets. Every method is one transaction and, on PostgreSQL, one round trip."""

    async def admit(self, ask: Admission) -> Decision: ...

    async def commit(self, change: Commit) -> None:
        """Raises LeaseLost, with nothing written, when a later attempt holds the wallet."""
        ...

    async def close(self, ending: Ending) -> None:
        """Raises LeaseLost, with nothing written, when a later attempt holds the wallet."""
        ...

    async def renew(self, leases: Sequence[Lease], lease_s: float) -> tuple[UUID, ...]:
        """Prolong the leases; returns the operations whose lease was lost."""
        ...

    async def bury(self, letter: DeadLetter) -> None:
        """Keep a copy of a dead letter; burying the same job again overwrites it."""
        ...

    async def portfolio(self, wallet: str, user_id: str | None = None) -> tuple[Portfolio, ...]:
        """Every user's view of `wallet`, or one user's."""
        ...

    async def operations(
        self,
        *,
        user_id: str | None = None,
        wallet: str | None = None,
        status: str | None = None,
        limit: int = 50,
    ) -> tuple[Operation, ...]:
        """Newest first."""
        ...

    async def sweep(self, grace_s: float) -> int:
        """Close 'running' rows whose lease ended more than `grace_s` ago (their worker died); how many."""
        ...


class DeadLetters(Protocol):
    """The ledger's copies of jobs that failed for good."""

    async def letter(self, queue: str, job_id: str) -> DeadLetter | None: ...

    async def letters(
        self, queue: str, *, limit: int = 50, wanted: LetterFilter = ANY_LETTER, after: Page | None = None
    ) -> tuple[DeadLetter, ...]:
        """Newest first; `after` is where the page before ended."""
        ...

    async def count_letters(self, queue: str, wanted: LetterFilter) -> int: ...

    async def exhume(self, queue: str, job_ids: Sequence[str]) -> int:
        """Forget copies (their jobs were requeued, or are not wanted any more); how many."""
        ...


class History(Protocol):
    """What wallets held before."""

    async def history(
        self,
        wallet: str,
        *,
        user_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 50,
    ) -> tuple[PastPortfolio, ...]:
        """Snapshots with since <= time < until, newest first."""
        ...


class LedgerUpkeep(Protocol):
    """What the ledger is asked beside the jobs' own course."""

    async def window_frees_at(self, user_id: str, window: Window) -> datetime | None:
        """When the user's next counted sync may be admitted; None: now. Only looks."""
        ...

    async def prune(self, keep: Retention, limit: int) -> Pruned:
        """Remove at most `limit` rows of each table that are older than `keep` says, in one short transaction."""
        ...

    async def tell(self, events: Sequence[Event]) -> None:
        """Put events into the outbox that belong to no job's change; repeating one changes nothing."""
        ...


class Schedule(Protocol):
    """Which wallets are synced periodically, and when each is due. Shared by all daemons of one ledger."""

    async def register(self, wallets: Sequence[Registration]) -> int:
        """Add wallets, or note that the users of known ones are active; how many were new. One transaction."""
        ...

    async def take(self, limit: int, hold_s: float, *, even_paused: bool = False) -> Taken:
        """Up to `limit` due wallets, rich ones first, for the caller alone during `hold_s`; none while paused."""
        ...

    async def mark(self, marks: Sequence[Mark]) -> None:
        """Say what became of wallets that were taken."""
        ...

    async def change(self, user_id: str, wallet: str | None, change: Change) -> int:
        """Change one wallet of a user, or all (None); how many there are."""
        ...

    async def remove(self, user_id: str, wallet: str | None) -> int:
        """Forget one wallet of a user, or all; how many there were."""
        ...

    async def page(
        self, *, user_id: str | None = None, after: tuple[str, str] | None = None, limit: int = 50
    ) -> tuple[Scheduled, ...]:
        """Registered wallets by user and wallet, those behind the key `after`."""
        ...

    async def figures(self, targets: Targets) -> Figures: ...

    async def pause(self, paused: bool, reason: str | None = None) -> None:
        """For every daemon, until resumed."""
        ...


class Outbox(Protocol):
    """Committed events, in commit order per wallet."""

    async def read(self, after: int, limit: int) -> tuple[StoredEvent, ...]:
        """Events with position > after, oldest first."""
        ...

    async def backlog(self) -> int:
        """Events not yet published."""
        ...


class Cache(Protocol):
    """A shared cache; losing it costs time, never truth. Keys are our own, values opaque bytes."""

    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes]: ...

    async def put_many(self, entries: Mapping[str, bytes], ttl_s: float) -> None: ...


class Fleet(Protocol):
    """The workers of one queue, on any number of hosts: who lives, and orders from one to another."""

    async def beat(self, heartbeat: Heartbeat, ttl_s: float) -> None:
        """Say how a worker does; it counts as gone `ttl_s` later."""
        ...

    async def leave(self, worker: str) -> None:
        """Forget a worker that goes."""
        ...

    async def heartbeats(self) -> tuple[Heartbeat, ...]:
        """The last word of every living worker, by name."""
        ...

    async def ask(self, worker: str, order: Order, timeout: float) -> Answer | None:
        """Send an order; None when no answer came within `timeout` seconds (it may have been carried out)."""
        ...

    async def next_order(self, worker: str) -> Order | None:
        """Wait for an order to `worker`; None now and then, without one."""
        ...

    async def answer(self, order: Order, answer: Answer) -> None: ...


class Quota(Protocol):
    """Budgets of requests or other units that providers grant, shared by whoever shares the quota."""

    async def take(self, charges: Sequence[Charge]) -> float:
        """Take all of the charges, or none: 0 when taken, else the seconds until they may fit. Never raises."""
        ...


class BreakerStore(Protocol):
    """Where the states of breakers are kept, as text that this port does not look into."""

    async def load(self) -> dict[str, str]:
        """Every state by name, those set aside left out."""
        ...

    async def save(self, states: Mapping[str, str]) -> None:
        """Keep these states, in one transaction; the others stay."""
        ...

    async def set_aside(self, name: str) -> None:
        """Keep a state that cannot be read for whoever wants to look, and never load it again."""
        ...


class ChainReader(Protocol):
    """Reads wallets on one chain."""

    @property
    def chain(self) -> Chain: ...

    async def read(self, wallet: str, seen: Sequence[str], *, refresh_metadata: bool = False) -> ChainSnapshot:
        """The wallet's balances; `seen` are token addresses to look at besides those the reader finds itself.

        Raises Transient or Permanent when the chain as a whole could not be read; never an empty snapshot instead.
        """
        ...


@runtime_checkable
class ManyReader(ChainReader, Protocol):
    """A chain reader that can share its requests between wallets."""

    async def read_many(
        self, wallets: Sequence[tuple[str, Sequence[str]]], *, refresh_metadata: bool = False
    ) -> tuple[ChainSnapshot, ...]:
        """As `read` for each (wallet, seen), all at one block, in the order given; raises for all of them or none."""
        ...


@runtime_checkable
class TokenReader(ChainReader, Protocol):
    """A chain reader that can ask tokens what they are."""

    async def describe(self, tokens: Sequence[str]) -> Mapping[str, TokenMeta]:
        """What each address says of itself now (unknown parts None), remembered for later reads."""
        ...


class PriceSource(Protocol):
    """Prices from one vendor, batched."""

    @property
    def name(self) -> str: ...

    async def prices(self, tokens: Sequence[TokenRef]) -> Mapping[TokenRef, Price]:
        """What the source knows; unknown tokens are absent. Raises Transient when the source as a whole is away."""
        ...
