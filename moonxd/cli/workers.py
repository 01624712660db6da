"""`moonxd workers`: the fleet, and what one may do to a single worker."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ..api import calls
from ..api.client import Client
from ..api.messages import PauseRequest, RestartRequest, WorkerView
from . import exits
from .duration import parse_duration
from .output import Json, age, connect, note, print_json, say, size, table

_POLL_S = 0.2

app = typer.Typer(help="List the fleet's workers, pause or resume one.", add_completion=False)

Name = Annotated[str, typer.Argument(metavar="WORKER", help="The worker's name, as `moonxd workers` shows it.")]
Reason = Annotated[str | None, typer.Option(help="Why, for the log.")]


@app.callback(invoke_without_command=True)
def workers(context: typer.Context, json: Json = False) -> None:
    """Every worker of the queue, on whatever host. Without a command: list them."""
    if context.invoked_subcommand is None:
        _list(as_json=json)


@app.command("list")
def list_workers(json: Json = False) -> None:
    """Every worker of the queue, on whatever host."""
    _list(as_json=json)


@app.command()
def pause(worker: Name, reason: Reason = None, json: Json = False) -> None:
    """This worker takes no more jobs; the others go on, and its running jobs end normally."""
    _set(worker, reason, paused=True, as_json=json)


@app.command()
def resume(worker: Name, reason: Reason = None, json: Json = False) -> None:
    """This worker takes jobs again."""
    _set(worker, reason, paused=False, as_json=json)


@app.command()
def restart(
    worker: Annotated[str | None, typer.Argument(metavar="[WORKER]", help="Only this one.")] = None,
    reason: Reason = None,
    timeout: Annotated[str, typer.Option(help="How long to wait for all of them; they go on without us.")] = "10m",
    json: Json = False,
) -> None:
    """Restart this daemon's worker processes one after the other: each drains, and the next waits until it is back."""
    patience = parse_duration(timeout)
    with connect() as daemon:
        before = {one.worker: one.started_at for one in daemon.call(calls.workers()).workers}
        result = daemon.call(calls.restart(RestartRequest(worker=worker, reason=reason)))
        late = _follow(daemon, result.workers, before, patience)
    if json:
        print_json(result)
    if late:
        note(f"moonxd: not back within {timeout}: {', '.join(late)}")
        raise typer.Exit(exits.BAD)


def _follow(daemon: Client, names: tuple[str, ...], before: dict[str, float], patience: float) -> list[str]:
    """Those that are not back in time; says each that is."""
    deadline, left = time.monotonic() + patience, list(names)
    while left and time.monotonic() < deadline:
        for one in daemon.call(calls.workers()).workers:
            if one.worker in left and one.state == "running" and one.started_at > before.get(one.worker, 0.0):
                left.remove(one.worker)
                note(f"worker {one.worker} is back (process {one.pid})")
        if left:
            time.sleep(_POLL_S)
    return left


def _set(worker: str, reason: str | None, *, paused: bool, as_json: bool) -> None:
    ask = PauseRequest(worker=worker, reason=reason)
    with connect() as daemon:
        result = daemon.call(calls.pause(ask) if paused else calls.resume(ask))
    if as_json:
        print_json(result)
    else:
        say(f"worker {result.name} is {'paused' if result.is_paused else 'running'}")


def _list(*, as_json: bool) -> None:
    with connect() as daemon:
        fleet = daemon.call(calls.workers())
    if as_json:
        print_json(fleet)
        return
    now = time.time()
    table(
        ("WORKER", "HOST", "PID", "VERSION", "STATE", "SLOTS", "JOBS/S", "MEMORY", "UP", "SEEN"),
        [_row(worker, now) for worker in fleet.workers],
        right=("PID", "SLOTS", "JOBS/S", "MEMORY", "UP", "SEEN"),
    )
    if not fleet.workers:
        note("no workers")


def _row(worker: WorkerView, now: float) -> tuple[object, ...]:
    state = f"{worker.state}, paused" if worker.is_paused else worker.state
    return (
        worker.worker,
        worker.host,
        worker.pid,
        worker.version,
        state,
        f"{worker.slots_busy}/{worker.slots}",
        f"{worker.per_second:.1f}",
        size(worker.rss_bytes),
        age(max(0.0, now - worker.started_at)),
        age(max(0.0, now - worker.seen_at)),
    )
