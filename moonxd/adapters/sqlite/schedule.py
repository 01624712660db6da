"""The schedule of periodic syncs in the embedded ledger's file. Its own times are unix seconds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar

from ...domain.schedule import Change, Due, Figures, Mark, Registration, Scheduled, Taken, Targets
from .rows import decimal_of, time_text

R = TypeVar("R")
_JOINED = (
    "FROM moonxd_wallet_schedule w LEFT JOIN user_sync_status s "
    "ON s.user_id = w.user_id AND s.wallet_address = w.wallet_address"
)
_DUE = (
    "SELECT w.user_id, w.wallet_address, w.due_at, w.last_active_at, w.is_forced, coalesce(s.is_sync_enabled, 1), "
    f"w.queued_at, s.updated_at, s.last_sync_at, s.total_value_usd, s.auto_sync_interval_minutes, w.timezone {_JOINED} "
    "WHERE w.rank = ?1 AND w.look_at <= ?2 ORDER BY w.look_at LIMIT ?3"
)
_LISTED = (
    "SELECT w.user_id, w.wallet_address, w.due_at, w.look_at, w.last_active_at, s.last_sync_at, "
    "coalesce(s.is_sync_enabled, 1), s.auto_sync_interval_minutes, w.timezone, s.total_value_usd "
    f"{_JOINED} WHERE (?1 IS NULL OR w.user_id = ?1) AND (w.user_id, w.wallet_address) > (?2, ?3) "
    "ORDER BY w.user_id, w.wallet_address LIMIT ?4"
)


class Runner(Protocol):
    """Runs work on the connection, each piece in a transaction of its own."""

    async def read(self, work: Callable[[sqlite3.Connection], R]) -> R: ...

    async def write(self, work: Callable[[sqlite3.Connection], R]) -> R: ...


class SqliteSchedule:
    """Implements ports.Schedule. `now` gives unix seconds."""

    def __init__(self, runner: Runner, now: Callable[[], float]) -> None:
        self._runner = runner
        self._now = now

    async def register(self, wallets: Sequence[Registration]) -> int:
        return await self._runner.write(lambda db: sum(_register(db, one, self._now()) for one in wallets))

    async def take(self, limit: int, hold_s: float, *, even_paused: bool = False) -> Taken:
        return await self._runner.write(lambda db: _take(db, limit, hold_s, even_paused, self._now()))

    async def mark(self, marks: Sequence[Mark]) -> None:
        if marks:
            await self._runner.write(lambda db: _mark(db, marks))

    async def change(self, user_id: str, wallet: str | None, change: Change) -> int:
        return await self._runner.write(lambda db: _change(db, user_id, wallet, change, self._now()))

    async def remove(self, user_id: str, wallet: str | None) -> int:
        statement = "DELETE FROM moonxd_wallet_schedule WHERE user_id = ?1 AND (?2 IS NULL OR wallet_address = ?2)"
        return await self._runner.write(lambda db: db.execute(statement, (user_id, wallet)).rowcount)

    async def page(
        self, *, user_id: str | None = None, after: tuple[str, str] | None = None, limit: int = 50
    ) -> tuple[Scheduled, ...]:
        key = after or ("", "")
        rows = await self._runner.read(lambda db: db.execute(_LISTED, (user_id, *key, limit)).fetchall())
        return tuple(_scheduled(row) for row in rows)

    async def figures(self, targets: Targets) -> Figures:
        return await self._runner.read(lambda db: _figures(db, targets, self._now()))

    async def pause(self, paused: bool, reason: str | None = None) -> None:
        values = (paused, reason if paused else None)
        await self._runner.write(
            lambda db: db.execute("UPDATE moonxd_schedule_state SET is_paused = ?, reason = ?", values).rowcount
        )


def _register(db: sqlite3.Connection, one: Registration, now: float) -> int:
    """1 when the wallet is new."""
    new = db.execute(
        "INSERT INTO moonxd_wallet_schedule (user_id, wallet_address, due_at, look_at, last_active_at, timezone) "
        "VALUES (?1, ?2, ?3, ?3, ?4, nullif(?5, '')) ON CONFLICT DO NOTHING",
        (one.user_id, one.wallet, one.due_at, one.active_at, one.timezone),
    ).rowcount
    if not new:
        db.execute(
            "UPDATE moonxd_wallet_schedule SET timezone = coalesce(nullif(?5, ''), timezone), "
            "last_active_at = max(last_active_at, ?3), due_at = CASE WHEN look_at IS NULL THEN ?4 ELSE due_at END, "
            "look_at = coalesce(look_at, ?4) WHERE user_id = ?1 AND wallet_address = ?2",
            (one.user_id, one.wallet, one.active_at, one.revive_at, one.timezone),
        )
    if one.interval_minutes is not None:
        _set(db, one.user_id, one.wallet, one.interval_minutes, None, now)
    return new


def _take(db: sqlite3.Connection, limit: int, hold_s: float, even_paused: bool, now: float) -> Taken:
    is_paused = bool(db.execute("SELECT is_paused FROM moonxd_schedule_state").fetchone()[0])
    if is_paused and not even_paused:
        return Taken(at=now, is_paused=True)
    rows: list[Any] = []
    for rank in (0, 1):
        rows += db.execute(_DUE, (rank, now, limit - len(rows))).fetchall()
    db.executemany(
        "UPDATE moonxd_wallet_schedule SET look_at = ? WHERE user_id = ? AND wallet_address = ?",
        [(now + hold_s, row[0], row[1]) for row in rows],
    )
    return Taken(at=now, is_paused=is_paused, wallets=tuple(_due(row) for row in rows))


def _due(row: Sequence[Any]) -> Due:
    return Due(
        user_id=row[0],
        wallet=row[1],
        due_at=row[2],
        last_active_at=row[3],
        is_forced=bool(row[4]),
        is_enabled=bool(row[5]),
        queued_at=row[6],
        ended_at=_seconds(row[7]),
        last_sync_at=_seconds(row[8]),
        total_value_usd=decimal_of(row[9]),
        interval_minutes=row[10] or None,
        timezone=row[11],
    )


def _mark(db: sqlite3.Connection, marks: Sequence[Mark]) -> None:
    # The look_at of a user who came back meanwhile is left alone: it ends the hold.
    db.executemany(
        "UPDATE moonxd_wallet_schedule SET due_at = ?4, rank = ?7, is_forced = 0, queued_at = coalesce(?8, queued_at), "
        "look_at = CASE WHEN ?5 IS NULL AND last_active_at > ?6 THEN look_at ELSE ?5 END "
        "WHERE user_id = ?1 AND wallet_address = ?2 AND due_at = ?3",
        [
            (one.user_id, one.wallet, one.due_at, one.next_due_at, one.look_at, one.active_at, one.rank, one.queued_at)
            for one in marks
        ],
    )


def _change(db: sqlite3.Connection, user_id: str, wallet: str | None, change: Change, now: float) -> int:
    where = "WHERE user_id = ?1 AND (?2 IS NULL OR wallet_address = ?2)"
    changed = db.execute(
        "UPDATE moonxd_wallet_schedule SET timezone = CASE WHEN ?3 IS NULL THEN timezone ELSE nullif(?3, '') END, "
        "last_active_at = max(last_active_at, coalesce(?4, last_active_at)), "
        "is_forced = is_forced OR ?5 IS NOT NULL, "
        "due_at = coalesce(?5, CASE WHEN look_at IS NULL THEN CAST(?4 AS INTEGER) END, due_at), "
        "look_at = coalesce(?5, CASE WHEN look_at IS NULL THEN ?4 "
        f"WHEN ?6 THEN min(look_at, max(due_at, ?7)) ELSE look_at END) {where}",
        (user_id, wallet, change.timezone, change.active_at, change.force_at, change.is_enabled, now),
    ).rowcount
    if change.interval_minutes is not None or change.is_enabled is not None:
        mine = db.execute(f"SELECT wallet_address FROM moonxd_wallet_schedule {where}", (user_id, wallet)).fetchall()
        for (one,) in mine:
            _set(db, user_id, one, change.interval_minutes, change.is_enabled, now)
    return changed


def _set(
    db: sqlite3.Connection, user_id: str, wallet: str, minutes: int | None, is_enabled: bool | None, now: float
) -> None:
    # updated_at is left alone where there is one: it says when a sync ended.
    db.execute(
        "INSERT INTO user_sync_status (user_id, wallet_address, auto_sync_interval_minutes, is_sync_enabled, "
        "created_at, updated_at) VALUES (?1, ?2, nullif(?3, 0), coalesce(?4, 1), ?5, ?5) ON CONFLICT DO UPDATE SET "
        "auto_sync_interval_minutes = CASE WHEN ?3 IS NULL THEN auto_sync_interval_minutes ELSE nullif(?3, 0) END, "
        "is_sync_enabled = coalesce(?4, is_sync_enabled)",
        (user_id, wallet, minutes, is_enabled, time_text(now)),
    )


def _figures(db: sqlite3.Connection, targets: Targets, now: float) -> Figures:
    active = now - targets.active_s
    users, wallets, active_users, active_wallets = db.execute(
        "SELECT count(*), coalesce(sum(n), 0), coalesce(sum(a > 0), 0), coalesce(sum(a), 0) FROM "
        "(SELECT count(*) AS n, sum(last_active_at >= ?) AS a FROM moonxd_wallet_schedule GROUP BY user_id)",
        (active,),
    ).fetchone()
    age, own = "?1 - strftime('%s', s.last_sync_at)", "coalesce(nullif(s.auto_sync_interval_minutes, 0) * 60 * ?3, ?4)"
    fresh, stale = db.execute(
        f"SELECT coalesce(sum({age} <= {own}), 0), coalesce(sum(s.last_sync_at IS NULL OR {age} > ?5), 0) {_JOINED} "
        "WHERE w.last_active_at >= ?2",
        (now, active, targets.fresh_intervals, targets.fresh_s, targets.stale_s),
    ).fetchone()
    due, next_due_at = db.execute(
        "SELECT coalesce(sum(look_at <= ?), 0), min(look_at) FROM moonxd_wallet_schedule WHERE look_at IS NOT NULL",
        (now,),
    ).fetchone()
    is_paused, reason = db.execute("SELECT is_paused, reason FROM moonxd_schedule_state").fetchone()
    return Figures(
        at=now,
        is_paused=bool(is_paused),
        paused_reason=reason,
        wallets=wallets,
        users=users,
        active_wallets=active_wallets,
        active_users=active_users,
        fresh=fresh,
        stale=stale,
        due=due,
        next_due_at=next_due_at,
    )


def _scheduled(row: Sequence[Any]) -> Scheduled:
    return Scheduled(
        user_id=row[0],
        wallet=row[1],
        due_at=row[2],
        look_at=row[3],
        last_active_at=row[4],
        last_sync_at=_seconds(row[5]),
        is_enabled=bool(row[6]),
        interval_minutes=row[7] or None,
        timezone=row[8],
        total_value_usd=decimal_of(row[9]),
    )


def _seconds(text: str | None) -> float | None:
    return datetime.fromisoformat(text).timestamp() if text is not None else None
