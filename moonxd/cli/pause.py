"""`moonxd pause` and `moonxd resume`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..api import calls
from ..api.calls import Call
from ..api.messages import PauseRequest, PauseResult
from .output import Json, connect, print_json, say

#: How the API names the worker one talks to.
_THIS = "this"

Worker = Annotated[bool, typer.Option("--worker", help="Only this daemon's worker; the others go on.")]
Reason = Annotated[str | None, typer.Option(help="Why, for the log.")]


def pause(worker: Worker = False, reason: Reason = None, json: Json = False) -> None:
    """Stop taking jobs: the whole queue for every worker, or with --worker only here. Running jobs end normally."""
    _run(calls.pause(_ask(worker, reason)), as_json=json)


def resume(worker: Worker = False, reason: Reason = None, json: Json = False) -> None:
    """Take jobs again: the whole queue, or with --worker only here."""
    _run(calls.resume(_ask(worker, reason)), as_json=json)


def _ask(worker: bool, reason: str | None) -> PauseRequest:
    return PauseRequest(worker=_THIS if worker else None, reason=reason)


def _run(call: Call[PauseResult], *, as_json: bool) -> None:
    with connect() as daemon:
        result = daemon.call(call)
    if as_json:
        print_json(result)
    else:
        say(f"{result.scope} {result.name} is {'paused' if result.is_paused else 'running'}")
