"""`moonxd status`: what the daemon does now."""

from __future__ import annotations

from ..api import calls
from ..api.schema import Snapshot
from .output import Json, age, connect, print_json, say, short, size, table


def status(json: Json = False) -> None:
    """What the daemon is doing now: queue, running jobs, chains, failures, its parts."""
    with connect() as daemon:
        snapshot = daemon.call(calls.status())
    if json:
        print_json(snapshot)
    else:
        _show(snapshot)


def _show(snapshot: Snapshot) -> None:
    _daemon(snapshot)
    _queue(snapshot)
    if snapshot.running:
        say("")
        table(
            ("JOB", "AGE", "TRY", "STEP", "USER", "WALLET"),
            [
                (job.id, age(snapshot.at - job.started_at), job.attempt, job.step, job.user, job.wallet)
                for job in snapshot.running
            ],
            right=("AGE", "TRY"),
        )
    if snapshot.chains:
        say("")
        table(
            ("CHAIN", "PROVIDER", "REQUESTS", "ERRORS", "P50", "P95", "LAST ERROR"),
            [
                (
                    chain.chain,
                    chain.provider,
                    chain.requests,
                    chain.errors,
                    age(chain.p50),
                    age(chain.p95),
                    chain.last_error,
                )
                for chain in snapshot.chains
            ],
            right=("REQUESTS", "ERRORS", "P50", "P95"),
        )
    if snapshot.failures:
        say("")
        table(
            ("FAILED", "AGO", "TRY", "REASON"),
            [
                (failure.job_id, age(snapshot.at - failure.at), failure.attempt, short(failure.reason))
                for failure in snapshot.failures[:10]
            ],
            right=("AGO", "TRY"),
        )
    _children(snapshot)


def _silent(what: str, away: tuple[str, ...]) -> str:
    return " (DOES NOT ANSWER)" if what in away else ""


def _publisher(relay: str, away: tuple[str, ...]) -> str:
    if relay == "holding":
        return "published here"
    if relay != "standby":
        return "not published"
    # Who publishes is the database's to say.
    return "wait for the database" if "database" in away else "published by another daemon"


def _daemon(snapshot: Snapshot) -> None:
    daemon = snapshot.daemon
    paused = ", claiming paused" if daemon.is_paused else ""
    say(f"moonxd {daemon.version} on {daemon.host}, pid {daemon.pid}, worker {daemon.worker}")
    say(
        f"{daemon.state} for {age(snapshot.at - daemon.started_at)}{paused}; "
        f"{daemon.slots_busy} of {daemon.slots} slots busy, {size(daemon.rss_bytes)}, {daemon.cpu:.0%} of a core"
    )
    places = {"redis": daemon.redis, "database": daemon.database}
    say(", ".join(f"{name} {where}{_silent(name, daemon.away)}" for name, where in places.items()))
    outbox = snapshot.outbox
    if outbox is not None:
        oldest = f", the oldest for {age(outbox.lag)}" if outbox.unpublished else ""
        where = _publisher(outbox.relay, daemon.away)
        say(f"events {where}, {outbox.unpublished} wait{oldest}{f': {outbox.trouble}' if outbox.trouble else ''}")


def _queue(snapshot: Snapshot) -> None:
    queue, rates = snapshot.queue, snapshot.rates
    flags = (" PAUSED" if queue.is_paused else "") + ("" if queue.fresh else " (Redis does not answer: old numbers)")
    say("")
    say(f"queue {queue.name}{flags}")
    table(
        ("WAITING", "PRIORITIZED", "ACTIVE", "DELAYED", "COMPLETED", "FAILED"),
        [
            (
                queue.waiting + queue.paused,
                queue.prioritized,
                queue.active,
                queue.delayed + queue.waiting_children,
                queue.completed,
                queue.failed,
            )
        ],
    )
    say(
        f"this worker: {rates.completed} completed, {rates.failed} failed, {rates.retried} retried, "
        f"{rates.per_second:.1f} jobs/s, p50 {age(rates.p50)}, p95 {age(rates.p95)}"
    )


def _children(snapshot: Snapshot) -> None:
    notable = [child for child in snapshot.children if child.state != "running" or child.restarts]
    if notable:
        say("")
        table(
            ("PART", "STATE", "RESTARTS", "LAST ERROR"),
            [(child.name, child.state, child.restarts, child.last_error) for child in notable],
            right=("RESTARTS",),
        )
