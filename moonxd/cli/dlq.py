"""`moonxd dlq`: jobs that failed for good, also those that the queue has forgotten."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec
import typer

from ..api import calls
from ..api.client import Client
from ..api.messages import DeadFilter, PurgeRequest, PurgeResult, RequeueRequest, RequeueResult
from . import exits
from .duration import parse_duration
from .jobs import show_job
from .output import Json, connect, note, print_json, say, short, since_ms, table

app = typer.Typer(
    help="List, show, requeue and purge jobs that failed for good.", no_args_is_help=True, add_completion=False
)

#: Jobs per call when somebody watches: each answer is a step of the progress that is shown.
_STEP = 1000

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="Job ids.")]
Reason = Annotated[str | None, typer.Option(help="Those whose reason contains this text.")]
Type = Annotated[str | None, typer.Option("--type", help="Those of this job type.")]
User = Annotated[str | None, typer.Option(help="Those of this user.")]
Older = Annotated[str | None, typer.Option("--older-than", metavar="AGE", help="Failed longer ago: 90m, 2h, 7d.")]
Newer = Annotated[str | None, typer.Option("--newer-than", metavar="AGE", help="Failed more recently.")]
All = Annotated[bool, typer.Option("--all", help="Every one.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("list")
def list_letters(
    reason: Reason = None,
    type: Type = None,
    user: User = None,
    older_than: Older = None,
    newer_than: Newer = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 50,
    after: Annotated[str | None, typer.Option(help="Older ones: what `next` said in --json.")] = None,
    json: Json = False,
) -> None:
    """Newest first."""
    call = calls.dead_letters(
        reason=reason,
        name=type,
        user=user,
        older_than=_age(older_than),
        newer_than=_age(newer_than),
        after=after,
        limit=limit,
    )
    with connect() as daemon:
        page = daemon.call(call)
    if json:
        print_json(page)
        return
    table(
        ("ID", "TYPE", "TRIES", "FAILED", "USER", "REASON"),
        [
            (
                job.job_id,
                job.name,
                job.attempts,
                since_ms(job.timestamps.finished),
                job.data.get("userId", "") if isinstance(job.data, dict) else "",
                short(job.reason or ""),
            )
            for job in page.jobs
        ],
        right=("TRIES", "FAILED"),
    )
    note(f"{len(page.jobs)} of {page.total} dead letters" if page.jobs else "no dead letters")


A = TypeVar("A", RequeueRequest, PurgeRequest)


@app.command()
def show(job_id: Annotated[str, typer.Argument(metavar="ID", help="The job's id.")], json: Json = False) -> None:
    """Payload, options, reason and trace of one."""
    with connect() as daemon:
        job = daemon.call(calls.dead_letter(job_id))
    if json:
        print_json(job)
    else:
        show_job(job)


@app.command()
def requeue(
    ids: Ids = None,
    reason: Reason = None,
    type: Type = None,
    user: User = None,
    older_than: Older = None,
    newer_than: Newer = None,
    all: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Put them back to work with the payload and options they came with. Counts first, and asks."""
    ask = _ask(RequeueRequest, ids, reason, type, user, older_than, newer_than, all=all)
    with connect() as daemon:
        counted = daemon.call(calls.requeue_dead(msgspec.structs.replace(ask, dry_run=True)))
        if not _goes_on(counted.matched, counted.more, "requeue", dry_run=dry_run, yes=yes, named=bool(ids)):
            _report(counted, f"{_many(counted.matched, counted.more)} dead letters match", as_json=json)
            return
        result = _requeue(daemon, ask, counted.matched)
    done = result.requeued + result.restored
    left = f", {result.skipped} skipped (not found, or taken by somebody meanwhile)" if result.skipped else ""
    _report(result, f"{done} requeued{left}", as_json=json)
    raise typer.Exit(exits.BAD if ids and result.skipped else exits.OK)


