"""The durable truth about wallets, and what is read from it. The rules are those of the package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from ..domain.guard import Window
from ..domain.ledger import (
    Admission,
    Commit,
    DeadLetter,
    Decision,
    Ending,
    Event,
    Lease,
    LetterFilter,
    Operation,
    Orphan,
    Page,
    PastPortfolio,
    Portfolio,
    Pruned,
    Retention,
    StoredEvent,
    Withdrawal,
)
from ..domain.schedule import Change, Figures, Mark, Registration, Scheduled, Taken, Targets

ANY_LETTER = LetterFilter()


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
        sync_type: str | None = None,
        since: datetime | None = None,
        limit: int = 50,
    ) -> tuple[Operation, ...]:
        """Newest first; `since`: created then or later."""
        ...

    async def sweep(self, grace_s: float, told: Callable[[Orphan], Event] | None = None) -> int:
        """Close 'running' rows whose lease ended more than `grace_s` ago (their worker died), and write with each the
        event that `told` makes of it; how many."""
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

    async def withdraw(self, jobs: Sequence[Withdrawal]) -> int:
        """Note that jobs will not run; how many rows say so now. Operations that have ended stay as they are, and
        whoever still works on one of the others writes nothing any more."""
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

    async def newest(self) -> int:
        """The position given last; 0 when none was."""
        ...

    async def backlog(self) -> int:
        """Events not yet published."""
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
