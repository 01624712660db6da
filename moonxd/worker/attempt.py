"""One attempt at one job: parse, admit, run, commit. The only place that turns an error into an outcome.

    payload  -> Permanent: dead letter at once
    admit    -> Busy, RateLimited, BreakerOpen: later; AlreadyCommitted: answer with the recorded result
    run      -> Transient: retried with backoff; Permanent: dead letter
    commit   -> LeaseLost: somebody newer owns the wallet, nothing of ours is written

When the ledger itself is away the job is not at fault: it is postponed, and no attempt is counted.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import msgspec
import trio

from ..domain import event, history
from ..domain.errors import LeaseLost, Permanent, Transient, describe, single
from ..domain.job import Completed, Failed, Job, Outcome, Retry
from ..domain.ledger import CANCELLED, Admitted, Commit, Ending, Event, Lease, Withdrawal
from ..domain.operation import member_id, operation_id
from ..domain.payload import WalletSync
from ..domain.portfolio import PortfolioChange
from ..domain.portfolio_diff import Difference, difference, is_worth_telling
from ..domain.schedule import is_activity, snapshot_type
from ..domain.withdrawal import withdrawal
from ..jobs import Env, Found, JobType, job_type
from ..ports import Clock, Ledger
from .admission import admission, answered_by_another, outcome_of, told, waited
from .desk import Away as _Away
from .desk import Desk, Policy
from .leases import LeaseKeeper
from .words import failed_chain, who

__all__ = ["Attempts", "Policy"]

log = logging.getLogger("moonxd.attempt")

#: Seconds that writing down how an attempt ended may take once the attempt itself is cancelled.
CLOSING_S = 5.0
#: Longest commit, far above what the ledger's own deadlines allow.
COMMIT_S = 60.0


class Attempts(Desk):
    """The consumer's handler: `await attempts(job)` gives the job's outcome.

    `step(job_id, step, user=, wallet=)` is told where an attempt stands; `rand` gives [0, 1) for jitter;
    `cancelled(job_id)` says whether an operator, and not a drain, is the reason of a cancellation; `turned_away` counts
    what the user's rate limit ("rate-limit") and breaker ("breaker") kept waiting.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        leases: LeaseKeeper,
        env: Callable[[], Env],
        clock: Clock,
        policy: Policy,
        rand: Callable[[], float],
        step: Callable[..., None],
        cancelled: Callable[[str], bool],
        seen: Callable[[str, str], None] = lambda user_id, wallet: None,
        turned_away: Callable[[str], None] = lambda guard: None,
        withdraw: Callable[[Sequence[Withdrawal]], None] = lambda jobs: None,
    ) -> None:
        super().__init__(ledger, env, clock, policy, rand, step)
        self._leases = leases
        self._cancelled = cancelled
        #: Told user and wallet of a sync that somebody asked for: a sign that the user is active.
        self._seen = seen
        self._turned_away = turned_away
        #: Told of jobs that another sync stood in for; neither waits nor fails.
        self._withdraw = withdraw
        self._committing: set[str] = set()

    async def __call__(self, job: Job) -> Outcome:
        """Raises LeaseLost when the job is no longer ours to settle; every other error becomes an outcome."""
        try:
            kind = job_type(job.name)
            if not isinstance(kind, JobType):
                raise Permanent(f"job type {job.name!r} is not about one wallet")
            task = kind.parse(job.data)
        except Permanent as error:
            outcome = Failed(str(error))
            await self._bury(job, outcome, None)
            return outcome
        if is_activity(task.extra):
            self._seen(task.user_id, task.wallet)
        self._step(job.id, "admit", user=task.user_id, wallet=task.wallet)
        try:
            return await _Attempt(self, job, kind, task).run()
        except _Away as away:
            return self.away(job, away, **who(job, task))

    async def member(self, whole: Job, kind: JobType, task: WalletSync, env: Env) -> Outcome:
        """An attempt at one wallet of the job `whole`, as an operation of its own: a failure buries nothing.

        Raises LeaseLost when the wallet went to another attempt, Away.
        """
        job = msgspec.structs.replace(whole, id=member_id(whole.id, task.user_id, task.wallet))
        return await _Attempt(self, job, kind, task, env=env, whole=whole).run()

    def is_committing(self, job_id: str) -> bool:
        """Whether it is too late to cancel a job without a doubt about what it wrote."""
        return job_id in self._committing

    async def doomed(self, job: Job) -> Outcome:
        """A job that must fail without being run (see Job.doomed): a dead letter."""
        outcome = Failed(job.doomed or "it could not be run")
        await self._bury(job, outcome, None)
        return outcome


