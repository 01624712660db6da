"""What this process knows of itself: counters for Prometheus and the live view's recent past, in memory only.

Rooms report here by plain calls that neither block nor fail; nothing is read back to decide anything.
No user id, wallet or URL becomes a metric label.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .api.schema import ChainHealth, Failure, Rates, RunningJob
from .domain.chain import CHAINS
from .domain.job import Completed, Failed, Outcome, Postpone, Release, Retry
from .outlets import Outlets

#: Seconds that the live view's percentiles look back.
WINDOW_S = 300.0
#: Samples kept per percentile; beyond it the oldest go first, whatever their age.
WINDOW_SAMPLES = 2000
RECENT_FAILURES = 100
_SYNC_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 13, 20, 30, 60, 120, 300)
_CLAIM_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 15, 60, 300, 1800)
_RPC_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Window:
    """Samples of the last WINDOW_S seconds."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=WINDOW_SAMPLES)

    def add(self, at: float, value: float) -> None:
        self._samples.append((at, value))

    def values(self, now: float) -> list[float]:
        """Sorted values that are still inside the window."""
        samples = self._samples
        while samples and samples[0][0] < now - WINDOW_S:
            samples.popleft()
        return sorted(value for _, value in samples)

    def since(self, at: float) -> int:
        """How many samples are younger than `at`."""
        return sum(1 for stamp, _ in self._samples if stamp >= at)


