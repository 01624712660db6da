"""Everything about one operation: its row, its job, its events and their records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from uuid import UUID

import msgspec

from ..job import JobState
from ..operation import event_id, operation_id
from .facts import ENDED, UNFINISHED, Fact, Held, Letter, Record, Row, Told, whole_job
from .findings import Finding
from .outbox import MARGIN_S, Standing
from .story import breach, differences

#: Which events say that an operation ended so.
_ENDINGS = {
    "completed": ("sync.completed",),
    "failed": ("sync.failed",),
    "cancelled": ("sync.cancelled", "sync.rejected"),
}
#: Told at most once per operation, under the id that derives from it.
_ONCE = ("sync.queued", "sync.completed", "portfolio.updated")
States = Mapping[str, tuple[JobState, int] | None]


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at, and from where on it is all there. Times are unix seconds; None: from the beginning."""

    queue: str
    now: float
    outbox: Standing
    #: Only what happened since then.
    since: float | None = None
    #: Ended operations older than this may have been removed.
    rows_since: float | None = None
    #: None: the topics are not looked at. A topic that is not in it has no records.
    topics: Mapping[str, float | None] | None = None
    #: Whether a daemon works meanwhile, and after how long without a word it gives an operation up.
    is_live: bool = False
    grace_s: float = 0.0


class _Queued(msgspec.Struct, rename="camel"):
    queue: str
    job_id: str
    queued_at: int


class _Body(msgspec.Struct, rename="camel"):
    user_id: str
    wallet_address: str
    data: _Queued


class _Operation:
    def __init__(self, key: str, facts: Sequence[Fact]) -> None:
        self.key = key
        self.row = next((fact for fact in facts if isinstance(fact, Row)), None)
        self.held = next((fact for fact in facts if isinstance(fact, Held)), None)
        self.has_letter = any(isinstance(fact, Letter) for fact in facts)
        self.records = [fact for fact in facts if isinstance(fact, Record)]
        told = [fact for fact in facts if isinstance(fact, Told)]
        self.told = sorted(told, key=lambda one: (one.position is None, one.position or 0))
        self.story = [one for one in self.told if one.body is not None]

    @property
    def id(self) -> UUID:
        return UUID(self.key[1:])

    @property
    def is_whole(self) -> bool:
        return any(one.type == "sync.queued" for one in self.story)

    def named(self, *types: str) -> list[Told]:
        return [one for one in self.told if one.type in types]

    @property
    def queued(self) -> _Body | None:
        for one in self.named("sync.queued"):
            try:
                return msgspec.json.decode(one.body or b"", type=_Body)
            except msgspec.MsgspecError:
                return None
        return None

    def job_in(self, queue: str) -> str | None:
        """The job in the queue that ought to end this operation; None: it is none of this queue's."""
        row, said = self.row, self.queued
        if row is not None:
            return whole_job(row.job_id, row.user_id, row.wallet_address) if row.queue == queue else None
        if said is None or said.data.queue != queue:
            return None
        return whole_job(said.data.job_id, said.user_id, said.wallet_address)

    @property
    def lacks_its_end(self) -> bool:
        """Whether the row says that it ended, and no event does."""
        return self.row is not None and self.row.status in ENDED and not self.named(*_ENDINGS[self.row.status])

    def finding(self, kind: str, said: str) -> Finding:
        return Finding(kind, str(self.id), said, self.key)


def open_jobs(key: str, facts: Sequence[Fact], queue: str) -> tuple[str, ...]:
    """The jobs of which the queue has to be asked before these facts can be judged."""
    one = _Operation(key, facts)
    is_open = one.row.status not in ENDED if one.row is not None else not one.has_letter and one.held is None
    job = one.job_in(queue) if is_open else None
    return () if job is None else (job,)


def judge_operation(key: str, facts: Sequence[Fact], states: States, scope: Scope) -> Iterator[Finding]:
    """`states`: what the queue said of jobs that were asked for."""
    one = _Operation(key, facts)
    yield from _committed(one, scope)
    yield from _identity(one)
    yield from _told(one, scope)
    yield from _standing(one, states, scope)
    yield from _ordered(one)
    if scope.topics is not None:
        yield from _published(one, scope.topics, scope)


def _committed(one: _Operation, scope: Scope) -> Iterator[Finding]:
    """The queue's completed jobs."""
    held, row = one.held, one.row
    if held is None or held.state != JobState.COMPLETED or held.is_merged:
        return
    if (row is None or row.status != "completed") and _is_kept(held.finished_at, scope):
        stands = "has no row" if row is None else f"is {row.status}"
        yield one.finding("no-operation", f"job {held.job_id} is completed, its operation {one.id} {stands}")


def _identity(one: _Operation) -> Iterator[Finding]:
    said = one.queued
    if said is not None:
        job = said.data
        if operation_id(job.queue, job.job_id, job.queued_at) != one.id:
            yield one.finding("wrong-identity", f"operation {one.id} is not that of job {job.job_id}, which it names")
    for kind in _ONCE:
        found = one.named(kind)
        if len(found) > 1:
            ids = ", ".join(str(told.id) for told in found)
            yield one.finding("double-event", f"{kind} of operation {one.id} was told as {ids}")
        elif found and found[0].id != event_id(one.id, kind):
            yield one.finding("wrong-identity", f"{kind} of operation {one.id} has the id {found[0].id}")


