"""What the control socket speaks: typed once here, for the server, the CLI and the live view.

A viewer gets one `Snapshot`, then `Delta`s with increasing `seq`. A delta carries whole sections, and only those that
changed: applying one is replacing fields, so a viewer that missed a number asks for a new snapshot.
Times are unix seconds, durations seconds unless a name says otherwise. The live view (`Snapshot`, `Delta`) speaks
snake_case; requests and answers (messages.py) speak camelCase because existing programs do.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType


class Daemon(msgspec.Struct, frozen=True, kw_only=True):
    """The process itself. `state`: starting | running | draining | stopping."""

    version: str
    pid: int
    worker: str
    host: str
    state: str
    started_at: float
    slots: int
    slots_busy: int
    is_paused: bool
    rss_bytes: int
    #: Share of one core since the last sample, 1.0 = a whole core.
    cpu: float
    #: Worst delay of the event loop in the last ten seconds.
    loop_lag: float
    #: Where state lives: "embedded" or host:port, never with credentials.
    redis: str
    database: str
    #: Those of "redis" and "database" that do not answer now.
    away: tuple[str, ...] = ()


class QueueDepth(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    waiting: int
    prioritized: int
    active: int
    delayed: int
    waiting_children: int
    completed: int
    failed: int
    paused: int
    is_paused: bool
    #: False when Redis did not answer: the numbers are the last ones known.
    fresh: bool = True


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Of this worker, since start and over the last minute."""

    completed: int
    failed: int
    retried: int
    per_second: float
    #: Sync duration over the last few minutes; None before the first.
    p50: float | None
    p95: float | None


class RunningJob(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    user: str
    wallet: str
    attempt: int
    #: Where the attempt stands: admit, fetch, price, commit.
    step: str
    started_at: float


class ChainHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Requests to one endpoint of one chain over the last few minutes. `provider` is a host name, never a URL."""

    chain_id: int
    chain: str
    provider: str
    requests: int
    errors: int
    p50: float | None
    p95: float | None
    last_error: str | None = None


class Breaker(msgspec.Struct, frozen=True, kw_only=True):
    """state: closed | open | half-open | cordoned."""

    name: str
    state: str
    failures: int
    opened_at: float | None = None
    reason: str | None = None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A failed attempt. `final` means dead letter, else it will be retried."""

    at: float
    job_id: str
    name: str
    user: str
    wallet: str
    attempt: int
    reason: str
    final: bool


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """A supervised part. state: starting | running | failing (it runs in vain) | backing-off | failed | stopped."""

    name: str
    state: str
    critical: bool
    restarts: int
    since: float
    last_error: str | None = None


class Outbox(msgspec.Struct, frozen=True, kw_only=True):
    """Events on their way to Kafka. `relay`: holding (this daemon publishes) | standby | down."""

    unpublished: int
    #: Age of the oldest of them, seconds.
    lag: float
    relay: str
    #: Why nothing leaves, if nothing does.
    trouble: str | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    seq: int
    at: float
    daemon: Daemon
    queue: QueueDepth
    rates: Rates
    running: tuple[RunningJob, ...]
    chains: tuple[ChainHealth, ...]
    #: None while no breaker is configured (as opposed to an empty tuple: configured, none yet).
    breakers: tuple[Breaker, ...] | None
    failures: tuple[Failure, ...]
    children: tuple[Child, ...]
    #: None where nothing is published.
    outbox: Outbox | None = None


class Delta(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sections of `Snapshot` that changed since `seq - 1`."""

    seq: int
    at: float
    daemon: Daemon | UnsetType = UNSET
    queue: QueueDepth | UnsetType = UNSET
    rates: Rates | UnsetType = UNSET
    running: tuple[RunningJob, ...] | UnsetType = UNSET
    chains: tuple[ChainHealth, ...] | UnsetType = UNSET
    breakers: tuple[Breaker, ...] | UnsetType | None = UNSET
    failures: tuple[Failure, ...] | UnsetType = UNSET
    children: tuple[Child, ...] | UnsetType = UNSET
    outbox: Outbox | UnsetType | None = UNSET


SECTIONS = ("daemon", "queue", "rates", "running", "chains", "breakers", "failures", "children", "outbox")


def difference(old: Snapshot, new: Snapshot) -> Delta:
    """The delta that turns `old` into `new`; its seq is old.seq + 1."""
    changed = {name: getattr(new, name) for name in SECTIONS if getattr(old, name) != getattr(new, name)}
    return Delta(seq=old.seq + 1, at=new.at, **changed)


def apply(snapshot: Snapshot, delta: Delta) -> Snapshot:
    """`snapshot` with `delta` applied. Raises ValueError when a delta is missing in between."""
    if delta.seq != snapshot.seq + 1:
        raise ValueError(f"delta {delta.seq} does not follow snapshot {snapshot.seq}")
    changed: dict[str, Any] = {name: section for name in SECTIONS if (section := getattr(delta, name)) is not UNSET}
    return msgspec.structs.replace(snapshot, seq=delta.seq, at=delta.at, **changed)
