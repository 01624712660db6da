"""The schedule of periodic syncs on PostgreSQL, beside the ledger and through its connections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from ...domain.ledger import storable_json
from ...domain.schedule import Change, Figures, Mark, Registration, Scheduled, Taken, Targets

Rows = list[tuple[Any, ...]]
_taken = msgspec.json.Decoder(Taken).decode
_figures = msgspec.json.Decoder(Figures).decode
_PAGE = """
SELECT w.user_id, w.wallet_address, moonxd_epoch(w.due_at), moonxd_epoch(w.look_at), moonxd_epoch(w.last_active_at),
    moonxd_epoch(s.last_sync_at), coalesce(s.is_sync_enabled, true), s.auto_sync_interval_minutes, w.timezone,
    s.total_value_usd
FROM (SELECT * FROM moonxd_wallet_schedule w {where} ORDER BY w.user_id, w.wallet_address LIMIT %s) w
LEFT JOIN LATERAL (
    SELECT u.last_sync_at::timestamptz, u.is_sync_enabled, u.auto_sync_interval_minutes, u.total_value_usd
    FROM user_sync_status u WHERE u.wallet_address = w.wallet_address AND u.user_id::text = w.user_id LIMIT 1) s ON true
ORDER BY w.user_id, w.wallet_address
"""


class Statement(Protocol):
    """Runs one statement in a transaction of its own; `doing` is for the error's sentence."""

    async def __call__(self, doing: str, statement: str, values: Sequence[Any]) -> Rows: ...


class PostgresSchedule:
    """Implements ports.Schedule."""

    def __init__(self, ask: Statement, change: Statement) -> None:
        self._ask = ask
        self._change = change

    async def register(self, wallets: Sequence[Registration]) -> int:
        # The last word on a wallet counts: one statement cannot touch a row twice.
        unique = {(one.user_id, one.wallet): one for one in wallets}
        if not unique:
            return 0
        entries = storable_json(list(unique.values()))
        rows = await self._change("registering wallets", "SELECT moonxd_schedule_register(%s)", [entries])
        return int(rows[0][0])

    async def take(self, limit: int, hold_s: float, *, even_paused: bool = False) -> Taken:
        rows = await self._change(
            "looking for due wallets",
            "SELECT moonxd_schedule_take(%s, %s, %s)::text",
            [limit, float(hold_s), even_paused],
        )
        return _taken(rows[0][0])

    async def mark(self, marks: Sequence[Mark]) -> None:
        if marks:
            await self._change("marking wallets", "SELECT moonxd_schedule_mark(%s)", [storable_json(list(marks))])

    async def change(self, user_id: str, wallet: str | None, change: Change) -> int:
        rows = await self._change(
            "changing a schedule",
            "SELECT moonxd_schedule_change(%s::text, %s::text, %s)",
            [user_id, wallet, storable_json(change)],
        )
        return int(rows[0][0])

    async def remove(self, user_id: str, wallet: str | None) -> int:
        rows = await self._change(
            "removing wallets",
            "DELETE FROM moonxd_wallet_schedule WHERE user_id = moonxd_owner(%s::text) "
            "AND (%s::text IS NULL OR wallet_address = %s::text) RETURNING 1",
            [user_id, wallet, wallet],
        )
        return len(rows)

    async def page(
        self, *, user_id: str | None = None, after: tuple[str, str] | None = None, limit: int = 50
    ) -> tuple[Scheduled, ...]:
        conditions: list[str] = []
        values: list[Any] = []
        if user_id is not None:
            conditions.append("w.user_id = moonxd_owner(%s::text)")
            values.append(user_id)
        if after is not None:
            conditions.append("(w.user_id, w.wallet_address) > (%s::text, %s::text)")
            values += after
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        rows = await self._ask("listing wallets", _PAGE.format(where=where), [*values, limit])
        return tuple(_scheduled(row) for row in rows)

    async def figures(self, targets: Targets) -> Figures:
        rows = await self._ask(
            "measuring the schedule", "SELECT moonxd_schedule_figures(%s)::text", [storable_json(targets)]
        )
        return _figures(rows[0][0])

    async def pause(self, paused: bool, reason: str | None = None) -> None:
        await self._change(
            "pausing the schedule" if paused else "resuming the schedule",
            "UPDATE moonxd_schedule_state SET is_paused = %s, reason = %s, changed_at = now()",
            [paused, reason if paused else None],
        )


def _scheduled(row: tuple[Any, ...]) -> Scheduled:
    return Scheduled(
        user_id=row[0],
        wallet=row[1],
        due_at=row[2],
        look_at=row[3],
        last_active_at=row[4],
        last_sync_at=row[5],
        is_enabled=row[6],
        interval_minutes=row[7] or None,
        timezone=row[8],
        total_value_usd=row[9],
    )
