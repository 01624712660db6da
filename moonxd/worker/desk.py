"""What attempts at every kind of job share: the policy, and what becomes of a job that fails or has to wait."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ..domain.errors import Transient
from ..domain.guard import Guards
from ..domain.job import Backoff, Failed, Job, Outcome, Postpone
from ..domain.payload import WalletSync
from ..domain.retry import after_failure
from ..jobs import Env, Terms
from ..ports import Clock, Ledger
from .words import dead_letter, stack

log = logging.getLogger("moonxd.attempt")

#: Seconds until a job is looked at again when the ledger is away.
AWAY_S = 3.0
_NO_TERMS = Terms()


class Away(Exception):
    """What every job needs is not there (the ledger, the chains' connections): not this job's fault."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How attempts are made, from the configuration."""

    worker_id: str
    version: str
    attempts: int = 3
    backoff: Backoff = field(default_factory=Backoff)
    timeout_s: float = 300.0
    #: A changed portfolio is copied to the history at most this often.
    snapshot_every_s: float = 3600.0
    #: By what share prices alone must move a wallet's total to be told (portfolio.updated).
    told_move: Decimal = Decimal("0.01")
    guards: Guards = field(default_factory=Guards)
    #: What differs by type of job, by the type's name.
    terms: Mapping[str, Terms] = field(default_factory=dict)

    def timeout_of(self, name: str) -> float:
        return self.terms.get(name, _NO_TERMS).timeout_s or self.timeout_s


class Desk:
    """Base of Attempts."""

    def __init__(
        self,
        ledger: Ledger,
        env: Callable[[], Env],
        clock: Clock,
        policy: Policy,
        rand: Callable[[], float],
        step: Callable[..., None],
    ) -> None:
        self._ledger = ledger
        self._env = env
        self._clock = clock
        #: May be replaced while attempts run; each keeps the one it began with.
        self.policy = policy
        self._rand = rand
        self._step = step

    def env(self) -> Env:
        """Raises Away while the chains are not open."""
        try:
            return self._env()
        except Transient as error:
            raise Away(str(error)) from error

    def step(self, job_id: str, step: str, **who: str) -> None:
        self._step(job_id, step, **who)

    def is_last(self, job: Job) -> bool:
        """Whether there is no attempt after this one."""
        most = job.options.attempts if job.options.attempts is not None else self.policy.attempts
        return job.attempts_made + 1 >= most

    def away(self, job: Job, why: Exception, **fields: Any) -> Outcome:
        """What every job needs is away: it waits, and no attempt is counted."""
        log.warning("%s; the job waits", why, extra=fields or {"job_id": job.id, "attempt": job.attempts_made + 1})
        return self.postponed(AWAY_S * (0.5 + self._rand()))

    async def failed(self, job: Job, error: Exception) -> Outcome:
        """The outcome of an attempt that ended with `error`, and a dead letter if it was the last."""
        outcome = self._failure(job, error)
        if isinstance(outcome, Failed):
            await self._bury(job, outcome, None)
        return outcome

    def postponed(self, seconds: float) -> Postpone:
        return Postpone(int((self._clock.now() + seconds) * 1000))

    def _failure(self, job: Job, error: Exception) -> Outcome:
        options = job.options
        return after_failure(
            error,
            attempts_made=job.attempts_made,
            attempts=options.attempts if options.attempts is not None else self.policy.attempts,
            backoff=options.backoff or self.policy.backoff,
            rand=self._rand(),
            stack=stack(error),
        )

    async def _bury(self, job: Job, outcome: Failed, task: WalletSync | None) -> None:
        letter = dead_letter(job, outcome, task, int(self._clock.now() * 1000))
        try:
            await self._ledger.bury(letter)
        except Transient as error:
            # The failed set in Redis still holds the job: better a missing copy than a job that cannot end.
            log.warning("no copy of dead letter %s in the ledger: %s", job.id, error, extra={"job_id": job.id})
