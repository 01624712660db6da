"""`moonxd verify`: do queue, ledger, outbox and topics tell one story?

With `serve` and `migrate` the only command that opens the stores itself: what it judges may be the daemon's fault.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..domain.verify import Claim, Found, Report
from ..domain.verify.facts import parse_claim
from . import exits
from .moment import parse_moment
from .output import Json, note, print_json, say

#: Examples shown to people of each kind; --json has them all.
_SHOWN = 5


def verify(
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Configuration file (TOML).")] = None,
    jobs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='A producer\'s own list: an id a line, or {"id": ..., "timestamp": ...}. Each must be accounted for.',
        ),
    ] = None,
    kafka: Annotated[
        bool | None, typer.Option("--kafka/--no-kafka", help="Read the topics, too; by default where configured.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Only what happened since then: 2h (ago), a time.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare queue, ledger, outbox and topics, and list what does not fit; beside the daemon, or while it is stopped.

    Changes nothing. Exit code 0: all is well, 1: there are faults. Give it the configuration that the daemon has.
    """
    import trio

    from ..api.client import ClientError
    from ..config import load_config
    from ..domain.errors import ConfigError, MoonxdError, single
    from ..wiring.verify import run_verify

    loaded = load_config(config, os.environ).config
    if kafka and not loaded.kafka.is_external:
        raise ConfigError("--kafka: no brokers are configured (kafka.brokers, KAFKA_BROKERS)")
    _assert_same(loaded)
    ask = partial(
        run_verify,
        loaded,
        with_topics=kafka is not False,
        since=None if since is None else parse_moment(since, time.time()),
        claims=_claims(jobs),
    )
    try:
        report = trio.run(ask)
    except Exception as error:
        cause = single(error)
        if isinstance(cause, ConfigError) or not isinstance(cause, MoonxdError):
            raise cause from None
        raise ClientError(str(cause), "nothing was compared to its end; try again once that is there") from error
    if json:
        print_json(report)
    else:
        _show(report)
    raise typer.Exit(exits.OK if report.ok else exits.BAD)


def _claims(file: Path | None) -> Callable[[], Iterable[Claim]] | None:
    """Reads the file anew each time it is called."""
    if file is None:
        return None
    if not file.is_file():
        raise typer.BadParameter(f"--jobs: there is no file {file}")

    def read() -> Iterator[Claim]:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    claim = parse_claim(line)
                except ValueError as error:
                    raise typer.BadParameter(f"--jobs: {file}, line {number}: {error}") from None
                if claim is not None:
                    yield claim

    return read


def _assert_same(config: Any) -> None:
    """Raises ConfigError when a daemon answers here that works on other stores: all may be well with the wrong ones."""
    from ..api import calls
    from ..api.client import ClientError
    from ..wiring.verify import assert_same
    from .output import connect

    try:
        with connect() as daemon:
            found = daemon.call(calls.status()).daemon
    except ClientError:
        return
    assert_same(config, found)


def _show(report: Report) -> None:
    for name, place in report.places.items():
        note(f"{name}: {place}")
    note("read: " + ", ".join(f"{count} {what}" for what, count in report.read.items()))
    for found in report.found:
        _show_kind(found)
    faults = sum(found.count for found in report.found if found.is_fault)
    say("no faults" if report.ok else f"{faults} faults")


def _show_kind(found: Found) -> None:
    say(f"{'FAULT' if found.is_fault else 'note '}  {found.kind}  {found.count} {found.title}")
    for example in found.examples[:_SHOWN]:
        say(f"         {example.said}")
    if found.count > _SHOWN:
        say(f"         and {found.count - _SHOWN} more (--json)")
    say(f"       > {found.advice}")
