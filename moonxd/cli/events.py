"""`moonxd events`: what was told to other programs; followed, sent again, and what each type looks like."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from ..api import calls
from ..api.client import Client
from ..api.events import ReplayRequest
from ..api.messages import EventsPage, EventView
from .ledger import ago, short
from .moment import parse_moment
from .output import Json, connect, note, plain, print_json, say, table

app = typer.Typer(add_completion=False, no_args_is_help=False)

Types = Annotated[
    list[str] | None, typer.Option("--type", help='Only this type; repeat it, or give a pattern: "sync.*".')
]
Topics = Annotated[list[str] | None, typer.Option("--topic", help="Only this topic, by its own name; repeat it.")]
Users = Annotated[list[str] | None, typer.Option("--user", help="Only this user's; repeat it.")]
Since = Annotated[
    str | None, typer.Option(metavar="WHEN", help="Only those since then: 15m, 2h (ago), 2026-01-31T12:00:00Z.")
]
After = Annotated[int, typer.Option(min=0, help="Only those behind this position.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many.")]

#: Seconds of one long poll; after each it is looked whether somebody still reads us.
_POLL_S = 5.0
#: What a line says of an event's data, the first ones that there are.
_SAID = (
    "error", "reason", "message", "totalValueUsd", "tokensSync", "chainsSync", "attempt", "workerId", "syncType",
    "activityType", "collector", "status", "healthStatus", "trigger",
)  # fmt: skip
_MOST_SAID = 3


@app.callback(invoke_without_command=True)
def events(
    context: typer.Context,
    after: After = 0,
    limit: Limit = 50,
    type: Types = None,
    topic: Topics = None,
    user: Users = None,
    since: Since = None,
    json: Json = False,
) -> None:
    """Committed events in commit order. Without a command: a page of them, oldest first."""
    if context.invoked_subcommand is None:
        _list(after, limit, type, topic, user, since, as_json=json)


@app.command("list")
def page(
    after: After = 0,
    limit: Limit = 50,
    type: Types = None,
    topic: Topics = None,
    user: Users = None,
    since: Since = None,
    json: Json = False,
) -> None:
    """A page of them, oldest first; `next` in --json is the following page's --after."""
    _list(after, limit, type, topic, user, since, as_json=json)


