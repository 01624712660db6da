"""What only reads the ledger, as plain functions on a connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from ...domain.ledger import DeadLetter, Operation, Portfolio, StoredEvent
from ...domain.money import total
from ...domain.token import Holding, TokenRef
from .rows import (
    EVENT_COLUMNS,
    HOLDING_COLUMNS,
    LETTER_COLUMNS,
    OPERATION_COLUMNS,
    event_of,
    holding_of,
    letter_of,
    operation_of,
    time_of,
)


def holdings(db: sqlite3.Connection, user_id: str, wallet: str) -> tuple[Holding, ...]:
    rows = db.execute(
        f"SELECT {HOLDING_COLUMNS} FROM user_token_holdings WHERE user_id = ? AND wallet_address = ? "
        "ORDER BY chain_id, token_address",
        (user_id, wallet),
    )
    return tuple(map(holding_of, rows))


def tokens_seen(db: sqlite3.Connection, wallet: str, previous: Iterable[Holding]) -> tuple[TokenRef, ...]:
    """Every token the wallet was seen to hold, those of `previous` included (an older program may have put them)."""
    rows = db.execute(
        "SELECT chain_id, token_address FROM moonxd_wallet_tokens WHERE wallet_address = ? "
        "ORDER BY chain_id, token_address",
        (wallet,),
    )
    tokens = dict.fromkeys(TokenRef(*row) for row in rows)
    tokens.update(dict.fromkeys(holding.token for holding in previous))
    return tuple(tokens)


def portfolio(db: sqlite3.Connection, wallet: str, user_id: str | None) -> tuple[Portfolio, ...]:
    users = db.execute(
        "SELECT user_id FROM user_token_holdings WHERE wallet_address = ?1 "
        "UNION SELECT user_id FROM user_sync_status WHERE wallet_address = ?1 ORDER BY 1",
        (wallet,),
    ).fetchall()
    return tuple(_view(db, user, wallet) for (user,) in users if user_id in (None, user))


def _view(db: sqlite3.Connection, user_id: str, wallet: str) -> Portfolio:
    rows = holdings(db, user_id, wallet)
    status = db.execute(
        "SELECT last_sync_at, sync_status, last_error_message FROM user_sync_status "
        "WHERE user_id = ? AND wallet_address = ?",
        (user_id, wallet),
    ).fetchone() or (None, None, None)
    return Portfolio(
        user_id=user_id,
        wallet=wallet,
        holdings=rows,
        total_value_usd=total([row.value_usd for row in rows if row.value_usd is not None and not row.is_spam]),
        last_sync_at=time_of(status[0]),
        sync_status=status[1],
        last_error=status[2],
    )


def operations(db: sqlite3.Connection, wanted: Mapping[str, str | None], limit: int) -> tuple[Operation, ...]:
    """`wanted`: values by test ("status ="); None does not matter."""
    wanted = {test: value for test, value in wanted.items() if value is not None}
    where = " AND ".join(f"{test} ?" for test in wanted) or "true"
    rows = db.execute(
        f"SELECT {OPERATION_COLUMNS} FROM sync_operations WHERE {where} ORDER BY created_at DESC, id LIMIT ?",
        (*wanted.values(), limit),
    )
    return tuple(map(operation_of, rows))


def letter(db: sqlite3.Connection, queue: str, job_id: str) -> DeadLetter | None:
    row = db.execute(
        f"SELECT {LETTER_COLUMNS} FROM moonxd_dead_letters WHERE queue = ? AND job_id = ?", (queue, job_id)
    ).fetchone()
    return letter_of(row) if row else None


def events(db: sqlite3.Connection, after: int, limit: int) -> tuple[StoredEvent, ...]:
    rows = db.execute(
        f"SELECT {EVENT_COLUMNS} FROM moonxd_outbox WHERE position > ? ORDER BY position LIMIT ?", (after, limit)
    )
    return tuple(map(event_of, rows))


def newest_position(db: sqlite3.Connection) -> int:
    # Remembered when the rows are gone.
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'moonxd_outbox'").fetchone()
    return int(row[0]) if row else 0


def backlog(db: sqlite3.Connection) -> int:
    (count,) = db.execute("SELECT count(*) FROM moonxd_outbox WHERE published_at IS NULL").fetchone()
    return int(count)
