"""`moonxd operations` and `moonxd events`: the audit trail and the committed events."""

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
                _ago(row.started_at),
                row.status,
                row.type,
                age(None if row.duration is None else row.duration / 1000),
                row.tokens_sync,
                usd(row.total_value_usd),
                row.user_id,
                _short(row.wallet_address),
                row.error or "",
            )
            for row in reply.operations
        ],
        right=("STARTED", "TOOK", "TOKENS", "VALUE"),
    )
    if not reply.operations:
        note("no operations")


def events(
    after: Annotated[int, typer.Option(min=0, help="Only those behind this position.")] = 0,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """Committed events in commit order, oldest first; `next` in --json is the following page's --after."""
    with connect() as daemon:
        page = daemon.call(calls.events(after, limit=limit))
    if json:
        print_json(page)
        return
    table(
        ("POSITION", "AGO", "TYPE", "KEY", "WALLET", "PUBLISHED"),
        [
            (
                one.position,
                _ago(one.created_at),
                one.type,
                one.key,
                _short(one.wallet),
                "yes" if one.published_at else "no",
            )
            for one in page.events
        ],
        right=("POSITION", "AGO"),
    )
    note(f"{page.backlog} events are not yet published")


def _ago(at: datetime | None) -> str:
    return "-" if at is None else age(max(0.0, time.time() - at.timestamp()))


def _short(address: str) -> str:
    return f"{address[:8]}...{address[-4:]}" if len(address) == 42 else address
