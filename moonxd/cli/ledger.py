"""`moonxd operations`: the audit trail."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated

import typer

from ..api import calls
from .output import Json, age, connect, note, print_json, table, usd

Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many.")]


def operations(
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    wallet: Annotated[str | None, typer.Option(help="Only this wallet's.")] = None,
    status: Annotated[str | None, typer.Option(help="pending, running, completed, failed or cancelled.")] = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """Sync operations, newest first."""
    with connect() as daemon:
        reply = daemon.call(calls.operations(user=user, wallet=wallet, status=status, limit=limit))
    if json:
        print_json(reply)
        return
    table(
        ("STARTED", "STATUS", "TYPE", "TOOK", "TOKENS", "VALUE", "USER", "WALLET", "ERROR"),
        [
            (
                ago(row.started_at),
                row.status,
                row.type,
                age(None if row.duration is None else row.duration / 1000),
                row.tokens_sync,
                usd(row.total_value_usd),
                row.user_id,
                short(row.wallet_address),
                row.error or "",
            )
            for row in reply.operations
        ],
        right=("STARTED", "TOOK", "TOKENS", "VALUE"),
    )
    if not reply.operations:
        note("no operations")


def ago(at: datetime | None) -> str:
    return "-" if at is None else age(max(0.0, time.time() - at.timestamp()))


def short(address: str) -> str:
    return f"{address[:8]}...{address[-4:]}" if len(address) == 42 else address
