"""The core service's requests in Redis lists: their names, what they say, and what is answered. Pure.

A message is `{type, data, timestamp, responseQueue, requestId?}`; the names are existing clients'. What may be
wrong with one is a sentence, never an exception of the decoder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from .errors import Permanent
from .job import PRIORITIES, JobOptions, JobState, JobView, NewJob
from .payload import MAX_PAYLOAD_BYTES, SYNC_TYPES, WalletSync, parse_user_id, parse_wallet_sync

#: The lists under each prefix, without "sync:". Any of them may hold any type of request.
LISTS = ("requests", "status", "operations", "cancel")
SYNC, STATUS, OPERATIONS, CANCEL = TYPES = ("sync_request", "sync_status", "sync_operations", "cancel_operation")
#: What the jobs are called: the name that this service's jobs always had.
JOB_NAME = "sync-job"
OPERATION_STATES = ("pending", "running", "completed", "failed", "cancelled")
MAX_OPERATIONS, MAX_DAYS = 500, 365
#: Characters of the name of a reply list, and bytes of a malformed message that are kept.
_MAX_NAME, _MAX_PARKED = 512, 65_536
#: Names under "sync:" that are ours: a reply there would be taken for a request, or for an owner.
_OURS = (*LISTS, "dead", "owners")
_PROCESSING = "processing:"
#: What the queue calls its own keys, beside which each job's id stands.
_QUEUES_OWN = frozenset(
    ("wait", "paused", "active", "meta", "id", "delayed", "prioritized", "waiting-children", "completed", "failed",
     "stalled", "stalled-check", "limiter", "marker", "events", "pc", "repeat", "de", "metrics")
)  # fmt: skip
#: Times before this, in epoch ms, are no times (2001).
_EARLIEST_MS = 978_307_200_000
_DAY_MS = 86_400_000


class Source(msgspec.Struct, frozen=True):
    """One list of requests: `name` is one of LISTS."""

    prefix: str
    name: str

    @property
    def key(self) -> str:
        return f"{self.prefix}sync:{self.name}"


class Taken(msgspec.Struct, frozen=True):
    """A request as it lay in its list; it is its owner's until it is finished."""

    source: Source
    body: bytes


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a request. `kind` and `outcome` are words for metrics and logs."""

    kind: str
    #: queued | answered | refused | malformed | unavailable | broken
    outcome: str
    #: The list that gets `reply`; None: nobody asked for one, or nobody may be given one.
    reply_key: str | None = None
    reply: bytes = b""
    #: An entry for the list of messages that somebody has to look at.
    parked: bytes | None = None


def sources(prefixes: tuple[str, ...]) -> tuple[Source, ...]:
    return tuple(Source(prefix, name) for prefix in prefixes for name in LISTS)


def dead_key(prefix: str) -> str:
    return f"{prefix}sync:dead"


def reply_key(prefix: str, name: str, prefixes: tuple[str, ...], queue_prefix: str) -> str:
    """The list under `prefix` that a client wants its reply in. Raises Permanent for one that is not for replies."""
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable():
        raise Permanent(f"responseQueue must have 1 to {_MAX_NAME} characters, all of them printable: {name[:80]!r}")
    key = prefix + name
    for one in prefixes:
        rest = key.removeprefix(f"{one}sync:")
        if rest != key and (rest in _OURS or rest.startswith(_PROCESSING)):
            raise Permanent(f"responseQueue {name[:80]!r} is a list of this service: name one of your own")
    if key.startswith(f"{queue_prefix}:"):
        raise Permanent(f"responseQueue {name[:80]!r} lies among the queue's own keys: name one of your own")
    return key


# ---- messages --------------------------------------------------------------------------------------------------------


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A message as far as it can be read; `problem` says why it cannot be followed."""

    type: str | None = None
    data: dict[str, Any] = msgspec.field(default_factory=dict)
    response_queue: str | None = None
    request_id: str | None = None
    #: When the client wrote it, epoch ms. As it is part of the message, it is the same on every delivery.
    at: int | None = None
    problem: str | None = None

    @property
    def kind(self) -> str:
        """For metrics: never a client's own word."""
        return self.type if self.type in TYPES else "unknown"


