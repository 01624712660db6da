"""`moonxd portfolio`: what a wallet holds, as last synced."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Annotated

import typer

from ..api import calls
from ..api.messages import HoldingView, PortfolioView
from .output import Json, age, connect, note, print_json, say, table, usd


def portfolio(
    wallet: Annotated[str, typer.Argument(help="The wallet's 0x address.")],
    user: Annotated[str | None, typer.Option(help="Only this user's view.")] = None,
    spam: Annotated[bool, typer.Option("--spam", help="Show spam tokens too.")] = False,
    json: Json = False,
) -> None:
    """Holdings of a wallet, most valuable first. A dash means unknown, never zero."""
    with connect() as daemon:
        reply = daemon.call(calls.portfolio(wallet, user))
    if json:
        print_json(reply)
        return
    for number, view in enumerate(reply.portfolios):
        if number:
            say("")
        _show(view, with_spam=spam)


def _show(view: PortfolioView, *, with_spam: bool) -> None:
    synced = (
        f"synced {age(max(0.0, time.time() - view.last_sync_at.timestamp()))} ago"
        if view.last_sync_at
        else "never synced"
    )
    status = f", {view.sync_status}" if view.sync_status else ""
    say(f"{view.wallet} of {view.user_id}: {usd(view.total_value_usd)} ({synced}{status})")
    if view.last_error:
        note(f"the last sync failed: {view.last_error}")
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
