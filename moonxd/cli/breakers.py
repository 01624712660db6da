"""`moonxd breakers`: look at circuit breakers, and overrule them."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ..api import calls
from ..api.messages import BreakerRequest, BreakerView
from .duration import parse_duration
from .output import Json, age, connect, note, print_json, say, table

app = typer.Typer(help="Circuit breakers of endpoints and price sources.", add_completion=False)

Name = Annotated[str, typer.Argument(help="As `moonxd breakers list` shows it.")]
Reason = Annotated[str | None, typer.Option(help="Why: shown beside the breaker, and in the log.")]


@app.callback(invoke_without_command=True)
def breakers(context: typer.Context, json: Json = False) -> None:
    """Circuit breakers of endpoints and price sources. Without a command: list them."""
    if context.invoked_subcommand is None:
        show(json=json)


@app.command(name="list")
def show(json: Json = False) -> None:
    """Every breaker of this daemon."""
    with connect() as daemon:
        found = daemon.call(calls.breakers())
    if json:
        print_json(found)
        return
    if not found.breakers:
        note("there are no breakers yet")
    rows = [
        (one.name, one.state, one.failures, _since(one.opened_at), one.reason)
        for one in sorted(found.breakers, key=lambda one: (one.state == "closed", one.name))
    ]
    table(("BREAKER", "STATE", "FAILURES", "OPEN FOR", "REASON"), rows, right=["FAILURES", "OPEN FOR"])


@app.command()
def cordon(
    name: Name,
    reason: Reason = None,
    ttl: Annotated[str | None, typer.Option(help="For how long, like 30m or 2h; else until `uncordon`.")] = None,
    json: Json = False,
) -> None:
    """Ask nothing of it, whatever its state."""
    ttl_s = None if ttl is None else parse_duration(ttl)
    _change(name, "cordon", BreakerRequest(reason=reason, ttl_s=ttl_s), as_json=json)


@app.command()
def uncordon(name: Name, reason: Reason = None, json: Json = False) -> None:
    """Lift a cordon: the state beneath is in force again."""
    _change(name, "uncordon", BreakerRequest(reason=reason), as_json=json)


@app.command()
def reset(name: Name, reason: Reason = None, json: Json = False) -> None:
    """Close it and forget its past."""
    _change(name, "reset", BreakerRequest(reason=reason), as_json=json)


def _change(name: str, action: str, ask: BreakerRequest, *, as_json: bool) -> None:
    with connect() as daemon:
        result: BreakerView = daemon.call(calls.change_breaker(name, action, ask))
    if as_json:
        print_json(result)
    else:
        say(f"breaker {result.name} is {result.state}")


def _since(opened_at: float | None) -> str:
    return age(None if opened_at is None else max(0.0, time.time() - opened_at))
