"""`moonxd users`: whose wallets are synced periodically."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from ..api import users as calls
from ..api.client import Client
from ..api.users import MAX_ENTRIES, Affected, ChangeUser, TouchUser, UserEntry, UserStats, UserView
from .duration import parse_duration
from .output import Json, age, connect, note, print_json, say, table, usd

if TYPE_CHECKING:
    from rich.progress import Progress

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Whose wallets are synced periodically.")

User = Annotated[str, typer.Argument(metavar="USER", help="The user's id.")]
Wallet = Annotated[str, typer.Argument(metavar="WALLET", help="The wallet's 0x address.")]
OneWallet = Annotated[str | None, typer.Argument(metavar="[WALLET]", help="Only this wallet; without it all of them.")]
Interval = Annotated[
    str | None, typer.Option(help="Its own interval: 15m, 2h, 1d (whole minutes); `default` takes it away.")
]
Zone = Annotated[str | None, typer.Option(help="As in Europe/Berlin, for its market hours; `default` takes it away.")]
_DEFAULT = "default"
#: Seconds from which figures are no longer of this moment.
_OLD_S = 5.0
#: Columns that a file to import may have; the first two it must have.
_COLUMNS = ("user_id", "wallet_address", "interval_minutes", "timezone")
_ALSO = {"userid": "user_id", "user": "user_id", "walletaddress": "wallet_address", "wallet": "wallet_address",
         "address": "wallet_address", "interval": "interval_minutes", "intervalminutes": "interval_minutes",
         "time_zone": "timezone"}  # fmt: skip


@app.command()
def add(user: User, wallet: Wallet, interval: Interval = None, timezone: Zone = None, json: Json = False) -> None:
    """Sync this wallet periodically from now on; a registered one counts as active now."""
    entry = UserEntry(
        user_id=user, wallet_address=wallet, interval_minutes=_minutes(interval), timezone=_timezone(timezone)
    )
    with connect() as daemon:
        done = daemon.call(calls.add((entry,)))
    if json:
        print_json(done)
    else:
        say(f"{wallet} of {user} " + ("is registered" if done.added else "was registered already; it is active now"))


@app.command()
def remove(user: User, wallet: OneWallet = None, json: Json = False) -> None:
    """Sync no more periodically. A manual sync registers the wallet again."""
    with connect() as daemon:
        _report(daemon.call(calls.remove(user, wallet)), "removed", as_json=json)


@app.command("list")
def list_(
    user: Annotated[str | None, typer.Option(help="Only this user's wallets.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    all: Annotated[bool, typer.Option("--all", help="Every wallet, page by page.")] = False,
    json: Json = False,
) -> None:
    """Registered wallets and when each is due next."""
    with connect() as daemon:
        found, has_more = _pages(daemon, user, None if all else limit)
    if json:
        print_json({"users": found})
        return
    table(
        ("USER", "WALLET", "STATE", "NEXT", "SYNCED", "ACTIVE", "INTERVAL", "ZONE", "VALUE"),
        [_row(one, time.time()) for one in found],
        right=("VALUE",),
    )
    if has_more:
        note("there are more: --limit N or --all")


@app.command()
def touch(user: User, wallet: OneWallet = None, json: Json = False) -> None:
    """The user is active now: wallets of users who stay away are not synced."""
    with connect() as daemon:
        _report(daemon.call(calls.touch(TouchUser(user_id=user, wallet_address=wallet))), "active", as_json=json)


@app.command("set")
def set_(
    user: User,
    wallet: OneWallet = None,
    interval: Interval = None,
    timezone: Zone = None,
    enable: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Whether it is synced periodically at all.")
    ] = None,
    json: Json = False,
) -> None:
    """Change how often a wallet is synced, in which time zone it lives, and whether it is synced at all."""
    ask = ChangeUser(
        user_id=user,
        wallet_address=wallet,
        interval_minutes=_minutes(interval),
        timezone=_timezone(timezone),
        enabled=enable,
    )
    with connect() as daemon:
        _report(daemon.call(calls.change(ask)), "changed", as_json=json)


@app.command()
def stats(json: Json = False) -> None:
    """How many wallets are registered, active, fresh and stale."""
    with connect() as daemon:
        found = daemon.call(calls.stats())
    if json:
        print_json(found)
    else:
        show_stats(found)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, allow_dash=True, help="CSV, or - for stdin.")],
    json: Json = False,
) -> None:
    """Register the wallets of a CSV file: user_id, wallet_address and, if you like, interval_minutes, timezone.

    The first line may name the columns, in any order. A line that cannot be read stops the import before anything of
    its page is registered; lines that were registered may be imported again.
    """
    source = (
        nullcontext(typer.get_text_stream("stdin")) if str(file) == "-" else file.open(newline="", encoding="utf-8-sig")
    )
    added = known = 0
    with source as lines, connect() as daemon, _progress(file) as progress:
        bar = progress.add_task("importing", total=None if str(file) == "-" else _count_lines(file))
        entries = _entries(lines)
        while page := tuple(islice(entries, MAX_ENTRIES)):
            done = daemon.call(calls.add(page))
            added, known = added + done.added, known + done.known
            progress.advance(bar, len(page))
    if json:
        print_json({"added": added, "known": known})
    else:
        say(f"{added} wallets registered, {known} were known")


def show_stats(stats: UserStats) -> None:
    old = time.time() - stats.at
    if old > _OLD_S:
        note(f"measured {age(old)} ago: with so many wallets that takes the database a while")
    say(f"{stats.wallets} wallets of {stats.users} users, {stats.active_wallets} of {stats.active_users} active")
    say(f"fresh: {stats.fresh} ({stats.fresh_ratio:.1%} of the active), stale: {stats.stale}, due now: {stats.due}")
    if stats.is_paused:
        note(f"paused{': ' + stats.paused_reason if stats.paused_reason else ''}")


# ---- parts -----------------------------------------------------------------------------------------------------------


def _report(done: Affected, word: str, *, as_json: bool) -> None:
    if as_json:
        print_json(done)
    else:
        say(f"{done.wallets} wallet{'s' if done.wallets != 1 else ''} {word}")


def _pages(daemon: Client, user: str | None, limit: int | None) -> tuple[list[UserView], bool]:
    found: list[UserView] = []
    after: tuple[str, str] | None = None
    while limit is None or len(found) < limit:
        size = MAX_ENTRIES if limit is None else min(MAX_ENTRIES, limit - len(found))
        page = daemon.call(calls.listed(user, after=after, limit=size))
        found += page.users
        after = page.next
        if after is None:
            return found, False
    return found, True


def _row(one: UserView, now: float) -> tuple[object, ...]:
    state = "disabled" if not one.enabled else "active" if one.active else "away"
    if one.next_due_at is None or not one.enabled:
        upcoming = "-"
    else:
        upcoming = f"in {age(one.next_due_at - now)}" if one.next_due_at > now else "now"
    return (
        one.user_id,
        one.wallet_address,
        state,
        upcoming,
        "never" if one.last_sync_at is None else f"{age(max(0.0, now - one.last_sync_at))} ago",
        f"{age(max(0.0, now - one.last_active_at))} ago",
        age(one.interval_minutes * 60) if one.interval_minutes else None,
        one.timezone,
        usd(one.total_value_usd),
    )


def _minutes(text: str | None) -> int | None:
    if text is None:
        return None
    if text == _DEFAULT:
        return 0
    minutes, rest = divmod(parse_duration(text), 60)
    if rest or not minutes:
        raise typer.BadParameter(f"{text!r} is not a number of whole minutes, 1 at least")
    return int(minutes)


def _timezone(text: str | None) -> str | None:
    return "" if text == _DEFAULT else text


def _progress(file: Path) -> Progress:
    """On stderr, and only on a terminal: a log does not want a bar."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _opened(file: Path) -> AbstractContextManager[IO[str]]:
    if str(file) == "-":
        return nullcontext(typer.get_text_stream("stdin"))
    # Spreadsheets put a byte order mark before the first column's name.
    return file.open(newline="", encoding="utf-8-sig")


