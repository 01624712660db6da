"""The one picture of several workers: what is added up, what is not, and what an absent worker leaves."""

from __future__ import annotations

from typing import Any

import msgspec

from moonxd.api.merge import merged
from moonxd.api.schema import Breaker, ChainHealth, Child, Failure, Rates, RunningJob, Snapshot
from tests.control.harness import PICTURE


def picture(**changes: Any) -> Snapshot:
    daemon = msgspec.structs.replace(PICTURE.daemon, **changes.pop("daemon", {}))
    return msgspec.structs.replace(PICTURE, daemon=daemon, **changes)


def rates(completed: int, p50: float | None, p95: float | None) -> Rates:
    return Rates(completed=completed, failed=1, retried=2, per_second=completed / 10, p50=p50, p95=p95)


def chain(provider: str, requests: int, p95: float | None, error: str | None = None) -> ChainHealth:
    return ChainHealth(
        chain_id=1, chain="ethereum", provider=provider, requests=requests, errors=1, p50=p95, p95=p95, last_error=error
    )


def running(job_id: str, started_at: float) -> RunningJob:
    return RunningJob(id=job_id, name="x", user="u", wallet="w", attempt=1, step="fetch", started_at=started_at)


def failure(job_id: str, at: float) -> Failure:
    return Failure(at=at, job_id=job_id, name="x", user="u", wallet="w", attempt=1, reason="r", final=False)


def child(name: str, state: str) -> Child:
    return Child(name=name, state=state, critical=True, restarts=0, since=0.0)


def test_without_an_answer_it_is_the_daemons_own_picture() -> None:
    assert merged(PICTURE, {}) is PICTURE


def test_counts_are_added_up_and_percentiles_are_not() -> None:
    own = picture(
        daemon={"slots": 0, "rss_bytes": 100, "cpu": 0.1, "loop_lag": 0.3}, children=(child("control", "running"),)
    )
    one = picture(
        daemon={"slots": 10, "slots_busy": 3, "rss_bytes": 10, "cpu": 0.5, "is_paused": True},
        rates=rates(30, 1.0, 2.0), running=(running("b", 2.0),), failures=(failure("f1", 1.0),),
        chains=(chain("a", 5, 0.5), chain("b", 1, None)),
        children=(child("consumer", "running"), child("leases", "backing-off")),
    )  # fmt: skip
    two = picture(
        daemon={"slots": 10, "slots_busy": 4, "rss_bytes": 20, "cpu": 0.6},
        rates=rates(10, 5.0, 9.0), running=(running("a", 1.0),), failures=(failure("f2", 2.0),),
        chains=(chain("a", 7, 0.7, "timeout"),), children=(child("consumer", "running"),),
    )  # fmt: skip
    all_ = merged(own, {"w-2": two, "w-1": one})
    daemon = all_.daemon
    assert (daemon.slots, daemon.slots_busy, daemon.rss_bytes, daemon.cpu) == (20, 7, 130, 1.2)
    assert (daemon.is_paused, daemon.loop_lag) == (False, 0.3)
    assert (all_.rates.completed, all_.rates.failed, all_.rates.retried) == (40, 2, 4)
    assert (all_.rates.per_second, all_.rates.p50, all_.rates.p95) == (4.0, 2.0, 9.0)
    assert [job.id for job in all_.running] == ["a", "b"]
    assert [one.job_id for one in all_.failures] == ["f2", "f1"]
    assert [(row.provider, row.requests, row.errors, row.p95, row.last_error) for row in all_.chains] == [
        ("a", 12, 2, 0.7, "timeout"),
        ("b", 1, 1, None, None),
    ]
    assert [part.name for part in all_.children] == ["control", "w-1/leases"], "what is well would only fill the board"


def test_the_worst_view_of_a_breaker_is_shown() -> None:
    def breakers(**states: str) -> tuple[Breaker, ...]:
        return tuple(Breaker(name=name, state=state, failures=2) for name, state in states.items())

    own = picture(breakers=breakers(a="closed", b="closed"))
    workers = {
        "w-1": picture(breakers=breakers(a="open", b="half-open")),
        "w-2": picture(breakers=breakers(a="closed")),
    }
    shown = merged(own, workers).breakers
    assert shown is not None
    assert [(one.name, one.state) for one in shown] == [("a", "open"), ("b", "half-open")]
    assert merged(PICTURE, {"w-1": PICTURE}).breakers is None, "none are configured"


def test_workers_that_have_done_nothing_yet_have_no_percentiles() -> None:
    none = merged(PICTURE, {"w-1": picture(), "w-2": picture()})
    assert (none.rates.p50, none.rates.p95) == (None, None)
