"""What the scheduler asks of its store and what it makes of a due wallet: types, job ids, markers. Pure.

Times are unix seconds. A *slot* is the instant at which one wallet of one user is due.
"""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import Any

import msgspec

from .job import JobOptions, NewJob

#: How the payload's metadata says who asked: neither activity of the user nor counted against the user.
TRIGGER, BULK = "periodic", "bulk"
#: BullMQ's scale (manual: high 1, medium 5, low 10): stale, regular; rich wallets one before the others. A stale
#: wallet goes before everything but what a person marked as urgent; a regular one after what a person asked for.
STALE, REGULAR = 3, 7
#: The classes' names in the payload, for readers who know high, medium and low only.
NAMES = {STALE: "high", REGULAR: "medium"}


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """A wallet to sync periodically, or a sign of life of its user. None leaves what is there."""

    user_id: str
    wallet: str
    #: The first slot of a wallet that is new here.
    due_at: int
    #: When one whose user had been away becomes due.
    revive_at: int
    active_at: float
    interval_minutes: int | None = None
    timezone: str | None = None


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """A wallet whose slot has come, with all that the decision needs."""

    user_id: str
    wallet: str
    #: The slot.
    due_at: int
    last_active_at: float
    #: Somebody wants it now, fresh or not.
    is_forced: bool = False
    is_enabled: bool = True
    #: When we last queued a sync.
    queued_at: float | None = None
    #: When the wallet's syncs last ended in any way.
    ended_at: float | None = None
    last_sync_at: float | None = None
    total_value_usd: Decimal | None = None
    interval_minutes: int | None = None
    timezone: str | None = None


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """A page of due wallets, held for the caller for a while. `at` is the store's clock."""

    at: float
    is_paused: bool
    wallets: tuple[Due, ...] = ()


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a due wallet. Ignored when its slot is not `due_at` any more."""

    user_id: str
    wallet: str
    due_at: int
    next_due_at: int
    #: When to look next; None: not before the user is active again, unless that was after `active_at`.
    look_at: int | None
    active_at: float
    #: 0: rich, served first; 1.
    rank: int
    #: None: nothing was queued.
    queued_at: float | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`priority` None: no sync at this slot, for the reason `why`. `missed`: slots that passed unused."""

    mark: Mark
    priority: int | None
    why: str
    missed: int = 0


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What to change of registered wallets; None leaves it. 0 minutes and "" take the wallet's own setting away."""

    interval_minutes: int | None = None
    timezone: str | None = None
    is_enabled: bool | None = None
    active_at: float | None = None
    #: Due at once, whatever else holds.
    force_at: int | None = None


class Scheduled(msgspec.Struct, frozen=True, kw_only=True):
    """A registered wallet as operators see it. `look_at` None: nobody was active."""

    user_id: str
    wallet: str
    due_at: float
    look_at: float | None
    last_active_at: float
    last_sync_at: float | None
    is_enabled: bool
    interval_minutes: int | None
    timezone: str | None
    total_value_usd: Decimal | None


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The schedule in numbers. Active wallets are fresh, stale, or in between; `users` own them."""

    at: float
    is_paused: bool = False
    paused_reason: str | None = None
    wallets: int = 0
    users: int = 0
    active_wallets: int = 0
    active_users: int = 0
    #: Active wallets whose portfolio is younger than their target.
    fresh: int = 0
    stale: int = 0
    #: Wallets whose slot has come and that wait to be queued.
    due: int = 0
    next_due_at: float | None = None

    @property
    def fresh_ratio(self) -> float:
        """1 when nobody is active: nobody waits for anything."""
        return self.fresh / self.active_wallets if self.active_wallets else 1.0


class Targets(msgspec.Struct, frozen=True, kw_only=True):
    """What `Figures` counts by, in seconds."""

    active_s: float
    stale_s: float
    #: Age up to which a wallet without an interval of its own is fresh.
    fresh_s: float
    #: The same as a multiple of a wallet's own interval.
    fresh_intervals: float


def job_for(due: Due, verdict: Verdict, now: float) -> NewJob:
    """The sync of one slot. Its id is the slot's: whoever else adds it adds nothing."""
    assert verdict.priority is not None
    payload: dict[str, Any] = {
        "userId": due.user_id,
        "walletAddress": due.wallet,
        "priority": verdict.why,
        "syncType": "portfolio",
        "triggeredAt": int(now * 1000),
        "metadata": {"trigger": TRIGGER, "dueAt": due.due_at * 1000},
    }
    return NewJob(
        name="portfolio-sync",
        data=payload,
        options=JobOptions(priority=verdict.priority),
        id=job_id(due.user_id, due.wallet, due.due_at),
        timestamp=int(now * 1000),
    )


def job_id(user_id: str, wallet: str, slot: int) -> str:
    """No ':' in it, since the queue's keys use that; the user is hashed, since a user id may hold anything."""
    return f"{TRIGGER}-{wallet}-{hashlib.sha256(user_id.encode()).hexdigest()[:16]}-{slot}"


def trigger_of(extra: dict[str, Any]) -> str | None:
    """Who asked for a sync, as its payload (WalletSync.extra) says: "periodic", "bulk"; None or others: a person."""
    metadata = extra.get("metadata")
    trigger = metadata.get("trigger") if isinstance(metadata, dict) else None
    return trigger if isinstance(trigger, str) else None


def is_activity(extra: dict[str, Any]) -> bool:
    """Whether a sync is a sign that its user is there: if ours were, every user would stay active for ever."""
    return trigger_of(extra) not in (TRIGGER, BULK)


def snapshot_type(extra: dict[str, Any]) -> str:
    """How a history row says where its sync came from."""
    return "scheduled" if trigger_of(extra) == TRIGGER else "sync"


def offset_seed(user_id: str, wallet: str) -> int:
    """A large number that belongs to this wallet of this user for ever."""
    digest = hashlib.blake2b(f"{user_id}\0{wallet}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
