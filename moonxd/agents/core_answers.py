"""What the core service is answered: one method per type of request, between the queue, the ledger and the schedule."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import trio

from ..cancelling import Canceller
from ..domain import core_replies as replies
from ..domain.core_service import (
    CANCEL,
    JOB_NAME,
    OPERATIONS,
    STATUS,
    SYNC,
    CancelAsk,
    Letter,
    SyncAsk,
    Taken,
    Verdict,
    operation_word,
    park,
    parse_cancel,
    parse_operations,
    parse_status,
    parse_sync,
    queue_id,
    read_letter,
    reply_key,
    standing,
)
from ..domain.errors import MoonxdError, Permanent, Rejected, Transient
from ..domain.guard import counts_for_user
from ..domain.job import JobOptions, JobState, JobView, NewJob
from ..domain.ledger import Operation
from ..domain.operation import operation_id
from ..domain.payload import user_in
from ..domain.plan import Plan
from ..domain.schedule import Scheduled
from ..jobs import JOBS, Terms
from ..ports import Ledger, QueueAdmin, Schedule

log = logging.getLogger("moonxd.core_service")

#: Seconds that a reader is kept waiting for a ledger or a queue that is away, and between two tries.
PATIENCE_S, PAUSE_S = 10.0, 0.5
#: Seconds that a look at the user's rate limit may take.
LOOK_S = 2.0
#: Rows that are looked through for an operation that somebody wants cancelled.
_RECENT = 500


@dataclass(frozen=True, kw_only=True)
class Access:
    """What answering needs. Callables are asked each time."""

    queue_name: str
    queue: QueueAdmin
    ledger: Ledger
    schedule: Schedule
    plan: Plan
    canceller: Canceller
    #: When the rate limit lets the user's next manual sync in, None: now.
    frees_at: Callable[[str], Awaitable[datetime | None]]
    terms: Callable[[], Mapping[str, Terms]]
    prefixes: tuple[str, ...]
    #: Keys that begin so, and a colon, are the queue's.
    queue_prefix: str
    #: Unix seconds.
    now: Callable[[], float]
    #: Hears of each job that was added, under the id it has in the queue.
    added: Callable[[NewJob, str], Awaitable[None]]


class Answers:
    """`answer` raises a MoonxdError only for a request that is to be delivered again."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def answer(self, taken: Taken) -> Verdict:
        letter, now = read_letter(taken.body), self._access.now
        try:
            key = self._reply_key(taken, letter)
        except Permanent as error:
            return Verdict(kind=letter.kind, outcome="malformed", parked=park(taken, str(error), now()))

        def verdict(outcome: str, reply: bytes, parked: str | None = None) -> Verdict:
            entry = None if parked is None else park(taken, parked, now())
            return Verdict(kind=letter.kind, outcome=outcome, reply_key=key, reply=reply, parked=entry)

        def refused(outcome: str, why: str, parked: str | None = None) -> Verdict:
            return verdict(outcome, replies.refusal(letter, why, now()), parked)

        if letter.problem is not None:
            return refused("malformed", letter.problem, letter.problem)
        try:
            return verdict(*await self._act(taken, letter))
        except Rejected as error:
            return refused("refused", str(error))
        except Permanent as error:
            return refused("malformed", str(error), str(error))
        except Transient as error:
            if letter.type == SYNC:
                raise  # a sync is never given up: it is delivered again
            return refused("unavailable", str(error))
        except MoonxdError:
            raise
        except Exception as error:
            log.exception("a request of %s could not be answered", taken.source.key)
            return refused("broken", "moonxd failed to answer this request: its log says why", type(error).__name__)

    def _reply_key(self, taken: Taken, letter: Letter) -> str | None:
        if letter.response_queue is None:
            return None
        access = self._access
        return reply_key(taken.source.prefix, letter.response_queue, access.prefixes, access.queue_prefix)

    async def _act(self, taken: Taken, letter: Letter) -> tuple[str, bytes]:
        """The outcome and the reply."""
        if letter.type == SYNC:
            return "queued", await self._sync(taken, letter)
        act = {STATUS: self._status, OPERATIONS: self._operations, CANCEL: self._cancel}[str(letter.type)]
        return "answered", await _patiently(lambda: act(letter))

    # ---- a sync ------------------------------------------------------------------------------------------------------

    async def _sync(self, taken: Taken, letter: Letter) -> bytes:
        access, now = self._access, self._access.now()
        own = access.terms().get(JOBS[JOB_NAME].name, Terms())
        terms = JobOptions(attempts=own.attempts, backoff=own.backoff)
        ask = parse_sync(letter, taken, terms, int(now * 1000))
        assert ask.job.id is not None
        there = await access.queue.get(ask.job.id)
        if there is None:
            await self._check_limit(ask)
            (job_id,) = await access.queue.add([ask.job])
            await access.added(ask.job, job_id)
            return replies.queued(ask, job_id, now)
        problem = standing(there, ask, letter.at)
        if problem is not None:
            raise Rejected(problem)
        return replies.queued(ask, there.job.id, there.job.timestamp / 1000)

    async def _check_limit(self, ask: SyncAsk) -> None:
        """Only looks, as POST /jobs does: what counts is the admission. So a look that fails lets the job in."""
        access, user = self._access, ask.sync.user_id
        if not counts_for_user(ask.sync.extra):
            return
        free: datetime | None = None
        with trio.move_on_after(LOOK_S):
            try:
                free = await access.frees_at(user)
            except Transient as error:
                log.info("the rate limit is left to the admission: %s", error)
        if free is None or free.timestamp() <= access.now() or await self._was_admitted(ask):
            return
        at = free.astimezone(UTC).isoformat(timespec="seconds")
        raise Rejected(f"Rate limit exceeded: the next sync of this user may be asked for at {at}")

    async def _was_admitted(self, ask: SyncAsk) -> bool:
        """Whether this very request filled the window, was answered by nobody, and has left the queue since."""
        job = ask.job
        assert job.id is not None
        assert job.timestamp is not None
        wanted = operation_id(self._access.queue_name, job.id, job.timestamp)
        rows = await self._access.ledger.operations(user_id=ask.sync.user_id, wallet=ask.sync.wallet)
        return any(row.id == wanted for row in rows)

    # ---- what readers ask --------------------------------------------------------------------------------------------

    async def _status(self, letter: Letter) -> bytes:
        access, ask = self._access, parse_status(letter)
        found = await access.ledger.portfolio(ask.wallet, ask.user_id)
        running, pending = [
            len(await access.ledger.operations(user_id=ask.user_id, wallet=ask.wallet, status=word, limit=_RECENT))
            for word in ("running", "pending")
        ]
        place = await self._scheduled(ask.user_id, ask.wallet)
        now = access.now()
        own = (place.interval_minutes, place.timezone) if place else (None, None)
        return replies.status(
            ask,
            found[0] if found else None,
            running=running,
            pending=pending,
            interval_s=access.plan.interval(now, *own),
            next_at=place.due_at if place and place.is_enabled and place.look_at is not None else None,
            now=now,
        )

    async def _scheduled(self, user_id: str, wallet: str) -> Scheduled | None:
        # The page behind all that sorts before this wallet: those with the same beginning are at most sixteen.
        page = await self._access.schedule.page(user_id=user_id, after=(user_id, wallet[:-1]), limit=16)
        return next((one for one in page if (one.user_id, one.wallet) == (user_id, wallet)), None)

    async def _operations(self, letter: Letter) -> bytes:
        ask = parse_operations(letter)
        rows = await self._access.ledger.operations(
            user_id=ask.user_id,
            wallet=ask.wallet,
            status=ask.status,
            sync_type=ask.sync_type,
            since=datetime.fromtimestamp(self._access.now(), UTC) - timedelta(days=ask.days),
            limit=ask.limit,
        )
        return replies.operations(rows)

    # ---- cancelling --------------------------------------------------------------------------------------------------

    async def _cancel(self, letter: Letter) -> bytes:
        ask = parse_cancel(letter)
        job = await self._own_job(ask)
        if job is not None:
            return await self._cancel_job(job.job.id, operation_word(job.state))
        row = await self._own_operation(ask)
        if row is None:
            return replies.cancelled(found=False, is_cancelled=False, before=None)
        job_id = row.metadata.get("jobId")
        view = await self._access.queue.get(job_id) if isinstance(job_id, str) else None
        # A job about many wallets is not cancelled for one of them, nor one that only bears the same id.
        if view is None or operation_id(self._access.queue_name, view.job.id, view.job.timestamp) != row.id:
            return replies.cancelled(found=True, is_cancelled=False, before=row.status)
        return await self._cancel_job(view.job.id, row.status)

    async def _own_job(self, ask: CancelAsk) -> JobView | None:
        """Another user's is as good as none."""
        for job_id in dict.fromkeys((queue_id(ask.about, ask.user_id), ask.about)):
            try:
                view = await self._access.queue.get(job_id)
            except Permanent:
                continue  # the queue has something of its own under that name
            if view is not None and user_in(view.job.data) == ask.user_id:
                return view
        return None

    async def _own_operation(self, ask: CancelAsk) -> Operation | None:
        for status in ("running", "pending", None):
            rows = await self._access.ledger.operations(user_id=ask.user_id, status=status, limit=_RECENT)
            for row in rows:
                if ask.about.lower() == str(row.id) or row.metadata.get("jobId") == ask.about:
                    return row
        return None

    async def _cancel_job(self, job_id: str, found_as: str) -> bytes:
        done = await self._access.canceller.cancel(job_id)
        if done.why:
            log.info("a job was not cancelled for the core service: %s", done.why)
        before = operation_word(done.before) if done.before in (JobState.COMPLETED, JobState.FAILED) else found_as
        return replies.cancelled(found=True, is_cancelled=done.is_cancelled, before=before)


async def _patiently(work: Callable[[], Awaitable[bytes]]) -> bytes:
    """Raises the last Transient once PATIENCE_S have passed."""
    until = trio.current_time() + PATIENCE_S
    while True:
        try:
            with trio.fail_at(until):
                return await work()
        except trio.TooSlowError:
            raise Transient(f"moonxd's stores did not answer within {PATIENCE_S:g} s: ask again") from None
        except Transient:
            if trio.current_time() + PAUSE_S >= until:
                raise
            await trio.sleep(PAUSE_S)
