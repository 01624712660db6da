"""`moonxd schedule`: how periodic syncs keep up, and pausing, resuming, triggering them."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ..api import users as calls
from ..api.users import Schedule, ScheduleView, Trigger
from .output import Json, age, connect, note, print_json, say
from .users import show_stats

app = typer.Typer(add_completion=False, help="How periodic syncs keep up.")


@app.callback(invoke_without_command=True)
def show(context: typer.Context, json: Json = False) -> None:
    """Show next due, missed slots, drift, and how many wallets are fresh or stale."""
    if context.invoked_subcommand is not None:
        return
    with connect() as daemon:
        found = daemon.call(calls.schedule())
    if json:
        print_json(found)
    else:
        _show(found)


@app.command()
def pause(
    reason: Annotated[str | None, typer.Option(help="Why, for whoever looks.")] = None, json: Json = False
) -> None:
    """Queue no more periodic syncs, on any daemon, until resumed. Manual syncs go on."""
    with connect() as daemon:
        done = daemon.call(calls.pause(reason))
    if json:
        print_json(done)
    else:
        say("periodic syncs are paused")


@app.command()
def resume(json: Json = False) -> None:
    """Queue periodic syncs again, on every daemon."""
    with connect() as daemon:
        done = daemon.call(calls.resume())
    if json:
        print_json(done)
    else:
        say("periodic syncs go on")


@app.command()
def trigger(
    user: Annotated[str | None, typer.Option(help="This user's wallets become due at once.")] = None,
    wallet: Annotated[str | None, typer.Option(help="Only this wallet of the user.")] = None,
    json: Json = False,
) -> None:
    """Look for due wallets now, even while paused; with --user that user's wallets are due, fresh or not."""
    with connect() as daemon:
        done = daemon.call(calls.trigger(Trigger(user_id=user, wallet_address=wallet)))
    if json:
        print_json(done)
        return
    if user is not None:
        say(f"{done.wallets} wallet{'s' if done.wallets != 1 else ''} of {user} became due")
    if done.looks:
        say("looking for due wallets now")
    else:
        note("this daemon runs no scheduler: another one queues them")


def _show(found: Schedule) -> None:
    scheduler, wallets = found.scheduler, found.wallets
    say(_headline(scheduler, is_paused=wallets.is_paused))
    show_stats(wallets)
    if wallets.next_due_at is not None:
        ahead = wallets.next_due_at - time.time()
        say(f"next due: {'in ' + age(ahead) if ahead > 0 else 'now'}")
    if scheduler.enabled:
        say(
            f"queued {scheduler.queued}, missed {scheduler.missed} slots; "
            f"drift {age(scheduler.drift)}, worst of the last round {age(scheduler.worst_drift)}; "
            f"{scheduler.rounds} rounds, {scheduler.missed_ticks} ticks missed"
        )
    if scheduler.skipped:
        say("not used: " + ", ".join(f"{count} {why}" for why, count in sorted(scheduler.skipped.items())))
    if scheduler.held_back:
        note("the queue is too full: nothing is added before it is shorter")
    if scheduler.last_error:
        note(f"the last round failed: {scheduler.last_error}")


def _headline(scheduler: ScheduleView, *, is_paused: bool) -> str:
    if not scheduler.enabled:
        return "this daemon runs no scheduler (scheduler.enabled is false)"
    state = "paused" if is_paused else "running" if scheduler.running else "not running"
    rhythm = f"cron {scheduler.cron}" if scheduler.cron else f"every {age(scheduler.interval)}"
    market = "" if scheduler.cron else f", {'market' if scheduler.is_market_hours else 'off'} hours"
    return f"{state}, {rhythm}{market}"
