"""Every call of the API, once: what is sent and the type of what comes back. `Client.call(calls.status())`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import quote

from . import events as ev
from . import messages as m
from . import wallets
from .schema import Snapshot

T = TypeVar("T")
Param = str | int | float | None

#: Seconds a client waits for an ordinary answer; longer than the server's own deadline, so that the server explains.
PATIENCE_S = 35.0
REQUEUE_PATIENCE_S = 120.0

_WHOLE_QUEUE = m.PauseRequest()


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """One request. Parameters that are None are left out."""

    method: str
    path: str
    answer: type[T]
    #: Several values repeat the parameter.
    params: Mapping[str, Param | Sequence[str]] = field(default_factory=dict)
    body: m.Request | None = None
    #: Seconds until the client gives up.
    patience: float = PATIENCE_S
    #: Answers with these statuses besides 2xx carry `answer`, not an error.
    also: tuple[int, ...] = ()


def status() -> Call[Snapshot]:
    return Call(method="GET", path="/v1/status", answer=Snapshot)


def version() -> Call[m.Version]:
    return Call(method="GET", path="/v1/version", answer=m.Version)


def health() -> Call[m.Health]:
    return Call(method="GET", path="/v1/health", answer=m.Health)


def ready() -> Call[m.Ready]:
    """Also answers when the daemon is not ready: read `status`."""
    return Call(method="GET", path="/v1/health/ready", answer=m.Ready, also=(503,))


def queue_stats() -> Call[m.QueueStats]:
    return Call(method="GET", path="/v1/queue-stats", answer=m.QueueStats)


def enqueue(ask: m.EnqueueRequest) -> Call[m.Accepted]:
    return Call(method="POST", path="/v1/jobs", body=ask, answer=m.Accepted)


def job(job_id: str) -> Call[m.JobDetail]:
    return Call(method="GET", path=_job(job_id), answer=m.JobDetail)


def wait_for_job(job_id: str, timeout: float) -> Call[m.JobDetail]:
    """The job once it has ended, or as it is after `timeout` seconds (at most 60)."""
    return Call(
        method="GET",
        path=_job(job_id) + "/wait",
        params={"timeout": timeout},
        answer=m.JobDetail,
        patience=timeout + PATIENCE_S,
    )


def jobs(state: str | None = None, *, start: int = 0, limit: int = 50) -> Call[m.JobPage]:
    return Call(
        method="GET", path="/v1/jobs", params={"state": state, "start": start, "limit": limit}, answer=m.JobPage
    )


def cancel(job_id: str) -> Call[m.Cancelled]:
    return Call(method="DELETE", path=_job(job_id), answer=m.Cancelled)


def promote(job_id: str) -> Call[m.Promoted]:
    return Call(method="POST", path=_job(job_id) + "/promote", answer=m.Promoted)


def requeue(ask: m.RequeueRequest) -> Call[m.RequeueResult]:
    return Call(method="POST", path="/v1/jobs/requeue", body=ask, answer=m.RequeueResult, patience=REQUEUE_PATIENCE_S)


def dead_letters(
    *,
    reason: str | None = None,
    name: str | None = None,
    user: str | None = None,
    older_than: float | None = None,
    newer_than: float | None = None,
    after: str | None = None,
    limit: int = 50,
) -> Call[m.DeadPage]:
    params: dict[str, Param] = {
        "reason": reason,
        "name": name,
        "user": user,
        "olderThan": older_than,
        "newerThan": newer_than,
        "after": after,
        "limit": limit,
    }
    return Call(method="GET", path="/v1/dlq", params=params, answer=m.DeadPage)


def dead_letter(job_id: str) -> Call[m.JobDetail]:
    return Call(method="GET", path="/v1/dlq/" + quote(job_id, safe=""), answer=m.JobDetail)


def requeue_dead(ask: m.RequeueRequest) -> Call[m.RequeueResult]:
    return Call(method="POST", path="/v1/dlq/requeue", body=ask, answer=m.RequeueResult, patience=REQUEUE_PATIENCE_S)


def purge_dead(ask: m.PurgeRequest) -> Call[m.PurgeResult]:
    return Call(method="POST", path="/v1/dlq/purge", body=ask, answer=m.PurgeResult, patience=REQUEUE_PATIENCE_S)


def pause(ask: m.PauseRequest = _WHOLE_QUEUE) -> Call[m.PauseResult]:
    return Call(method="POST", path="/v1/workers/pause", body=ask, answer=m.PauseResult)


def resume(ask: m.PauseRequest = _WHOLE_QUEUE) -> Call[m.PauseResult]:
    return Call(method="POST", path="/v1/workers/resume", body=ask, answer=m.PauseResult)


def restart(ask: m.RestartRequest) -> Call[m.RestartResult]:
    return Call(method="POST", path="/v1/workers/restart", body=ask, answer=m.RestartResult)


def workers() -> Call[m.Workers]:
    return Call(method="GET", path="/v1/workers", answer=m.Workers)


def breakers() -> Call[m.Breakers]:
    return Call(method="GET", path="/v1/breakers", answer=m.Breakers)


def change_breaker(name: str, action: str, ask: m.BreakerRequest) -> Call[m.BreakerView]:
    """`action`: cordon | uncordon | reset."""
    return Call(method="POST", path=f"/v1/breakers/{quote(name, safe='')}/{action}", body=ask, answer=m.BreakerView)


def portfolio(wallet: str, user: str | None = None, *, activity: bool = True) -> Call[wallets.PortfolioReply]:
    """`activity`: it is the user who looks, not an operator."""
    return Call(
        method="GET",
        path=f"/v1/portfolio/{quote(wallet, safe='')}",
        params={"user": user, "activity": None if activity else "false"},
        answer=wallets.PortfolioReply,
    )


def history(
    wallet: str, *, user: str | None = None, since: str | None = None, until: str | None = None, limit: int = 50
) -> Call[wallets.HistoryReply]:
    """`since` and `until` are ISO 8601 times or epoch seconds."""
    params: dict[str, Param] = {"user": user, "since": since, "until": until, "limit": limit}
    return Call(
        method="GET", path=f"/v1/portfolio/{quote(wallet, safe='')}/history", params=params, answer=wallets.HistoryReply
    )


def operations(
    *, user: str | None = None, wallet: str | None = None, status: str | None = None, limit: int = 50
) -> Call[wallets.Operations]:
    params: dict[str, Param] = {"user": user, "wallet": wallet, "status": status, "limit": limit}
    return Call(method="GET", path="/v1/operations", params=params, answer=wallets.Operations)


def events(
    after: int = 0,
    *,
    limit: int = 100,
    types: Sequence[str] = (),
    topics: Sequence[str] = (),
    users: Sequence[str] = (),
    since: float | None = None,
    last: int | None = None,
    wait: float = 0.0,
) -> Call[m.EventsPage]:
    """Behind `after`; without it those `since` (unix seconds), or the `last` ones. `wait` for the next, in seconds."""
    params: dict[str, Param | Sequence[str]] = {
        "after": after,
        "limit": limit,
        "type": tuple(types),
        "topic": tuple(topics),
        "user": tuple(users),
        "since": since,
        "last": last,
        "wait": wait or None,
    }
    return Call(method="GET", path="/v1/events", params=params, answer=m.EventsPage, patience=wait + PATIENCE_S)


def replay(ask: ev.ReplayRequest) -> Call[ev.ReplayResult]:
    return Call(
        method="POST", path="/v1/events/replay", body=ask, answer=ev.ReplayResult, patience=REQUEUE_PATIENCE_S + 10
    )


def _job(job_id: str) -> str:
    return "/v1/jobs/" + quote(job_id, safe="")
