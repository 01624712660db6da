"""Everything about one job's id: claimed by its producer, held by the queue, known to the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..job import JobState
from ..ledger import ABANDONED
from ..operation import operation_id
from .facts import UNFINISHED, Claim, Fact, Held, Letter, Row
from .findings import Finding
from .operation import Scope

States = Mapping[str, tuple[JobState, int] | None]


class _Job:
    def __init__(self, key: str, facts: Sequence[Fact]) -> None:
        self.key = key
        self.id = key[1:]
        self.claims = [fact for fact in facts if isinstance(fact, Claim)]
        self.rows = [fact for fact in facts if isinstance(fact, Row)]
        self.letters = [fact for fact in facts if isinstance(fact, Letter)]
        self.held = next((fact for fact in facts if isinstance(fact, Held)), None)

    def knows(self, claim: Claim, queue: str) -> bool:
        if claim.timestamp is None:
            return bool(self.rows or self.letters or self.held)
        return (
            # The members of a job about many wallets are several operations, under ids of their own.
            any(row.job_id != self.id or row.id == operation_id(queue, self.id, claim.timestamp) for row in self.rows)
            or any(letter.timestamp == claim.timestamp for letter in self.letters)
            or (self.held is not None and self.held.timestamp == claim.timestamp)
        )

    def mourned(self) -> Iterator[Row]:
        """Rows that failed by themselves and ought to have a dead letter."""
        if self.letters or (self.held is not None and self.held.state == JobState.FAILED):
            return
        for row in self.rows:
            if row.status == "failed" and row.job_id == self.id and row.error_message != ABANDONED:
                yield row


def unknown_jobs(key: str, facts: Sequence[Fact], queue: str) -> tuple[str, ...]:
    """The jobs of which the queue has to be asked before these facts can be judged."""
    job = _Job(key, facts)
    is_missing = any(not job.knows(claim, queue) for claim in job.claims) or any(job.mourned())
    return (job.id,) if is_missing else ()


def judge_job(key: str, facts: Sequence[Fact], states: States, scope: Scope) -> Iterator[Finding]:
    """`states`: what the queue said of jobs that were asked for, with the time they were added."""
    job = _Job(key, facts)
    state = states.get(job.id)
    for claim in job.claims:
        known = state is not None and claim.timestamp in (None, state[1])
        if not known and not job.knows(claim, scope.queue):
            yield Finding("lost-job", job.id, f"job {job.id} is neither in queue {scope.queue} nor in the ledger", key)
    yield from _doubles(job, scope)
    if state is None or state[0] not in UNFINISHED:
        for row in job.mourned():
            yield Finding("no-letter", job.id, f"job {job.id} failed ({row.error_message}), its payload is gone", key)


def _doubles(job: _Job, scope: Scope) -> Iterator[Finding]:
    """An id comes back only after the job of that id is gone: what was created since it was added is its own."""
    held = job.held
    if held is None or not held.is_single:
        return
    for row in job.rows:
        is_later = row.job_id == job.id and row.created_at * 1000 >= held.timestamp
        if row.status == "completed" and row.id != held.operation and is_later:
            said = f"job {job.id} has the committed operation {row.id} beside its own, {held.operation}"
            yield Finding("double-operation", job.id, said, job.key)