def read_letter(body: bytes) -> Letter:
    """Never raises."""
    if len(body) > MAX_PAYLOAD_BYTES:
        return Letter(problem=f"the message has {len(body)} bytes, at most {MAX_PAYLOAD_BYTES} are accepted")
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Letter(problem=f"the message is not JSON: {str(error)[:200] or type(error).__name__}")
    if not isinstance(fields, dict):
        return Letter(problem="the message must be a JSON object")
    data = fields.get("data")
    letter = Letter(
        type=_text(fields.get("type")),
        data=data if isinstance(data, dict) else {},
        response_queue=_text(fields.get("responseQueue")),
        request_id=_text(fields.get("requestId")),
        at=_epoch_ms(fields.get("timestamp")),
    )
    return msgspec.structs.replace(letter, problem=_problem(letter, fields))


def _problem(letter: Letter, fields: Mapping[str, Any]) -> str | None:
    if letter.type not in TYPES:
        return f"type is {fields.get('type')!r:.80}, it must be one of {', '.join(TYPES)}"
    if not isinstance(fields.get("data"), dict):
        return "data must be a JSON object"
    if fields.get("responseQueue") is not None and letter.response_queue is None:
        return "responseQueue must be text"
    # A sync is wanted whether or not anybody waits for the reply; the others are nothing but their reply.
    if letter.response_queue is None and letter.type not in (SYNC, CANCEL):
        return "there is no responseQueue: nobody would get the reply"
    return None


def _text(given: object) -> str | None:
    return given if isinstance(given, str) and given else None


def _epoch_ms(given: object) -> int | None:
    """None for what is no time."""
    if isinstance(given, str):
        try:
            moment = datetime.fromisoformat(given)
            given = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
        except (ValueError, OverflowError):
            return None
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        return None
    return int(given) if _EARLIEST_MS < given < 10 * _EARLIEST_MS else None


# ---- what each type asks for -----------------------------------------------------------------------------------------


class SyncAsk(msgspec.Struct, frozen=True, kw_only=True):
    """`job_id` is what the client calls it, None when it said nothing."""

    sync: WalletSync
    job_id: str | None
    job: NewJob


class StatusAsk(msgspec.Struct, frozen=True, kw_only=True):
    user_id: str
    wallet: str


class OperationsAsk(msgspec.Struct, frozen=True, kw_only=True):
    user_id: str
    wallet: str | None
    limit: int
    days: int
    status: str | None
    sync_type: str | None


class CancelAsk(msgspec.Struct, frozen=True, kw_only=True):
    user_id: str
    #: A job's id or an operation's.
    about: str


def parse_sync(letter: Letter, taken: Taken, terms: JobOptions, now_ms: int) -> SyncAsk:
    """The job that a request asks for; `terms` are the job type's own. Raises Permanent."""
    payload = dict(letter.data)
    given = _text(payload.get("jobId"))
    payload["requestId"] = letter.request_id or given
    payload["responseQueue"] = letter.response_queue
    sync = parse_wallet_sync(msgspec.json.encode(payload))
    options = msgspec.structs.replace(terms, priority=PRIORITIES[sync.priority])
    job = NewJob(
        name=JOB_NAME,
        data=payload,
        options=options,
        # Every delivery of a message comes to the same id.
        id=queue_id(given, sync.user_id) if given else _hashed(taken.source.prefix.encode() + taken.body),
        # A time that lies ahead would count as asked for after everything.
        timestamp=letter.at if letter.at is not None and letter.at < now_ms + _DAY_MS else now_ms,
    )
    return SyncAsk(sync=sync, job_id=given, job=job)


def queue_id(given: str, user_id: str) -> str:
    """The id in the queue of the job that a client calls `given`: the same, where the queue can take it."""
    is_number = given.lstrip("-").isdecimal()
    if len(given) > 255 or not given.isprintable() or ":" in given or is_number or given in _QUEUES_OWN:
        return _hashed(f"{user_id}\0{given}".encode())
    return given


def _hashed(name: bytes) -> str:
    return f"core-{hashlib.sha256(name).hexdigest()[:32]}"