def _count_lines(file: Path) -> int:
    with file.open("rb") as lines:
        return sum(1 for _ in lines)


def _entries(lines: IO[str]) -> Iterator[UserEntry]:
    """Raises BadParameter naming the line."""
    columns: list[str] | None = None
    reader = csv.reader(lines)
    for row in reader:
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if columns is None:
            columns = _header(cells)
            if columns is not None:
                continue
            columns = list(_COLUMNS)
        try:
            yield _entry(dict(zip(columns, cells, strict=False)))
        except ValueError as error:
            raise typer.BadParameter(f"line {reader.line_num}: {error}") from error


def _header(cells: list[str]) -> list[str] | None:
    """The names of the columns, None when this is no header."""
    names = [_ALSO.get(cell.lower().replace("-", "_"), cell.lower()) for cell in cells]
    return names if set(_COLUMNS[:2]) <= set(names) else None


def _entry(cells: dict[str, str]) -> UserEntry:
    user, wallet = cells.get("user_id"), cells.get("wallet_address")
    if not user or not wallet:
        raise ValueError("a user id and a wallet address are needed")
    minutes = cells.get("interval_minutes")
    if minutes and not (minutes.isdecimal() and 0 < int(minutes) <= 527_040):
        raise ValueError(f"interval_minutes is {minutes[:40]!r}, not a number of minutes from 1 to 527040")
    return UserEntry(
        user_id=user,
        wallet_address=wallet,
        interval_minutes=int(minutes) if minutes else None,
        timezone=cells.get("timezone") or None,
    )
