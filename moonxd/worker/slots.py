"""Slots: the places in which jobs run, one long-lived task each."""

from __future__ import annotations

from enum import Enum

import msgspec
import trio

from ..domain.job import Completed, Failed, Job, Outcome, Postpone, Release, Retry


class Verdict(Enum):
    """Why a running job was stopped from outside its handler."""

    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    LEASE_LOST = "lease lost"
    DRAINED = "drained"


class Running(msgspec.Struct, frozen=True):
    """A job in a slot, for whoever looks. `started` is trio time; `settling` means that its handler has ended."""

    job: Job
    started: float
    settling: bool


class Tally(msgspec.Struct):
    """What became of jobs since the start. `lost` were no longer ours when they ended: somebody else runs them."""

    claimed: int = 0
    completed: int = 0
    failed: int = 0
    retried: int = 0
    postponed: int = 0
    released: int = 0
    lost: int = 0

    def count(self, outcome: Outcome | None) -> None:
        if isinstance(outcome, Completed):
            self.completed += 1
        elif isinstance(outcome, Failed):
            self.failed += 1
        elif isinstance(outcome, Retry):
            self.retried += 1
        elif isinstance(outcome, Postpone):
            self.postponed += 1
        elif isinstance(outcome, Release):
            self.released += 1
        else:
            self.lost += 1


class Slot:
    """One place. Its scope spans many jobs and is replaced after it fired: a scope per job would cost 5 us a job."""

    __slots__ = ("job", "locked", "outcome", "running", "scope", "started", "verdict", "wake")

    def __init__(self) -> None:
        self.job: Job | None = None
        #: How the job ended, once its handler has; None while it runs.
        self.outcome: Outcome | None = None
        #: True exactly while the handler runs: only then may the scope be cancelled.
        self.running = False
        self.verdict: Verdict | None = None
        self.scope = trio.CancelScope()
        self.started = 0.0
        #: Trio time before which the lock was last taken or renewed.
        self.locked = 0.0
        self.wake = trio.Event()

    @property
    def is_locked(self) -> bool:
        """Whether it holds a job whose lock is ours as far as we know."""
        return self.job is not None and self.verdict is not Verdict.LEASE_LOST

    def take(self, job: Job, asked: float) -> None:
        """Hold `job`, whose lock was asked for at `asked`."""
        self.job = job
        self.outcome = None
        self.locked = asked

    def drop(self) -> None:
        """The job is not ours to care for any more."""
        self.job = None
        self.outcome = None

    def stop(self, verdict: Verdict) -> bool:
        """Cancel the handler, once; False when none runs or it is being stopped already."""
        if not self.running or self.verdict is not None:
            return False
        self.verdict = verdict
        self.scope.cancel()
        return True

    def view(self) -> Running | None:
        return None if self.job is None else Running(self.job, self.started, self.outcome is not None)
