"""What the stores say, cut into small facts, and under which keys they meet.

Facts of one key are judged together: all about an operation ("o"), about a job's id ("j"), about a wallet's order in
one topic ("w"). Nothing else is ever in memory at the same time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from hashlib import blake2b
from uuid import UUID

import msgspec

from ..job import Job, JobState, JobView
from ..ledger import DeadLetter, Operation, StoredEvent
from ..message import Received
from ..operation import operation_id

#: States of a job that somebody is still going to run.
UNFINISHED = frozenset(
    {JobState.WAITING, JobState.PRIORITIZED, JobState.ACTIVE, JobState.DELAYED, JobState.WAITING_CHILDREN}
)
ENDED = ("completed", "failed", "cancelled")


class Row(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True, tag_field="fact"):
    """A row of `sync_operations`, under the names of its columns. Times are unix seconds."""

    id: UUID
    user_id: str
    wallet_address: str
    status: str
    type: str
    priority: str
    duration_ms: int | None
    tokens_synced: int
    chains_synced: int
    total_value_usd: Decimal | None
    error_message: str | None
    retry_count: int
    worker_id: str | None
    #: Empty in the rows of other programs.
    queue: str
    job_id: str
    created_at: float
    updated_at: float
    completed_at: float | None
    #: When the lease of the wallet ends, if this operation has it.
    lease_until: float | None

    @property
    def is_ours(self) -> bool:
        return bool(self.queue)


class Told(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True, tag_field="fact"):
    """A row of the outbox."""

    id: UUID
    type: str
    #: None: no reader has given it one yet.
    position: int | None
    created_at: float
    is_published: bool
    is_parked: bool
    digest: bytes
    #: The body, of events that tell an operation's story.
    body: bytes | None


class Record(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True, tag_field="fact"):
    """A message on a topic that was an event of ours."""

    id: UUID
    type: str
    topic: str
    partition: int
    offset: int
    sequence: int
    digest: bytes


class Held(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True, tag_field="fact"):
    """A job that ended, as the queue still holds it. `finished_at`: unix seconds."""

    job_id: str
    operation: UUID
    state: str
    #: It is about one wallet, its operation is its own.
    is_single: bool
    #: It was answered with another sync's result.
    is_merged: bool
    #: When it was added, epoch ms.
    timestamp: int
    finished_at: float


class Letter(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True, tag_field="fact"):
    """The ledger's copy of a dead letter."""

    job_id: str
    timestamp: int


class Claim(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True, tag_field="fact"):
    """A job that its producer says it added. `timestamp`: epoch ms, as the job has it."""

    job_id: str
    timestamp: int | None = None


Fact = Row | Told | Record | Held | Letter | Claim
#: A key and a fact, ready to be put away.
Entry = tuple[str, bytes]

_encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Fact).decode


def operation_key(operation: UUID) -> str:
    return f"o{operation}"


def job_key(job_id: str) -> str:
    return f"j{job_id}"


# ---- from the stores --------------------------------------------------------------------------------------------


def of_row(operation: Operation, created_at: float, updated_at: float, lease_until: float | None) -> Row:
    metadata = operation.metadata
    ended = operation.completed_at
    return Row(
        id=operation.id,
        user_id=operation.user_id,
        wallet_address=operation.wallet,
        status=operation.status,
        type=operation.type,
        priority=operation.priority,
        duration_ms=operation.duration_ms,
        tokens_synced=operation.tokens_synced,
        chains_synced=operation.chains_synced,
        total_value_usd=operation.total_value_usd,
        error_message=operation.error,
        retry_count=operation.retry_count,
        worker_id=operation.worker_id,
        queue=str(metadata.get("queue") or "") if "fence" in metadata else "",
        job_id=str(metadata.get("jobId") or ""),
        created_at=created_at,
        updated_at=updated_at,
        completed_at=None if ended is None else ended.timestamp(),
        lease_until=lease_until,
    )


def row_entries(row: Row, queue: str) -> Iterator[Entry]:
    """Another queue on the same ledger has job ids of its own."""
    fact = _encode(row)
    yield operation_key(row.id), fact
    if row.queue == queue:
        yield job_key(whole_job(row.job_id, row.user_id, row.wallet_address)), fact


def whole_job(job_id: str, user_id: str, wallet: str) -> str:
    """The job in the queue behind an operation's job id: a member of a job about many wallets has none of its own."""
    return job_id.removesuffix(f"/{user_id}/{wallet}")


