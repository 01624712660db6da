"""When a wallet is due for a periodic sync, and what to do with it then. Pure; times are unix seconds.

A wallet is due at *slots*: instants that follow from the schedule in force and from an offset of the wallet's own, so
that 10,000 wallets of one interval are spread over it, on every daemon in the same way and after every restart.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from functools import lru_cache
from zoneinfo import ZoneInfo

import msgspec

from .cron import Cron
from .errors import Permanent
from .schedule import NAMES, REGULAR, STALE, Due, Mark, Registration, Targets, Verdict, offset_seed

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: A wallet whose syncing is switched off is looked at again after this; whoever switches it on here is faster.
DISABLED_S = 3600
#: A wallet that comes back to life is due after this: the manual sync that woke it has ended by then.
REVIVE_S = 30
#: Where markets may open or close: no time zone is off by less.
_QUARTER_S = 900
#: A wallet's own interval that is longer than the stale threshold must not make each of its syncs a stale one.
_STALE_INTERVALS = 2
#: Fresh is who was synced within its interval and half of it: the queue and the sync itself take time too.
FRESH_INTERVALS = 1.5


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of the schedule. Hours are local to the wallet's time zone, UTC without one."""

    market_interval_s: float = 300.0
    off_interval_s: float = 900.0
    open_hour: int = 9
    close_hour: int = 17
    days: tuple[str, ...] = WEEKDAYS
    #: Replaces both intervals.
    cron: Cron | None = None
    #: The wallets of one instant of `cron` are spread over this.
    cron_spread_s: float = 300.0
    stale_s: float = 3600.0
    active_s: float = 86400.0
    high_value_usd: Decimal = Decimal(10_000)