def _told(one: _Operation, scope: Scope) -> Iterator[Finding]:
    """The table against the outbox."""
    row = one.row
    if row is not None and row.is_ours and row.status in ENDED and _is_in_outbox(row, scope):
        wanted = " or ".join(_ENDINGS[row.status])
        if one.lacks_its_end:
            yield one.finding("no-event", f"operation {one.id} is {row.status}, the outbox has no {wanted} of it")
    for told in one.named("sync.completed", "portfolio.updated"):
        stands = "has no row" if row is None else f"is {row.status}"
        is_gone = row is None and not _is_kept(told.created_at, scope)
        if (row is None or row.status != "completed") and not is_gone:
            said = f"{told.type} ({told.id}) was told, operation {one.id} {stands}"
            yield one.finding("event-without-operation", said)


def _standing(one: _Operation, states: States, scope: Scope) -> Iterator[Finding]:
    """What has not ended needs somebody who ends it."""
    row, job = one.row, one.job_in(scope.queue)
    if job is None:
        return
    state = states.get(job)
    is_coming = state is not None and state[0] in UNFINISHED
    where = f"job {job} is {'gone' if state is None else state[0]}"
    if row is None:
        if state is None and not one.has_letter and one.held is None and _is_announced(one, scope):
            yield one.finding("lost-job", f"operation {one.id} was announced, has no row, and its {where}")
    elif row.status == "pending" and not is_coming:
        yield one.finding("stuck-pending", f"operation {one.id} waits, its {where}")
    elif row.status == "running" and (row.lease_until is None or row.lease_until <= scope.now):
        is_overdue = max(row.lease_until or 0.0, row.updated_at) < scope.now - scope.grace_s
        # While a daemon works it has its time to see to it; without one, a job in the queue is what brings it back.
        if is_overdue if scope.is_live else not is_coming:
            yield one.finding("stuck-running", f"operation {one.id} is running without a lease, its {where}")


def _is_announced(one: _Operation, scope: Scope) -> bool:
    """Whether nothing but its announcement is known, which is recent enough for its row to be there."""
    (told, *more) = one.story
    return not more and _is_kept(told.created_at, scope)


def _ordered(one: _Operation) -> Iterator[Finding]:
    said = breach(one.story)
    if said is not None:
        yield one.finding("wrong-order", f"operation {one.id}: {said}")
    elif one.is_whole and one.row is not None and one.row.is_ours and not one.lacks_its_end:
        columns = differences(one.id, one.row, [told.body or b"" for told in one.story])
        if columns:
            yield one.finding("table-differs", f"operation {one.id}: {columns}")


def _published(one: _Operation, topics: Mapping[str, float | None], scope: Scope) -> Iterator[Finding]:
    """The outbox against the topics."""
    events: dict[UUID, Told] = {told.id: told for told in one.told}
    there: dict[UUID, Record] = {}
    for record in sorted(one.records, key=lambda found: (found.topic, found.partition, found.offset)):
        first = there.setdefault(record.id, record)
        where = f"{record.topic}/{record.partition} at offset {record.offset}"
        if first is not record:
            yield from _again(one, first, record, where)
        elif (event := events.get(record.id)) is None:
            if record.sequence >= scope.outbox.first_position and scope.since is None:
                yield one.finding("unknown-record", f"{record.type} ({record.id}), {where}")
        elif event.digest != record.digest or event.position not in (None, record.sequence):
            yield one.finding("changed-record", f"{record.type} ({record.id}), {where}, differs from the outbox")
    floor = max((at for at in topics.values() if at is not None), default=None)
    for told in one.told:
        is_old = floor is not None and told.created_at < floor + MARGIN_S
        if told.is_published and not told.is_parked and not is_old and told.id not in there:
            yield one.finding("not-in-topic", f"{told.type} ({told.id}) at position {told.position}")


def _again(one: _Operation, first: Record, record: Record, where: str) -> Iterator[Finding]:
    if (first.digest, first.sequence) != (record.digest, record.sequence):
        said = f"{record.type} ({record.id}), {where}, differs from what stands at offset {first.offset}"
        yield one.finding("changed-record", said)
    else:
        yield one.finding("repeated-record", f"{record.type} ({record.id}), {where} and at offset {first.offset}")


def _is_kept(at: float, scope: Scope) -> bool:
    """Whether a row of that time must still be there, and is asked for."""
    return (scope.rows_since is None or at > scope.rows_since + MARGIN_S) and (scope.since is None or at > scope.since)


def _is_in_outbox(row: Row, scope: Scope) -> bool:
    at = row.completed_at if row.completed_at is not None else row.updated_at
    floors = [floor for floor in (scope.outbox.complete_since, scope.since) if floor is not None]
    return all(at > floor for floor in floors)