def event_entries(stored: StoredEvent) -> Iterator[Entry]:
    event = stored.event
    told = Told(
        id=event.id,
        type=event.type,
        position=stored.position or None,
        created_at=stored.created_at.timestamp(),
        is_published=stored.published_at is not None,
        is_parked=stored.parked is not None,
        digest=digest(event.body),
        body=event.body if event.type.startswith("sync.") else None,
    )
    yield operation_key(correlation(event.body) or event.id), _encode(told)


def record_entries(received: Received) -> Iterator[Entry]:
    """Nothing for what is no event of ours, or only a copy for browsers."""
    headers = dict(received.headers)
    numbers = _NUMBERS.search(received.value or b"")
    if received.value is None or numbers is None or not headers.get("correlation-id"):
        return
    try:
        identity, operation = UUID(headers["event-id"]), UUID(headers["correlation-id"])
        wallet = msgspec.json.decode(received.value, type=_Wallet).wallet_address
    except (KeyError, ValueError, msgspec.MsgspecError):
        return
    record = Record(
        id=identity,
        type=headers.get("event-type", ""),
        topic=received.topic,
        partition=received.partition,
        offset=received.offset,
        sequence=int(numbers[1]),
        digest=digest(_NUMBERS.sub(b"", received.value, count=1)),
    )
    fact = _encode(record)
    yield operation_key(operation), fact
    yield f"w{received.topic}\0{received.key}\0{wallet}", fact


def held_entries(view: JobView, *, is_single: bool) -> Iterator[Entry]:
    job = view.job
    result = view.return_value if isinstance(view.return_value, dict) else {}
    held = Held(
        job_id=job.id,
        operation=_operation(job),
        state=str(view.state),
        is_single=is_single,
        is_merged=bool(result.get("merged")),
        timestamp=job.timestamp,
        finished_at=(view.finished_on or 0) / 1000,
    )
    fact = _encode(held)
    yield job_key(job.id), fact
    if is_single:
        yield operation_key(held.operation), fact


def letter_entries(letter: DeadLetter) -> Iterator[Entry]:
    fact = _encode(Letter(job_id=letter.job_id, timestamp=letter.timestamp))
    yield job_key(letter.job_id), fact
    yield operation_key(operation_id(letter.queue, letter.job_id, letter.timestamp)), fact


def claim_entries(claims: Iterable[Claim]) -> Iterator[Entry]:
    for claim in claims:
        yield job_key(claim.job_id), _encode(claim)


def parse_claim(line: str) -> Claim | None:
    """An id, or {"id": ..., "timestamp": ...} (also jobId); None for an empty line. Raises ValueError."""
    line = line.strip()
    if not line:
        return None
    if not line.startswith(("{", '"')):
        return Claim(job_id=line)
    try:
        given = msgspec.json.decode(line, type=str | _Claimed)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{line[:80]!r} is neither an id nor an object with id and timestamp: {error}") from None
    if isinstance(given, str):
        return Claim(job_id=given)
    job_id = given.id if given.id is not None else given.job_id
    if job_id is None:
        raise ValueError(f"{line[:80]!r} has no id")
    return Claim(job_id=str(job_id), timestamp=given.timestamp)


class _Claimed(msgspec.Struct):
    id: str | int | None = None
    job_id: str | int | None = msgspec.field(default=None, name="jobId")
    timestamp: int | None = None


class _Metadata(msgspec.Struct, rename="camel"):
    correlation_id: UUID | None = None


class _Envelope(msgspec.Struct):
    metadata: _Metadata


class _Wallet(msgspec.Struct, rename="camel"):
    wallet_address: str = ""


#: What the relay adds to a body (domain/message.py). After a topic has grown a resend names another partition.
_NUMBERS = re.compile(rb'"sequence":(\d+),"partition":(?:\d+|null),?')


def sequence_of(received: Received) -> int | None:
    numbers = _NUMBERS.search(received.value or b"")
    return None if numbers is None else int(numbers[1])


def correlation(body: bytes) -> UUID | None:
    try:
        return msgspec.json.decode(body, type=_Envelope).metadata.correlation_id
    except msgspec.MsgspecError:
        return None


def digest(body: bytes) -> bytes:
    return blake2b(body, digest_size=12).digest()


def _operation(job: Job) -> UUID:
    return operation_id(job.queue, job.id, job.timestamp)
