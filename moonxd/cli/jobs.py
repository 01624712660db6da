"""`moonxd jobs`: look at jobs and act on them."""

from __future__ import annotations

import sys
from typing import Annotated, Literal, cast

import msgspec
import typer

from ..api import calls
from ..api.client import ApiError, Client
from ..api.messages import Cancelled, JobDetail, RequeueRequest, RequeueResult
from . import exits
from .output import Json, connect, note, plain, print_json, say, short, since_ms, table

app = typer.Typer(help="List, show, cancel, promote and requeue jobs.", no_args_is_help=True, add_completion=False)

_FORGOTTEN = " (the ledger's copy: the queue has forgotten it)"

Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Job ids.")]


@app.command("list")
def list_jobs(
    state: Annotated[
        str | None,
        typer.Option(
            help="waiting, prioritized, active, delayed, waiting-children, completed, failed, or dead "
            "(copies of dead letters, also those the queue has forgotten)."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 50,
    start: Annotated[int, typer.Option(min=0, help="Skip this many.")] = 0,
    json: Json = False,
) -> None:
    """Jobs of one state, or of every state with the urgent ones first."""
    with connect() as daemon:
        page = daemon.call(calls.jobs(state, start=start, limit=limit))
    if json:
        print_json(page)
        return
    table(
        ("ID", "STATE", "NAME", "TRIES", "AGE", "USER", "REASON"),
        [
            (
                job.job_id,
                job.state,
                job.name,
                job.attempts,
                since_ms(job.timestamps.finished or job.timestamps.created),
                _payload(job, "userId"),
                short(job.reason or ""),
            )
            for job in page.jobs
        ],
        right=("TRIES", "AGE"),
    )
    if not page.jobs:
        note("no jobs")


@app.command()
def show(job_id: Annotated[str, typer.Argument(metavar="ID", help="The job's id.")], json: Json = False) -> None:
    """Everything known about one job, also after the queue has forgotten it as a dead letter."""
    with connect() as daemon:
        job = daemon.call(calls.job(job_id))
    if json:
        print_json(job)
    else:
        show_job(job)


@app.command()
def cancel(ids: Ids, json: Json = False) -> None:
    """Remove jobs that wait, stop jobs that run, on whatever worker."""
    with connect() as daemon:
        answers = [_cancel(daemon, job_id) for job_id in ids]
    if json:
        print_json([answer if not isinstance(answer, ApiError) else _as_dict(answer) for answer in answers])
    refused = False
    for job_id, answer in zip(ids, answers, strict=True):
        if isinstance(answer, ApiError):
            refused = True
            note(f"moonxd: {answer.message}" + (f"; {answer.hint}" if answer.hint else ""))
        elif not json:
            say(f"job {job_id} cancelled (it was {answer.state})")
    raise typer.Exit(exits.BAD if refused else exits.OK)


@app.command()
def promote(job_id: Annotated[str, typer.Argument(metavar="ID", help="The job's id.")], json: Json = False) -> None:
    """Make a delayed job due now."""
    with connect() as daemon:
        promoted = daemon.call(calls.promote(job_id))
    if json:
        print_json(promoted)
    else:
        say(f"job {promoted.job_id} is {promoted.state}")


@app.command()
def requeue(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="Job ids.")] = None,
    all: Annotated[bool, typer.Option("--all", help="Every failed job.")] = False,
    reason: Annotated[str | None, typer.Option(help="Those whose reason contains this text.")] = None,
    name: Annotated[str | None, typer.Option(help="Those of this job name.")] = None,
    user: Annotated[str | None, typer.Option(help="Those of this user.")] = None,
    state: Annotated[str, typer.Option(help="failed, or completed to run finished jobs once more.")] = "failed",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Put failed jobs back to work, dead letters included. Counts and asks before it moves more than named ids."""
    if not (ids or all or reason or name or user):
        raise typer.BadParameter("say which jobs: ids, --reason, --name, --user or --all")
    if state not in ("failed", "completed"):
        raise typer.BadParameter(f"--state {state!r}: use failed or completed")
    ask = RequeueRequest(
        ids=tuple(ids or ()),
        all=all,
        reason=reason,
        name=name,
        user=user,
        state=cast(Literal["failed", "completed"], state),
    )
    with connect() as daemon:
        counted = daemon.call(calls.requeue(msgspec.structs.replace(ask, dry_run=True))) if dry_run or not ids else None
        if dry_run and counted is not None:
            _report_count(counted, as_json=json)
            return
        if counted is not None and counted.matched and not yes:
            _confirm(counted)
        result = _requeue_all(daemon, ask)
    _report_requeue(result, as_json=json)
    raise typer.Exit(exits.BAD if ids and result.skipped else exits.OK)


def _confirm(counted: RequeueResult) -> None:
    question = f"requeue {counted.matched}{' or more' if counted.more else ''} jobs?"
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{question} There is no terminal to ask on: add --yes")
    typer.confirm(question, abort=True, err=True)


def _requeue_all(daemon: Client, ask: RequeueRequest) -> RequeueResult:
    """Page after page; a page that moved nothing ends it, since what is left cannot be moved."""
    result = daemon.call(calls.requeue(ask))
    while result.more:
        page = daemon.call(calls.requeue(ask))
        result = RequeueResult(
            matched=result.matched + page.matched,
            requeued=result.requeued + page.requeued,
            restored=result.restored + page.restored,
            skipped=result.skipped + page.skipped,
            ids=(*result.ids, *page.ids),
            more=page.more and bool(page.ids),
        )
    return result


def _report_count(counted: RequeueResult, *, as_json: bool) -> None:
    if as_json:
        print_json(counted)
    else:
        say(f"{counted.matched}{' or more' if counted.more else ''} jobs match")


def _report_requeue(result: RequeueResult, *, as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    parts = [f"{result.requeued + result.restored} requeued"]
    if result.restored:
        parts.append(f"{result.restored} of them from dead-letter copies")
    if result.skipped:
        parts.append(f"{result.skipped} skipped (not found or not in that state)")
    say(", ".join(parts))


def show_job(job: JobDetail) -> None:
    """One job for people: what is known, nothing that is not."""
    times = job.timestamps
    tries = f"{job.attempts}" + (f" of {job.max_attempts}" if job.max_attempts else "")
    lines: list[tuple[str, object]] = [
        ("job", f"{job.job_id} ({job.name}, queue {job.queue})"),
        ("state", job.state + (_FORGOTTEN if job.source == "dead-letter" else "")),
        ("attempts", tries),
        ("priority", job.priority or None),
        ("added", f"{since_ms(times.created)} ago"),
        ("started", f"{since_ms(times.processed)} ago" if times.processed else None),
        ("ended", f"{since_ms(times.finished)} ago" if times.finished else None),
        ("worker", job.processed_by),
        ("progress", _compact(job.progress) if job.progress not in (None, 0) else None),
        ("reason", job.reason),
        ("payload", _compact(job.data) if job.data is not None else None),
        ("result", _compact(job.result) if job.result is not None else None),
    ]
    for label, value in lines:
        if value is not None:
            say(f"{label:<16} {plain(value)}")
    for line in job.stack:
        say(f"    {line}")
    for line in job.logs:
        say(f"log: {line}")


def _compact(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _payload(job: JobDetail, name: str) -> object:
    return job.data.get(name, "") if isinstance(job.data, dict) else ""


def _cancel(daemon: Client, job_id: str) -> Cancelled | ApiError:
    """One that cannot be cancelled must not keep the others from it."""
    try:
        return daemon.call(calls.cancel(job_id))
    except ApiError as error:
        return error


def _as_dict(error: ApiError) -> dict[str, object]:
    return {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
