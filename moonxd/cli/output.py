"""How answers look: JSON for programs, plain tables for people. No colour is needed to read them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from ..api.client import Client
from ..paths import find_socket

if TYPE_CHECKING:
    from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]

#: Without a terminal there is no width to fit into: whole values, so that grep and awk find them.
_UNBOUNDED = 10_000


def connect() -> Client:
    """A client of the daemon that the options and the environment name. Use it as a context manager."""
    return Client(Path(find_socket(os.environ)))


def print_json(value: object, *, compact: bool = False) -> None:
    """`compact`: on one line, for a stream of them."""
    sys.stdout.write((msgspec.json.encode(value).decode() if compact else as_json(value)) + "\n")
    sys.stdout.flush()


def as_json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def error_json(code: str, message: str, hint: str | None) -> str:
    return as_json({"error": {"code": code, "message": message, "hint": hint}})


def say(line: str) -> None:
    """One line for people on stdout."""
    sys.stdout.write(plain(line) + "\n")


def note(line: str) -> None:
    """One line beside the answer: stderr, so that stdout stays what was asked for."""
    sys.stderr.write(plain(line) + "\n")


def plain(text: object) -> str:
    """Without control characters: a token's name or an error's text must not write to the operator's terminal."""
    return "".join(c if c.isprintable() else " " if c in "\n\r\t" else "�" for c in str(text))


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Columns without lines. The last column takes what room is left and is cut there; the others wrap."""
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold", show_edge=False, padding=(0, 2, 0, 0))
    for header in headers:
        is_last = header == headers[-1]
        grid.add_column(
            header,
            justify="right" if header in right else "left",
            overflow="ellipsis" if is_last else "fold",
            no_wrap=is_last,
        )
    for row in rows:
        grid.add_row(*(Text(plain("-" if cell is None else cell)) for cell in row))
    _console().print(grid)


def _console() -> Console:
    from rich.console import Console

    bounded = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if bounded else _UNBOUNDED, markup=False, highlight=False, emoji=False)


def short(text: str, most: int = 160) -> str:
    """What of a long reason fits into a table; the record itself has all of it."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def age(seconds: float | None) -> str:
    """A duration as people say it: 40ms, 1.4s, 12s, 3m05s, 2h10m, 4d."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m" if whole < 172_800 else f"{whole // 86_400}d"


def since_ms(epoch_ms: int | None) -> str:
    """How long ago, for the queue's times."""
    return "-" if epoch_ms is None else age(max(0.0, time.time() - epoch_ms / 1000))


def usd(value: Decimal | None) -> str:
    """Two places, more for what would look like zero; unknown is a dash, never 0."""
    if value is None:
        return "-"
    return f"${value:,.2f}" if value == 0 or abs(value) >= Decimal("0.01") else f"${value:.2g}"


def size(count: int) -> str:
    return f"{count / 1_048_576:.0f} MB"
