"""Requests and answers about registered users and the schedule of their periodic syncs, and the calls for them."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

import msgspec

from .calls import Call, Param
from .messages import Message, Name, Request

#: Wallets per POST /users.
MAX_ENTRIES = 1000
#: Minutes; 0 takes the wallet's own interval away.
Minutes = Annotated[int, msgspec.Meta(ge=0, le=527_040)]
_IMPORT_PATIENCE_S = 60.0


class UserEntry(Request, frozen=True, kw_only=True):
    """A wallet to sync periodically. None leaves what is known of it."""

    user_id: Name
    wallet_address: str
    interval_minutes: Minutes | None = None
    #: As in Europe/Berlin; decides when markets are open for it.
    timezone: str | None = None


class AddUsers(Request, frozen=True, kw_only=True):
    users: Annotated[tuple[UserEntry, ...], msgspec.Meta(min_length=1, max_length=MAX_ENTRIES)]


class Added(Message, frozen=True, kw_only=True):
    """`known` were registered already: their users count as active now."""

    added: int
    known: int


class ChangeUser(Request, frozen=True, kw_only=True):
    """One wallet of a user, or all of them. What is not given stays; 0 and "" take a setting away."""

    user_id: Name
    wallet_address: str | None = None
    interval_minutes: Minutes | None = None
    timezone: str | None = None
    enabled: bool | None = None


class TouchUser(Request, frozen=True, kw_only=True):
    """The user is active now (portfolio viewed)."""

    user_id: Name
    wallet_address: str | None = None


class Affected(Message, frozen=True, kw_only=True):
    """How many wallets it was about."""

    wallets: int


class UserView(Message, frozen=True, kw_only=True):
    """A registered wallet. Times are unix seconds."""

    user_id: str
    wallet_address: str
    enabled: bool
    active: bool
    #: Its own, in minutes; None: the common schedule.
    interval_minutes: int | None
    timezone: str | None
    last_active_at: float
    last_sync_at: float | None
    #: None while its user is away.
    next_due_at: float | None
    total_value_usd: Decimal | None


class UsersPage(Message, frozen=True, kw_only=True):
    """`next` is the pair to pass as afterUser and afterWallet; None on the last page."""

    users: tuple[UserView, ...]
    next: tuple[str, str] | None


class UserStats(Message, frozen=True, kw_only=True):
    """Active: seen within the configured time. Fresh: younger than its target, stale: older than the threshold."""

    at: float
    users: int
    active_users: int
    wallets: int
    active_wallets: int
    fresh: int
    stale: int
    fresh_ratio: float
    #: Slots that have come and wait to be queued.
    due: int
    #: Unix seconds of the next slot.
    next_due_at: float | None
    is_paused: bool
    paused_reason: str | None


class ScheduleView(Message, frozen=True, kw_only=True):
    """How the scheduler of this daemon stands; counts are since it started. Durations in seconds."""

    enabled: bool
    running: bool
    is_market_hours: bool
    #: Between two syncs of a wallet without an interval of its own.
    interval: float
    cron: str | None
    #: The queue is too full for more.
    held_back: bool
    rounds: int
    #: Seconds at which no round began: the one before took longer, or something was away.
    missed_ticks: int
    queued: int
    #: Slots not used, by reason: inactive, disabled, pending (the sync before is not done), fresh.
    skipped: dict[str, int]
    #: Slots that passed without a sync.
    missed: int
    #: From slot to queue: of the latest wallet, and the worst of the latest round.
    drift: float
    worst_drift: float
    last_queued_at: float | None
    last_error: str | None


class Schedule(Message, frozen=True, kw_only=True):
    scheduler: ScheduleView
    wallets: UserStats


class PauseSchedule(Request, frozen=True, kw_only=True):
    reason: str | None = None


class SchedulePaused(Message, frozen=True, kw_only=True):
    is_paused: bool


class Trigger(Request, frozen=True, kw_only=True):
    """Nothing given: look for due wallets now, even while paused. A user (or one wallet) becomes due at once."""

    user_id: Name | None = None
    wallet_address: str | None = None


class Triggered(Message, frozen=True, kw_only=True):
    """`wallets` became due; `looks` says whether this daemon looks for them now."""

    wallets: int
    looks: bool


def add(entries: tuple[UserEntry, ...]) -> Call[Added]:
    return Call(
        method="POST", path="/v1/users", body=AddUsers(users=entries), answer=Added, patience=_IMPORT_PATIENCE_S
    )


def listed(user: str | None = None, *, after: tuple[str, str] | None = None, limit: int = 50) -> Call[UsersPage]:
    params: dict[str, Param] = {"user": user, "limit": limit}
    if after is not None:
        params |= {"afterUser": after[0], "afterWallet": after[1]}
    return Call(method="GET", path="/v1/users", params=params, answer=UsersPage)


def change(ask: ChangeUser) -> Call[Affected]:
    return Call(method="PATCH", path="/v1/users", body=ask, answer=Affected)


def touch(ask: TouchUser) -> Call[Affected]:
    return Call(method="POST", path="/v1/users/touch", body=ask, answer=Affected)


def remove(user: str, wallet: str | None = None) -> Call[Affected]:
    return Call(method="DELETE", path="/v1/users", params={"user": user, "wallet": wallet}, answer=Affected)


def stats() -> Call[UserStats]:
    return Call(method="GET", path="/v1/users/stats", answer=UserStats)


def schedule() -> Call[Schedule]:
    return Call(method="GET", path="/v1/schedule", answer=Schedule)


def pause(reason: str | None = None) -> Call[SchedulePaused]:
    return Call(method="POST", path="/v1/schedule/pause", body=PauseSchedule(reason=reason), answer=SchedulePaused)


def resume() -> Call[SchedulePaused]:
    return Call(method="POST", path="/v1/schedule/resume", body=PauseSchedule(), answer=SchedulePaused)


def trigger(ask: Trigger) -> Call[Triggered]:
    return Call(method="POST", path="/v1/schedule/trigger", body=ask, answer=Triggered)
