"""`moonxd portfolio`: what a wallet holds, as last synced."""

from __future__ import annotations

import time
from datetime import UTC
from decimal import Decimal
from typing import Annotated

import typer

from ..api import calls
from ..api.calls import Call
from ..api.wallets import HistoryReply, HoldingView, PortfolioView
from .output import Json, age, connect, note, print_json, say, short, table, usd


def portfolio(
    wallet: Annotated[str, typer.Argument(help="The wallet's 0x address.")],
    user: Annotated[str | None, typer.Option(help="Only this user's view.")] = None,
    spam: Annotated[bool, typer.Option("--spam", help="Show spam tokens too.")] = False,
    history: Annotated[bool, typer.Option("--history", help="What it was worth before, newest first.")] = False,
    since: Annotated[str | None, typer.Option(help="With --history: not before this time (ISO 8601, UTC).")] = None,
    until: Annotated[str | None, typer.Option(help="With --history: before this time.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="With --history: how many snapshots.")] = 50,
    json: Json = False,
) -> None:
    """Holdings of a wallet, most valuable first. A dash means unknown, never zero."""
    if history:
        _history(calls.history(wallet, user=user, since=since, until=until, limit=limit), as_json=json)
        return
    if since or until:
        raise typer.BadParameter("--since and --until belong to --history")
    with connect() as daemon:
        reply = daemon.call(calls.portfolio(wallet, user, activity=False))
    if json:
        print_json(reply)
        return
    for number, view in enumerate(reply.portfolios):
        if number:
            say("")
        _show(view, with_spam=spam)


def _history(call: Call[HistoryReply], *, as_json: bool) -> None:
    with connect() as daemon:
        reply = daemon.call(call)
    if as_json:
        print_json(reply)
        return
    table(
        ("TAKEN (UTC)", "VALUE", "TOKENS", "CHAINS", "BY", "USER"),
        [
            (
                past.taken_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S"),
                usd(past.total_value_usd),
                sum(1 for one in past.holdings if not one.is_spam),
                len({one.chain_id for one in past.holdings}),
                past.type,
                past.user_id,
            )
            for past in reply.snapshots
        ],
        right=("VALUE", "TOKENS", "CHAINS"),
    )
    if not reply.snapshots:
        note("no snapshots: one is taken when a sync finds a change, at most once per worker.snapshot_every_s")


def _show(view: PortfolioView, *, with_spam: bool) -> None:
    synced = (
        f"synced {age(max(0.0, time.time() - view.last_sync_at.timestamp()))} ago"
        if view.last_sync_at
        else "never synced"
    )
    status = f", {view.sync_status}" if view.sync_status else ""
    say(f"{view.wallet} of {view.user_id}: {usd(view.total_value_usd)} ({synced}{status})")
    if view.last_error:
        note(f"the last sync failed: {short(view.last_error, 300)}")
    shown = [holding for holding in view.holdings if with_spam or not holding.is_spam]
    table(
        ("CHAIN", "TOKEN", "AMOUNT", "PRICE", "VALUE", "ADDRESS"),
        [
            (one.chain, _name(one), _amount(one), usd(one.price_usd), usd(one.value_usd), one.address)
            for one in sorted(shown, key=_rank)
        ],
        right=("AMOUNT", "PRICE", "VALUE"),
    )
    hidden = len(view.holdings) - len(shown)
    if hidden:
        note(f"{hidden} spam tokens are not shown (--spam)")


def _rank(holding: HoldingView) -> tuple[bool, Decimal, int, str]:
    return holding.value_usd is None, -(holding.value_usd or Decimal(0)), holding.chain_id, holding.address


def _name(holding: HoldingView) -> str:
    return (holding.symbol or "?")[:16] + (" (spam)" if holding.is_spam else "")


def _amount(holding: HoldingView) -> str:
    """Six significant digits: the whole number is in --json."""
    if holding.amount is None:
        return "-"
    return f"{holding.amount:,.2f}" if abs(holding.amount) >= 10_000 else f"{holding.amount.normalize():.6g}"