class _Attempt:
    """The state of one attempt."""

    def __init__(
        self,
        owner: Attempts,
        job: Job,
        kind: JobType,
        task: WalletSync,
        *,
        env: Env | None = None,
        whole: Job | None = None,
    ) -> None:
        self._owner = owner
        self._job = job
        self._kind = kind
        self._task = task
        self._ledger = owner._ledger
        self._policy = owner.policy
        self._env = env or owner.env()
        #: The job in the queue of which this is a part; None when this is all of it.
        self._whole = whole
        self._number = job.attempts_made + 1
        self._operation: UUID = operation_id(job.queue, job.id, job.timestamp)
        self._started = trio.current_time()

    async def run(self) -> Outcome:
        decision = await self._admit()
        if not isinstance(decision, Admitted):
            return decision
        lease = Lease(self._operation, self._task.user_id, self._task.wallet, decision.fence)
        try:
            return await self._under(lease, decision)
        except (LeaseLost, _Away):
            raise
        except Exception as error:
            return await self._fail(lease, single(error))
        except BaseException:
            # A cancellation, by itself or in a nursery's group.
            await self._abandon(lease)
            raise

    async def _under(self, lease: Lease, admitted: Admitted) -> Outcome:
        timeout = self._policy.timeout_of(self._kind.name)
        with self._owner._leases.hold(lease):
            try:
                with trio.fail_after(timeout):
                    found = await self._kind.run(self._task, admitted, self._env, self._entered)
            except trio.TooSlowError:
                raise Transient(f"the sync took longer than {timeout:g} s and was stopped") from None
            self._entered("commit")
            result = self._result(found)
            # The last moment at which a cancellation still undoes everything.
            await trio.lowlevel.checkpoint_if_cancelled()
            await self._beyond_recall(self._commit(lease, admitted, found, result))
        self._report(found)
        return Completed(event.JSON.encode(result))

    def _entered(self, step: str) -> None:
        self._owner._step(self._job.id, step)

    # ---- the ledger's three sentences ----------------------------------------------------------------------------

    async def _admit(self) -> Admitted | Outcome:
        """The way in, or what becomes of the job without one."""
        owner, job, task = self._owner, self._job, self._task
        chains = task.chain_ids or tuple(self._env.readers)
        ask = admission(
            job,
            task,
            self._about(),
            chains=chains,
            attempts=self._policy.attempts,
            worker_id=self._policy.worker_id,
            lease_s=owner._leases.lease_s,
            guards=self._policy.guards,
        )
        try:
            if waited(job):
                merged = await answered_by_another(self._ledger, job, task, self._operation, chains)
                if merged is not None:
                    answer, reason = merged
                    owner._withdraw((self._withdrawal(reason),))
                    return answer
            decision = await self._ledger.admit(ask)
        except Transient as error:
            raise _Away(f"the ledger did not admit the sync: {error}") from error
        if isinstance(decision, Admitted):
            return decision
        guard = told(decision, job, task)
        if guard is not None:
            owner._turned_away(guard)
        outcome = outcome_of(decision, ask, owner._clock.now())
        if isinstance(outcome, Failed) and self._whole is None:
            await owner._bury(job, outcome, task)
        return outcome

    async def _commit(self, lease: Lease, admitted: Admitted, found: Found, result: dict[str, Any]) -> None:
        change = found.change
        completed = self._completed(change, result)
        told = self._update(admitted, change, completed, result["processingTime"])
        now, every_s = self._owner._clock.now(), self._policy.snapshot_every_s
        is_taken, is_owed = history.snapshot(admitted, has_changed=not change.is_empty, now=now, every_s=every_s)
        commit = Commit(
            lease=lease,
            sync_type=self._task.sync_type,
            chains=found.chains,
            changed=change.changed,
            removed=change.removed,
            snapshot=change.holdings if is_taken else None,
            snapshot_owed=is_owed,
            snapshot_type=snapshot_type(self._task.extra),
            total_value_usd=change.total_value_usd,
            tokens_count=len(change.holdings),
            chains_synced=len(found.chains),
            duration_ms=result["processingTime"],
            result=result,
            metadata=found.metadata,
            events=(completed, *told),
            told_value_usd=change.total_value_usd if told else None,
            breaker=self._policy.guards.breaker,
        )
        try:
            await self._ledger.commit(commit)
        except Transient as error:
            # It may have been written: the next delivery learns that from the ledger (AlreadyCommitted).
            raise _Away(f"the ledger did not confirm the commit: {error}") from error

    async def _beyond_recall(self, commit: Awaitable[None]) -> None:
        """A commit is not cut short: nobody could say what became of it. The ledger bounds its own waits."""
        committing = self._owner._committing
        committing.add(self._job.id)
        try:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + COMMIT_S):
                await commit
                return
            raise _Away(f"the ledger did not confirm the commit within {COMMIT_S:g} s")
        finally:
            committing.discard(self._job.id)

    async def _close(self, lease: Lease, status: str, error: str | None, took: int, told: Event) -> None:
        ending = Ending(
            lease=lease,
            sync_type=self._task.sync_type,
            status=status,
            error=error,
            duration_ms=took,
            events=(told,),
            breaker=self._policy.guards.breaker,
        )
        try:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSING_S):
                await self._ledger.close(ending)
        except Transient as problem:
            # The janitor closes the row once its lease has run out.
            log.warning("the end of the attempt was not written down: %s", problem, extra=self._who())

    # ---- endings without a commit --------------------------------------------------------------------------------

    async def _fail(self, lease: Lease, error: Exception) -> Outcome:
        outcome = self._owner._failure(self._job, error)
        reason, took, about = describe(error), self._elapsed_ms(), self._about()
        if isinstance(outcome, Retry):
            told = event.retrying(
                about,
                fence=lease.fence,
                attempt=self._number,
                error=reason,
                duration_ms=took,
                delay_ms=outcome.delay_ms,
            )
            await self._close(lease, "retrying", reason, took, told)
            return outcome
        told = event.failed(about, fence=lease.fence, attempt=self._number, error=reason, duration_ms=took)
        await self._close(lease, "failed", reason, took, told)
        if isinstance(outcome, Failed) and self._whole is None:
            await self._owner._bury(self._job, outcome, self._task)
        return outcome

    async def _abandon(self, lease: Lease) -> None:
        """Cancelled from outside: by an operator for good, else handed back to the queue."""
        about, took = self._about(), self._elapsed_ms()
        if self._owner._cancelled((self._whole or self._job).id):
            status, reason = "cancelled", CANCELLED
            told = event.cancelled(
                about, fence=lease.fence, reason=reason, worker_id=self._policy.worker_id, duration_ms=took
            )
        else:
            status, reason = "released", None
            told = event.handed_back(about, fence=lease.fence, attempt=self._number, duration_ms=took)
        # A newer attempt that holds the wallet meanwhile has the say; ours just goes.
        with suppress(LeaseLost):
            await self._close(lease, status, reason, took, told)

    # ---- what is said of it --------------------------------------------------------------------------------------

    def _result(self, found: Found) -> dict[str, Any]:
        """The job's return value, in the contract's shape."""
        task, change = self._task, found.change
        return {
            "success": True,
            "jobId": self._job.id,
            "userId": task.user_id,
            "walletAddress": task.wallet,
            "processingTime": self._elapsed_ms(),
            "tokensSync": sum(1 for row in change.holdings if row.chain_id in found.chains),
            "chainsSync": len(found.chains),
            # A JSON number: those who read return values are JavaScript. The exact value is in the ledger.
            "totalValueUsd": float(change.total_value_usd),
            "chainsFailed": [failed_chain(failure) for failure in found.failures],
        }

    def _completed(self, change: PortfolioChange, result: dict[str, Any]) -> Event:
        return event.completed(
            self._about(),
            result=result,
            total_value_usd=change.total_value_usd,
            tokens_total=len(change.holdings),
        )

    def _update(self, admitted: Admitted, change: PortfolioChange, completed: Event, took: int) -> tuple[Event, ...]:
        """portfolio.updated, if the portfolio really changed."""
        found = Difference() if change.is_empty else difference(admitted.previous, change.holdings)
        told = admitted.told_value_usd
        if not is_worth_telling(found, change.total_value_usd, told, self._policy.told_move):
            return ()
        updated = event.portfolio_updated(
            self._about(),
            holdings=change.holdings,
            total_value_usd=change.total_value_usd,
            difference=found,
            previous_total_usd=told,
            duration_ms=took,
            cause=completed.id,
        )
        return (updated,)

    def _report(self, found: Found) -> None:
        fields = self._who() | {"duration_ms": self._elapsed_ms(), "tokens": len(found.change.holdings)}
        if found.failures:
            log.warning(
                "synced without %s: the last good holdings stay",
                ", ".join(f"chain {failure.chain_id} ({failure.reason})" for failure in found.failures),
                extra=fields,
            )
        else:
            log.info("synced", extra=fields)

    def _withdrawal(self, reason: str) -> Withdrawal:
        policy = self._policy
        return withdrawal(
            self._job,
            self._task,
            reason=reason,
            version=policy.version,
            at_ms=self._about().at_ms,
            worker_id=policy.worker_id,
            attempts=policy.attempts,
        )

    def _about(self) -> event.Subject:
        return event.Subject(
            operation=self._operation,
            user_id=self._task.user_id,
            wallet=self._task.wallet,
            version=self._policy.version,
            at_ms=int(self._owner._clock.now() * 1000),
        )

    def _elapsed_ms(self) -> int:
        return round((trio.current_time() - self._started) * 1000)

    def _who(self) -> dict[str, Any]:
        return who(self._job, self._task)