@app.command()
def purge(
    ids: Ids = None,
    reason: Reason = None,
    type: Type = None,
    user: User = None,
    older_than: Older = None,
    newer_than: Newer = None,
    all: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Forget them for good, in the queue and in the ledger. Counts first, and asks."""
    ask = _ask(PurgeRequest, ids, reason, type, user, older_than, newer_than, all=all)
    with connect() as daemon:
        counted = daemon.call(calls.purge_dead(msgspec.structs.replace(ask, dry_run=True)))
        if not _goes_on(counted.matched, counted.more, "purge", dry_run=dry_run, yes=yes, named=False):
            _report(counted, f"{_many(counted.matched, counted.more)} dead letters match", as_json=json)
            return
        result = _purge(daemon, ask, counted.matched)
    _report(result, f"{result.matched} purged", as_json=json)


def _requeue(daemon: Client, ask: RequeueRequest, total: int) -> RequeueResult:
    """Step after step; a step that moved nothing ends it, since what is left cannot be moved."""
    step = msgspec.structs.replace(ask, limit=_STEP)
    if ask.ids:
        return daemon.call(calls.requeue_dead(ask))
    result = daemon.call(calls.requeue_dead(step))
    while result.more:
        _progress(len(result.ids), total)
        page = daemon.call(calls.requeue_dead(step))
        result = RequeueResult(
            matched=result.matched + page.matched,
            requeued=result.requeued + page.requeued,
            restored=result.restored + page.restored,
            skipped=result.skipped + page.skipped,
            ids=(*result.ids, *page.ids),
            more=page.more and bool(page.ids),
        )
    _progress(len(result.ids), total, ended=True)
    return result


def _purge(daemon: Client, ask: PurgeRequest, total: int) -> PurgeResult:
    step = msgspec.structs.replace(ask, limit=_STEP)
    result = daemon.call(calls.purge_dead(step))
    while result.more:
        _progress(result.matched, total)
        page = daemon.call(calls.purge_dead(step))
        result = PurgeResult(
            matched=result.matched + page.matched,
            removed=result.removed + page.removed,
            forgotten=result.forgotten + page.forgotten,
            more=page.more and bool(page.removed or page.forgotten),
        )
    _progress(result.matched, total, ended=True)
    return result


def _progress(done: int, total: int, *, ended: bool = False) -> None:
    """On a terminal one line that is written over; nothing where nobody looks."""
    if total > _STEP and sys.stderr.isatty():
        sys.stderr.write(f"\r{done} of {max(done, total)}" + ("\n" if ended else ""))
        sys.stderr.flush()


def _goes_on(matched: int, more: bool, verb: str, *, dry_run: bool, yes: bool, named: bool) -> bool:
    """Whether to act. Asks, unless told not to or there is nothing to do; named jobs were chosen already."""
    if dry_run:
        return False
    if yes or named or not matched:
        return True
    question = f"{verb} {_many(matched, more)} dead letters?"
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{question} There is no terminal to ask on: add --yes")
    typer.confirm(question, abort=True, err=True)
    return True


def _many(count: int, more: bool) -> str:
    return f"{count}{' or more' if more else ''}"


def _report(answer: RequeueResult | PurgeResult, line: str, *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        say(line)


def _ask(
    kind: Callable[..., A],
    ids: list[str] | None,
    reason: str | None,
    name: str | None,
    user: str | None,
    older_than: str | None,
    newer_than: str | None,
    *,
    all: bool,
) -> A:
    """The filter that the options describe, checked."""
    ask = kind(
        ids=tuple(ids or ()),
        reason=reason,
        name=name,
        user=user,
        older_than=_age(older_than),
        newer_than=_age(newer_than),
        all=all,
    )
    _check(ask)
    return ask


def _check(ask: DeadFilter) -> None:
    if not (ask.ids or ask.all or ask.reason or ask.name or ask.user or ask.older_than or ask.newer_than):
        raise typer.BadParameter("say which: ids, --reason, --type, --user, --older-than, --newer-than or --all")


def _age(text: str | None) -> float | None:
    return None if text is None else parse_duration(text)