def parse_status(letter: Letter) -> StatusAsk:
    """Raises Permanent."""
    who = {name: letter.data.get(name) for name in ("userId", "walletAddress")}
    sync = parse_wallet_sync(msgspec.json.encode(who))
    return StatusAsk(user_id=sync.user_id, wallet=sync.wallet)


def parse_operations(letter: Letter) -> OperationsAsk:
    """Raises Permanent. Without a wallet it is about all of the user's."""
    data = letter.data
    filters = data.get("filters")
    if filters is None:
        filters = {}
    if not isinstance(filters, dict):
        raise Permanent("filters must be an object")
    is_one = data.get("walletAddress") is not None
    return OperationsAsk(
        user_id=parse_user_id(data.get("userId")),
        wallet=parse_status(letter).wallet if is_one else None,
        limit=_number(filters, "limit", 50, MAX_OPERATIONS),
        days=_number(filters, "days", 7, MAX_DAYS),
        status=_one_of(filters, "status", OPERATION_STATES),
        sync_type=_one_of(filters, "type", SYNC_TYPES),
    )


def parse_cancel(letter: Letter) -> CancelAsk:
    """Raises Permanent."""
    about = letter.data.get("operationId") or letter.data.get("jobId")
    if not isinstance(about, str) or len(about) > _MAX_NAME or not about.isprintable():
        raise Permanent("operationId must be text: a job's id or an operation's")
    return CancelAsk(user_id=parse_user_id(letter.data.get("userId")), about=about)


def _number(filters: Mapping[str, Any], name: str, default: int, high: int) -> int:
    given = filters.get(name)
    if given is None or given == "":
        return default
    if isinstance(given, str) and given.isdecimal() and len(given) < 10:
        given = int(given)
    if isinstance(given, bool) or not isinstance(given, (int, float)) or given != given or given < 1:
        raise Permanent(f"filters.{name} is {given!r:.80}, it must be a number from 1 to {high}")
    return int(min(given, high))


def _one_of(filters: Mapping[str, Any], name: str, allowed: tuple[str, ...]) -> str | None:
    given = filters.get(name)
    if given is None or given == "":
        return None
    if given not in allowed:
        raise Permanent(f"filters.{name} is {given!r:.80}, it must be one of {', '.join(allowed)}")
    return str(given)


# ---- decisions -------------------------------------------------------------------------------------------------------


def standing(view: JobView, ask: SyncAsk, at: int | None) -> str | None:
    """Why a job that is there under the wanted id does not do what is asked; None: it does, or did."""
    if _about(view.job.data) != (ask.sync.user_id, ask.sync.wallet):
        return f"jobId {view.job.id} belongs to another request: use one of your own"
    is_ended = view.state in (JobState.COMPLETED, JobState.FAILED)
    if is_ended and at is not None and view.job.timestamp != at:
        return f"jobId {view.job.id} has been used before ({view.state.value}): use a new one"
    return None


def _about(data: bytes) -> tuple[str, str] | None:
    try:
        sync = parse_wallet_sync(data)
    except Permanent:
        return None
    return sync.user_id, sync.wallet


def freshness(last_sync_at: datetime | None, now: float) -> str:
    if last_sync_at is None:
        return "never"
    age = now - last_sync_at.timestamp()
    return "current" if age < 300 else "recent" if age < 1800 else "stale"


def operation_word(state: JobState) -> str:
    """A job's state in the words of sync operations."""
    words = {JobState.ACTIVE: "running", JobState.COMPLETED: "completed", JobState.FAILED: "failed"}
    return words.get(state, "pending")


# ---- messages that somebody has to look at ---------------------------------------------------------------------------


class Parked(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An entry of `sync:dead`. `message` is the body as text; with `size` beyond it, only its beginning was kept."""

    list: str
    reason: str
    parked_at: str
    size: int
    message: str


def park(taken: Taken, reason: str, now: float) -> bytes:
    text = taken.body[:_MAX_PARKED].decode("utf-8", "replace")
    entry = Parked(
        list=taken.source.key, reason=reason[:1000], parked_at=instant(now), size=len(taken.body), message=text
    )
    return msgspec.json.encode(entry)


def instant(moment: datetime | float) -> str:
    """As JavaScript writes it."""
    at = moment if isinstance(moment, datetime) else datetime.fromtimestamp(moment, UTC)
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
