"""`moonxd enqueue`: add a job, and wait for it if asked."""

from __future__ import annotations

import time
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any

import typer

from ..api import calls
from ..api.client import Client
from ..api.messages import Accepted, EnqueueRequest, JobDetail, WalletAsk
from . import exits
from .duration import parse_duration
from .jobs import show_job
from .output import Json, connect, note, print_json, say

#: One long poll; the client asks again until its own time is over.
_POLL_S = 30.0
_ENDED = ("completed", "failed")
#: Types whose jobs are about a list of wallets, be it a short one.
_ONE = ("portfolio-sync", "sync-job")
_MANY = ("bulk-sync", "chain-sync")


class Priority(StrEnum):
    high = "high"
    medium = "medium"
    low = "low"


class SyncType(StrEnum):
    portfolio = "portfolio"
    trades = "trades"
    full = "full"
    metadata = "metadata"


def enqueue(
    type: Annotated[str, typer.Argument(help="The job's type, for example portfolio-sync.")],
    user: Annotated[str | None, typer.Option(help="Whose wallet it is, or whose wallets.")] = None,
    wallet: Annotated[
        list[str] | None, typer.Option(help="The wallet's 0x address; repeat it for bulk-sync and chain-sync.")
    ] = None,
    wallets: Annotated[
        typer.FileText | None,
        typer.Option(
            metavar="FILE", help="Wallets of a bulk-sync or chain-sync, a line each: address or user,address."
        ),
    ] = None,
    token: Annotated[list[str] | None, typer.Option(help="A token's address, for token-metadata; repeat it.")] = None,
    chain: Annotated[
        list[str] | None, typer.Option(help="Only this chain (id or name; repeat it, or separate by commas).")
    ] = None,
    priority: Annotated[
        Priority | None, typer.Option(help="Who goes first. Unsaid: medium for one wallet, low for jobs about many.")
    ] = None,
    delay: Annotated[str, typer.Option(help="Not before this has passed: 90, 90s, 5m, 2h, 500ms.")] = "0",
    force: Annotated[bool, typer.Option("--force", help="Refresh even what is still fresh.")] = False,
    sync_type: Annotated[SyncType, typer.Option(help="What to sync.")] = SyncType.portfolio,
    id: Annotated[
        str | None, typer.Option(help="An id of your own; while a job of it is kept, no second is added.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the job has ended; exit 1 if it failed.")] = False,
    timeout: Annotated[str, typer.Option(help="How long --wait waits (the job goes on after it).")] = "5m",
    json: Json = False,
) -> None:
    """Add a job to the queue. With --wait --json prints the ended job: its `state` and return value (`result`)."""
    if type in _ONE and (user is None or len(wallet or ()) != 1):
        raise typer.BadParameter(f"{type} is about one wallet of one user: give --user and one --wallet")
    ask = EnqueueRequest(
        type=type,
        user_id=user,
        **_wallets(type, wallet or [], wallets),
        tokens=tuple(token or ()),
        priority=priority.value if priority else None,
        delay=round(parse_duration(delay) * 1000),
        chain_ids=tuple(part for one in chain or () for part in one.split(",") if part),
        force_refresh=force,
        sync_type=sync_type.value,
        job_id=id,
    )
    patience = parse_duration(timeout)
    with connect() as daemon:
        accepted = daemon.call(calls.enqueue(ask))
        if not wait:
            _report(accepted, as_json=json)
            return
        note(_sentence(accepted))
        job = _wait(daemon, accepted.job_id, patience)
    if json:
        print_json(job)
    else:
        show_job(job)
    if job.state not in _ENDED:
        note(f"job {job.job_id} is still {job.state} after {timeout}; it goes on without us")
    raise typer.Exit(exits.OK if job.state == "completed" else exits.BAD)


def _wallets(type: str, given: list[str], file: Iterable[str] | None) -> dict[str, Any]:
    """One wallet stands for itself, except in a job that is about many."""
    listed = [WalletAsk(wallet_address=address) for address in given]
    for line in file or ():
        user, comma, address = line.strip().rpartition(",")
        if address:
            listed.append(WalletAsk(wallet_address=address.strip(), user_id=user.strip() or None if comma else None))
    if len(listed) == 1 and file is None and type not in _MANY:
        return {"wallet_address": given[0]}
    return {"wallets": tuple(listed)}


def _report(accepted: Accepted, *, as_json: bool) -> None:
    if as_json:
        print_json(accepted)
    else:
        say(_sentence(accepted))


def _sentence(accepted: Accepted) -> str:
    if accepted.existing:
        return f"job {accepted.job_id} exists already and is {accepted.state}: nothing was added"
    return f"job {accepted.job_id} added, {accepted.state}"


def _wait(daemon: Client, job_id: str, patience: float) -> JobDetail:
    deadline = time.monotonic() + patience
    while True:
        left = max(0.0, deadline - time.monotonic())
        job = daemon.call(calls.wait_for_job(job_id, min(left, _POLL_S)))
        if job.state in _ENDED or time.monotonic() >= deadline:
            return job