@app.command()
def tail(
    type: Types = None,
    topic: Topics = None,
    user: Users = None,
    since: Since = None,
    last: Annotated[int, typer.Option(min=0, max=1000, help="How many of those that were before.")] = 10,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show events as they are committed, until Ctrl-C. Works with and without Kafka."""
    since_s = None if since is None else parse_moment(since, time.time())
    chosen: dict[str, Any] = {"types": type or (), "topics": topic or (), "users": user or ()}
    try:
        with connect() as daemon:
            for one in _follow(daemon, since_s, last, chosen):
                sys.stdout.write((_json_line(one) if json else _line(one)) + "\n")
                sys.stdout.flush()
    except KeyboardInterrupt:
        return
    except BrokenPipeError:
        # Whoever read us (head, less) has enough. What is left in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@app.command()
def replay(
    start: Annotated[str, typer.Option("--from", metavar="WHEN", help="Those written since then: 2h (ago), a time.")],
    to: Annotated[str, typer.Option("--to", metavar="WHEN", help="And before then: now, 5m (ago), a time.")] = "now",
    topic: Topics = None,
    type: Types = None,
    user: Users = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Send published events to Kafka again, with the ids they had. Counts first, and asks."""
    now = time.time()
    ask = ReplayRequest(
        since=parse_moment(start, now),
        until=parse_moment(to, now),
        topics=tuple(topic or ()),
        types=tuple(type or ()),
        users=tuple(user or ()),
    )
    with connect() as daemon:
        total = _step_through(daemon, msgspec.structs.replace(ask, dry_run=True), None)
        goes_on = total > 0 and not dry_run
        if goes_on and not yes:
            _ask(f"send {total} events to Kafka again?")
        sent = _step_through(daemon, ask, total) if goes_on else 0
    if json:
        print_json({"matched": total, "sent": sent})
    else:
        say(f"{sent} of {total} events sent again" if goes_on else f"{total} events match, nothing was sent")


@app.command()
def schema(
    type: Annotated[str | None, typer.Argument(help="An event's type; without it, all of them.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write a file per type there, and a list.")] = None,
) -> None:
    """The JSON Schema of an event's whole message. Needs no daemon."""
    from ..domain.events.schema import files, schemas, text_of

    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files().items():
            (out / name).write_text(text, "utf-8")
        return
    known = schemas()
    if type is None:
        print_json(known)
        return
    if type not in known:
        raise typer.BadParameter(f"there is no event type {type!r}: {', '.join(known)}")
    sys.stdout.write(text_of(known[type]))


# ---- pages -------------------------------------------------------------------------------------------------------


def _list(
    after: int,
    limit: int,
    types: list[str] | None,
    topics: list[str] | None,
    users: list[str] | None,
    since: str | None,
    *,
    as_json: bool,
) -> None:
    chosen: dict[str, Any] = {"types": types or (), "topics": topics or (), "users": users or ()}
    since_s = None if since is None else parse_moment(since, time.time())
    with connect() as daemon:
        found = daemon.call(calls.events(after, limit=limit, since=since_s, **chosen))
        # The daemon looks at so many in one go; an empty answer is only one at the end.
        while found.more and not found.events:
            found = daemon.call(calls.events(found.next, limit=limit, since=since_s, **chosen))
    if as_json:
        print_json(found)
        return
    _table(found)


def _table(found: EventsPage) -> None:
    table(
        ("POSITION", "AGO", "TYPE", "KEY", "WALLET", "PUBLISHED"),
        [
            (
                one.position,
                ago(one.created_at),
                one.type,
                one.key,
                short(one.wallet),
                "yes" if one.published_at else "no",
            )
            for one in found.events
        ],
        right=("POSITION", "AGO"),
    )
    note(f"{found.backlog} events are not yet published")


# ---- following -----------------------------------------------------------------------------------------------------


def _follow(daemon: Client, since: float | None, last: int, chosen: dict[str, Any]) -> Iterator[EventView]:
    """The end of what is there, then whatever comes."""
    start = {"since": since} if since is not None else {"last": last}
    found = daemon.call(calls.events(limit=1000, **start, **chosen))
    while _is_read():
        yield from found.events
        wait = 0.0 if found.more else _POLL_S
        found = daemon.call(calls.events(found.next, limit=1000, wait=wait, **chosen))


def _is_read() -> bool:
    """False once the other end of our pipe is closed, which nobody tells who does not write."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):
        return True
    return not poll.poll(0)


def _line(one: EventView) -> str:
    at = one.created_at.astimezone().strftime("%H:%M:%S")
    data = msgspec.json.decode(one.body).get("data") or {}
    said = [f"{name}={data[name]}" for name in _SAID if data.get(name) is not None][:_MOST_SAID]
    return plain(f"{at}  {one.type:<28} {one.key}  {short(one.wallet)}  {'  '.join(said)}").rstrip()


def _json_line(one: EventView) -> str:
    return msgspec.json.encode(one).decode()


# ---- sending again ---------------------------------------------------------------------------------------------------


def _step_through(daemon: Client, ask: ReplayRequest, total: int | None) -> int:
    """All steps of a request; how many events it was about."""
    done = 0
    while True:
        step = daemon.call(calls.replay(ask))
        done += step.matched
        if total is not None:
            _progress(done, total, ended=not step.more)
        if not step.more:
            return done
        ask = msgspec.structs.replace(ask, after=step.next)


def _progress(done: int, total: int, *, ended: bool) -> None:
    """On a terminal one line that is written over; nothing where nobody looks."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{done} of {max(done, total)}" + ("\n" if ended else ""))
        sys.stderr.flush()


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{question} There is no terminal to ask on: add --yes")
    typer.confirm(question, abort=True, err=True)