def percentile(ordered: list[float], share: float) -> float | None:
    """Nearest-rank percentile of sorted values; None when there are none."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class _Endpoint:
    __slots__ = ("errors", "last_error", "latency", "requests", "timers")

    def __init__(self) -> None:
        #: The histogram's own object per outcome: looking it up by labels costs more than the observation.
        self.timers: dict[str, Histogram] = {}
        self.latency = Window()
        self.requests = Window()
        self.errors = Window()
        self.last_error: str | None = None


class Telemetry(Outlets):
    """One per process. Times are unix seconds, durations seconds."""

    def __init__(self, job_types: Mapping[str, str] | None = None) -> None:
        """`job_types`: the label of each job name that this worker handles. Any other name is a producer's word."""
        self._job_types = job_types or {}
        reg = self.registry = CollectorRegistry()
        super().__init__(reg)
        self._processed = Counter("sync_jobs_processed", "Jobs completed", ["type"], registry=reg)
        self._failed = Counter("sync_jobs_failed", "Jobs failed for good", ["type"], registry=reg)
        self._retried = Counter("moonxd_jobs_retried", "Attempts that failed and will be tried again", registry=reg)
        self._duration = Histogram(
            "sync_job_duration_seconds", "Time of one attempt", ["type", "outcome"], buckets=_SYNC_BUCKETS, registry=reg
        )
        self._claimed = Histogram(
            "moonxd_claim_latency_seconds", "From a job's due time until its first attempt",
            buckets=_CLAIM_BUCKETS, registry=reg,
        )  # fmt: skip
        self._active = Gauge("sync_jobs_active", "Jobs running in this process", registry=reg)
        self._rpc = Histogram(
            "moonxd_rpc_duration_seconds", "RPC requests", ["chain", "provider", "outcome"],
            buckets=_RPC_BUCKETS, registry=reg,
        )  # fmt: skip
        self._restarts = Counter("moonxd_child_restarts", "Restarts of supervised parts", ["child"], registry=reg)
        self._opened = Counter("circuit_breaker_open", "Openings and cordons of breakers", ["breaker"], registry=reg)
        self._recovery = Gauge("state_recovery_duration_seconds", "Time to take up breakers' states", registry=reg)
        self._fresh = Gauge(
            "moonxd_wallets_fresh_ratio", "Share of active wallets that are younger than their target", registry=reg
        )
        self._wallets = Gauge("moonxd_wallets", "Wallets of the schedule", ["state"], registry=reg)
        self._drift = Gauge("moonxd_schedule_drift_seconds", "How late the latest wallet was queued", registry=reg)
        self._held_back = Gauge("moonxd_schedule_held_back", "1 while the queue is too full for more", registry=reg)
        self._slots = Counter("moonxd_schedule_slots", "Slots by what became of them", ["result"], registry=reg)
        self._slots_told: dict[str, int] = {}
        # Unknown until measured: 0 would alarm somebody on a daemon that measures nothing.
        self._fresh.set(math.nan)
        self._limited = Counter("rate_limit_exceeded", "Syncs that a user's rate limit kept waiting", registry=reg)
        self._held = Counter("moonxd_breaker_held", "Syncs that a user's breaker kept waiting", registry=reg)
        self._running: dict[str, RunningJob] = {}
        self._failures: deque[Failure] = deque(maxlen=RECENT_FAILURES)
        self._durations = Window()
        self._completions = Window()
        self._endpoints: dict[tuple[int, str], _Endpoint] = {}
        self._totals = {"completed": 0, "failed": 0, "retried": 0}

    # ---- jobs ----------------------------------------------------------------------------------------------------

    def job_started(self, job_id: str, name: str, attempt: int, due_at: float | None = None) -> None:
        """`due_at`: since when it could have been taken; None: it was taken before."""
        if due_at is not None:
            # Producers have clocks of their own.
            self._claimed.observe(max(0.0, time.time() - due_at))
        self._running[job_id] = RunningJob(
            id=job_id, name=name, user="", wallet="", attempt=attempt, step="start", started_at=time.time()
        )
        self._active.set(len(self._running))

    def job_step(self, job_id: str, step: str, *, user: str | None = None, wallet: str | None = None) -> None:
        job = self._running.get(job_id)
        if job is not None:
            self._running[job_id] = RunningJob(
                id=job.id, name=job.name, user=user or job.user, wallet=wallet or job.wallet,
                attempt=job.attempt, step=step, started_at=job.started_at,
            )  # fmt: skip

    def job_settled(self, job_id: str, outcome: str, reason: str | None = None) -> None:
        """`outcome`: completed | failed | retried | postponed | released | lost."""
        job = self._running.pop(job_id, None)
        self._active.set(len(self._running))
        if job is None:
            return
        now = time.time()
        kind = self._job_types.get(job.name, "unknown")
        self._duration.labels(kind, outcome).observe(now - job.started_at)
        if outcome == "completed":
            self._processed.labels(kind).inc()
            self._durations.add(now, now - job.started_at)
            self._completions.add(now, 1.0)
        if outcome in ("failed", "retried"):
            self._failures.append(_failure(job, now, reason or outcome, final=outcome == "failed"))
            (self._failed.labels(kind) if outcome == "failed" else self._retried).inc()
        if outcome in self._totals:
            self._totals[outcome] += 1

    def turned_away(self, guard: str) -> None:
        """A job that was not let in. `guard`: rate-limit | breaker."""
        (self._limited if guard == "rate-limit" else self._held).inc()

    # ---- parts ---------------------------------------------------------------------------------------------------

    def rpc(self, chain_id: int, provider: str, outcome: str, seconds: float) -> None:
        """One RPC request. `outcome`: ok, or a short word for what went wrong; `provider`: a host name."""
        now = time.time()
        endpoint = self._endpoints.get((chain_id, provider))
        if endpoint is None:
            endpoint = self._endpoints[chain_id, provider] = _Endpoint()
        endpoint.requests.add(now, 1.0)
        if outcome == "ok":
            endpoint.latency.add(now, seconds)
        else:
            endpoint.errors.add(now, 1.0)
            endpoint.last_error = outcome
        timer = endpoint.timers.get(outcome)
        if timer is None:
            timer = endpoint.timers[outcome] = self._rpc.labels(_slug(chain_id), provider, outcome)
        timer.observe(seconds)

    def child_restarted(self, name: str) -> None:
        self._restarts.labels(name).inc()

    def breaker_opened(self, name: str) -> None:
        self._opened.labels(name).inc()

    def state_recovered(self, seconds: float) -> None:
        self._recovery.set(seconds)

    def schedule(self, *, drift_s: float, is_held_back: bool, slots: Mapping[str, int]) -> None:
        """How the scheduler stands; `slots` so far by result: queued, missed, and why others were skipped."""
        self._drift.set(drift_s)
        self._held_back.set(is_held_back)
        for result, count in slots.items():
            self._slots.labels(result).inc(count - self._slots_told.get(result, 0))
            self._slots_told[result] = count

    def freshness(self, ratio: float, wallets: Mapping[str, int]) -> None:
        """Share of active wallets younger than their target, and wallets by state."""
        self._fresh.set(ratio)
        for state, count in wallets.items():
            self._wallets.labels(state).set(count)

    # ---- views ---------------------------------------------------------------------------------------------------

    def running(self) -> tuple[RunningJob, ...]:
        """Longest running first."""
        return tuple(sorted(self._running.values(), key=lambda job: job.started_at))

    def failures(self) -> tuple[Failure, ...]:
        """Newest first."""
        return tuple(reversed(self._failures))

    def rates(self) -> Rates:
        now = time.time()
        ordered = self._durations.values(now)
        return Rates(
            completed=self._totals["completed"],
            failed=self._totals["failed"],
            retried=self._totals["retried"],
            per_second=round(self._completions.since(now - 10.0) / 10.0, 2),
            p50=percentile(ordered, 0.50),
            p95=percentile(ordered, 0.95),
        )

    def chains(self) -> tuple[ChainHealth, ...]:
        now = time.time()
        return tuple(_chain_health(key, self._endpoints[key], now) for key in sorted(self._endpoints))

    def prometheus(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)


def _failure(job: RunningJob, now: float, reason: str, *, final: bool) -> Failure:
    return Failure(
        at=now, job_id=job.id, name=job.name, user=job.user, wallet=job.wallet,
        attempt=job.attempt, reason=reason, final=final,
    )  # fmt: skip


def _slug(chain_id: int) -> str:
    chain = CHAINS.get(chain_id)
    return chain.slug if chain else str(chain_id)


def _chain_health(key: tuple[int, str], endpoint: _Endpoint, now: float) -> ChainHealth:
    ordered = endpoint.latency.values(now)
    errors = len(endpoint.errors.values(now))
    return ChainHealth(
        chain_id=key[0],
        chain=_slug(key[0]),
        provider=key[1],
        requests=len(endpoint.requests.values(now)),
        errors=errors,
        p50=percentile(ordered, 0.50),
        p95=percentile(ordered, 0.95),
        last_error=endpoint.last_error if errors else None,
    )


def outcome_word(outcome: Outcome | None) -> tuple[str, str | None]:
    """An outcome in telemetry's words, and the reason of a failure."""
    match outcome:
        case Completed():
            return "completed", None
        case Failed():
            return "failed", outcome.reason
        case Retry():
            return "retried", outcome.reason
        case Postpone():
            return "postponed", None
        case Release():
            return "released", None
        case _:
            return "lost", None