class Plan:
    """The schedule that follows from the rules."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._cron = rules.cron
        self._days = frozenset(WEEKDAYS.index(day) for day in rules.days)

    # ---- time ----------------------------------------------------------------------------------------------------

    def is_market(self, at: float, timezone: str | None = None) -> bool:
        """Whether markets are open. An open hour after the close hour means: over midnight, by the day it opened."""
        rules, local = self.rules, datetime.fromtimestamp(at, _zone_or_utc(timezone))
        if rules.open_hour == rules.close_hour:
            return local.weekday() in self._days
        if rules.open_hour < rules.close_hour:
            return local.weekday() in self._days and rules.open_hour <= local.hour < rules.close_hour
        if local.hour >= rules.open_hour:
            return local.weekday() in self._days
        return local.hour < rules.close_hour and (local.weekday() - 1) % 7 in self._days

    def interval(self, at: float, interval_minutes: int | None = None, timezone: str | None = None) -> float:
        """Seconds between two slots, as of `at`."""
        if interval_minutes:
            return interval_minutes * 60.0
        if self._cron is not None:
            first = self._cron.after(int(at))
            second = self._cron.after(first) if first is not None else None
            return float(second - first) if first is not None and second is not None else float(DISABLED_S)
        return self.rules.market_interval_s if self.is_market(at, timezone) else self.rules.off_interval_s

    def next_slot(
        self,
        user_id: str,
        wallet: str,
        after: float,
        *,
        interval_minutes: int | None = None,
        timezone: str | None = None,
    ) -> int:
        """The wallet's first slot later than `after`."""
        seed = offset_seed(user_id, wallet)
        if interval_minutes:
            return _slot_after(after, interval_minutes * 60, seed)
        if self._cron is not None:
            return self._cron_slot(after, seed)
        is_market = self.is_market(after, timezone)
        slot = _slot_after(after, self._step(is_market), seed)
        turn = self._turn(after, slot, is_market, timezone)
        return slot if turn is None else _slot_after(turn - 1, self._step(not is_market), seed)

    def _step(self, is_market: bool) -> int:
        return max(1, round(self.rules.market_interval_s if is_market else self.rules.off_interval_s))

    def _turn(self, after: float, until: int, is_market: bool, timezone: str | None) -> int | None:
        """The first instant in (after, until] at which markets open or close."""
        mark = (int(after) // _QUARTER_S + 1) * _QUARTER_S
        while mark <= until:
            if self.is_market(mark, timezone) is not is_market:
                return mark
            mark += _QUARTER_S
        return None

    def _cron_slot(self, after: float, seed: int) -> int:
        assert self._cron is not None
        offset = seed % max(1, round(self.rules.cron_spread_s))
        fire = self._cron.after(int(after) - offset)
        # A pattern that never fires is no reason to forget the wallet: the configuration may change.
        return fire + offset if fire is not None else int(after) + DISABLED_S

    # ---- decisions -----------------------------------------------------------------------------------------------

    def register(
        self,
        user_id: str,
        wallet: str,
        now: float,
        *,
        interval_minutes: int | None = None,
        timezone: str | None = None,
        revive_s: float = REVIVE_S,
    ) -> Registration:
        slot = self.next_slot(user_id, wallet, now, interval_minutes=interval_minutes, timezone=timezone)
        return Registration(
            user_id=user_id,
            wallet=wallet,
            due_at=slot,
            revive_at=int(now + revive_s),
            active_at=now,
            interval_minutes=interval_minutes,
            timezone=timezone,
        )

    def decide(self, due: Due, now: float) -> Verdict:
        """What to do with a wallet whose slot has come."""
        slot = self.next_slot(
            due.user_id, due.wallet, now, interval_minutes=due.interval_minutes, timezone=due.timezone
        )
        if not due.is_enabled:
            return self._skip(due, "disabled", slot, int(now) + DISABLED_S)
        if due.is_forced:
            return self._sync(due, now, slot, STALE)
        if now - due.last_active_at > self.rules.active_s:
            return self._skip(due, "inactive", slot, None)
        interval = self.interval(now, due.interval_minutes, due.timezone)
        stale_s = self.stale_after(due.interval_minutes)
        if self._is_pending(due, now, max(stale_s, interval)):
            return self._skip(due, "pending", slot, slot, missed=1 + self._missed(due, now, interval))
        age = now - due.last_sync_at if due.last_sync_at is not None else None
        if age is not None and age < interval / 2:
            return self._skip(due, "fresh", slot, slot)
        is_stale = age is None or age > stale_s
        return self._sync(due, now, slot, STALE if is_stale else REGULAR, missed=self._missed(due, now, interval))

    def stale_after(self, interval_minutes: int | None) -> float:
        own = (interval_minutes or 0) * 60.0
        return self.rules.stale_s if own <= self.rules.stale_s else own * _STALE_INTERVALS

    def targets(self, now: float) -> Targets:
        rules = self.rules
        return Targets(
            active_s=rules.active_s,
            stale_s=rules.stale_s,
            fresh_s=self.interval(now) * FRESH_INTERVALS,
            fresh_intervals=FRESH_INTERVALS,
        )

    def is_rich(self, value: Decimal | None) -> bool:
        return value is not None and value >= self.rules.high_value_usd

    def _is_pending(self, due: Due, now: float, patience_s: float) -> bool:
        """Whether the sync of an earlier slot is still on its way. One that got lost is waited for only so long."""
        if due.queued_at is None or now - due.queued_at > patience_s:
            return False
        return due.ended_at is None or due.ended_at < due.queued_at

    def _missed(self, due: Due, now: float, interval: float) -> int:
        return max(0, int((now - due.due_at) // interval))

    def _sync(self, due: Due, now: float, slot: int, level: int, *, missed: int = 0) -> Verdict:
        mark = self._mark(due, slot, slot, queued_at=now)
        return Verdict(mark=mark, priority=level - 1 + mark.rank, why=NAMES[level], missed=missed)

    def _skip(self, due: Due, why: str, slot: int, look_at: int | None, *, missed: int = 0) -> Verdict:
        return Verdict(mark=self._mark(due, slot, look_at), priority=None, why=why, missed=missed)

    def _mark(self, due: Due, slot: int, look_at: int | None, *, queued_at: float | None = None) -> Mark:
        return Mark(
            user_id=due.user_id,
            wallet=due.wallet,
            due_at=due.due_at,
            next_due_at=slot,
            look_at=look_at,
            active_at=due.last_active_at,
            rank=0 if self.is_rich(due.total_value_usd) else 1,
            queued_at=queued_at,
        )


def _slot_after(after: float, step: int, seed: int) -> int:
    offset = seed % step
    return (int(after) - offset) // step * step + step + offset


@lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo:
    """Raises Permanent for a name that is no time zone."""
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError) as error:
        raise Permanent(f"there is no time zone {name[:64]!r}: use a name like Europe/Berlin or UTC") from error


@lru_cache(maxsize=1024)
def _zone_or_utc(name: str | None) -> tzinfo:
    """A zone that another host knew and this one does not must not stop the wallet's syncs."""
    try:
        return zone(name) if name else UTC
    except Permanent:
        return UTC
