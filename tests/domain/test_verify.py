"""The pure part of `moonxd verify`: every story that can happen is fine, what cannot is named."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonxd.domain import event
from moonxd.domain.job import Job, JobOptions, JobState, JobView
from moonxd.domain.ledger import Event, Retention, StoredEvent
from moonxd.domain.message import Received, message_of
from moonxd.domain.operation import operation_id
from moonxd.domain.payload import WalletSync
from moonxd.domain.rebuild import rebuild
from moonxd.domain.verify import (
    KINDS,
    Claim,
    Fact,
    Finding,
    Held,
    Letter,
    Record,
    Row,
    Scope,
    Standing,
    Tally,
    Watch,
    facts,
    judge_job,
    judge_operation,
    judge_wallet,
    open_jobs,
)

NOW = datetime(2026, 1, 31, tzinfo=UTC)
JOB = Job(queue="q", id="j", name="portfolio-sync", data=b"{}", options=JobOptions(), timestamp=1000)
TASK = WalletSync(user_id="u", wallet="0x" + "ab" * 20)
OPERATION = operation_id(JOB.queue, JOB.id, JOB.timestamp)
KEY = facts.operation_key(OPERATION)


class Life:
    """Writes the events of one operation as the worker does."""

    def __init__(self) -> None:
        self.at = 1000
        self.fence = 0
        self.attempt = 1
        self.events: list[Event] = [event.queued(JOB, TASK, "1")]

    def _about(self) -> event.Subject:
        self.at += 10
        return event.Subject(operation=OPERATION, user_id="u", wallet=TASK.wallet, version="1", at_ms=self.at)

    def start(self) -> None:
        self.fence += 1
        job = Job(
            queue="q", id="j", name="portfolio-sync", data=b"{}", options=JobOptions(), timestamp=1000,
            attempts_made=self.attempt - 1, attempts_started=self.fence,
        )  # fmt: skip
        self.events.append(event.started(self._about(), TASK, job=job, attempts=9, chains=(1,), worker_id="w"))

    def live(self, how: str) -> None:
        """`how`: retry | hand back | crash | fail | cancel, then alive again | complete."""
        self.start()
        about = self._about()
        match how:
            case "retry":
                self.events.append(
                    event.retrying(about, fence=self.fence, attempt=self.attempt, error="x", duration_ms=1, delay_ms=1)
                )
                self.attempt += 1
            case "hand back":
                self.events.append(event.handed_back(about, fence=self.fence, attempt=self.attempt, duration_ms=1))
            case "fail":
                failed = event.failed(about, fence=self.fence, attempt=self.attempt, error="e://x", duration_ms=1)
                self.events.append(failed)
                self.attempt = 1
            case "cancel":
                self.events.append(event.cancelled(about, reason="r", worker_id="w", fence=self.fence, duration_ms=1))
                self.attempt = 1
            case "complete":
                result = {"processingTime": 1, "tokensSync": 2, "chainsSync": 1, "success": True}
                self.events.append(
                    event.completed(about, result=result, total_value_usd=Decimal("1.5"), tokens_total=2)
                )

    def stored(self) -> list[StoredEvent]:
        return [
            StoredEvent(position=number, event=one, created_at=NOW, published_at=NOW)
            for number, one in enumerate(self.events, 1)
        ]


def life(steps: list[str]) -> Life:
    found = Life()
    for step in steps:
        found.live(step)
    return found


def row_of(events: list[Event], **changes: Any) -> Row:
    (told,) = rebuild([one.body for one in events]).values()
    values = {name: getattr(told, name) for name in Row.__struct_fields__ if hasattr(told, name)}
    values |= {
        "queue": "q", "job_id": "j", "created_at": 1.0, "updated_at": 2.0, "lease_until": None,
        "completed_at": None if told.completed_at is None else told.completed_at / 1000,
    }  # fmt: skip
    return Row(**{**values, **changes})


def told_of(stored: list[StoredEvent]) -> list[Fact]:
    return [facts.decode(body) for one in stored for _, body in facts.event_entries(one)]


def records_of(stored: list[StoredEvent]) -> list[Fact]:
    found: list[Fact] = []
    for offset, one in enumerate(stored):
        sent = message_of(one, "t", 0)
        received = Received(
            topic="t", partition=0, offset=offset, timestamp=1.0, key=sent.key, value=sent.value, headers=sent.headers
        )
        found += [facts.decode(body) for key, body in facts.record_entries(received) if key == KEY]
    return found


def judged(given: list[Fact], state: JobState | None = None, **changes: Any) -> set[str]:
    values: dict[str, Any] = {"queue": "q", "now": 3.0, "outbox": Standing(), "topics": {"t": None}, **changes}
    states = dict.fromkeys(open_jobs(KEY, given, "q"), None if state is None else (state, JOB.timestamp))
    return {finding.kind for finding in judge_operation(KEY, given, states, Scope(**values))}


STEPS = st.lists(st.sampled_from(["retry", "hand back", "crash", "fail", "cancel"]), max_size=8)
LIVES = st.builds(lambda steps, last: life([*steps, last]), STEPS, st.sampled_from(["complete", "fail", "cancel"]))


@given(LIVES, st.data())
def test_whatever_can_happen_is_fine(lived: Life, data: st.DataObject) -> None:
    stored = lived.stored()
    again = data.draw(st.lists(st.sampled_from(stored), max_size=3))
    given = [row_of(lived.events), *told_of(stored), *records_of([*stored, *again])]
    found = judged(data.draw(st.permutations(given)))
    assert found <= {"repeated-record"}
    assert ("repeated-record" in found) == bool(again)


@given(STEPS)
def test_an_operation_under_way_is_fine_while_its_job_is_in_the_queue(steps: list[str]) -> None:
    lived = life(steps)
    lived.start()
    given: list[Fact] = [row_of(lived.events), *told_of(lived.stored()), *records_of(lived.stored())]
    assert judged(given, JobState.ACTIVE) == set()
    assert judged(given, None) == {"stuck-running"}
    # The worker's lease lasts, or the janitor has its time.
    leased: list[Fact] = [row_of(lived.events, lease_until=4.0), *given[1:]]
    assert judged(leased, None) == set()
    assert judged(given, None, is_live=True, grace_s=5.0) == set()
    assert judged(given, JobState.ACTIVE, is_live=True, grace_s=0.5) == {"stuck-running"}


@given(LIVES, st.data())
def test_what_is_missing_or_changed_is_named(lived: Life, data: st.DataObject) -> None:
    stored = lived.stored()
    row, told, records = row_of(lived.events), told_of(stored), records_of(stored)
    if row.status == "completed":
        assert "no-event" in judged([row, *told[:-1], *records[:-1]])
    assert "table-differs" in judged([row_of(lived.events, tokens_synced=77), *told, *records])
    assert "wrong-order" in judged([row, *_swapped(stored, 0, data.draw(st.integers(1, len(stored) - 1)))])
    gone = data.draw(st.integers(0, len(stored) - 1))
    assert "not-in-topic" in judged([row, *told, *records[:gone], *records[gone + 1 :]])
    assert "unknown-record" in judged([row, *told[:gone], *told[gone + 1 :], *records])
    if row.status == "completed":
        assert judged([*told, *records]) == {"event-without-operation"}


def _swapped(stored: list[StoredEvent], one: int, other: int) -> list[Fact]:
    places = list(range(len(stored)))
    places[one], places[other] = places[other], places[one]
    events = [stored[place].event for place in places]
    return told_of([StoredEvent(position=n, event=e, created_at=NOW) for n, e in enumerate(events, 1)])


def test_an_announcement_alone_needs_its_job() -> None:
    lived = Life()
    told = told_of(lived.stored())
    letter: list[Fact] = [Letter(job_id="j", timestamp=1000)]
    assert judged(told, JobState.DELAYED, topics=None) == set()
    assert judged(told, None, topics=None) == {"lost-job"}
    assert judged([*told, *letter], None, topics=None) == set()
    # Its row was removed for its age.
    assert judged(told, None, topics=None, rows_since=NOW.timestamp()) == set()


@pytest.mark.parametrize(("state", "merged", "expected"), [
    ("completed", False, {"no-operation"}), ("completed", True, set()), ("failed", False, set()),
])  # fmt: skip
def test_a_completed_job_needs_its_operation(state: str, merged: bool, expected: set[str]) -> None:
    lived = life(["cancel"])
    held = Held(
        job_id="j", operation=OPERATION, state=state, is_single=True, is_merged=merged, timestamp=1000, finished_at=2.0
    )
    assert judged([held, row_of(lived.events), *told_of(lived.stored())], topics=None) == expected


# ---- the outbox ---------------------------------------------------------------------------------------------------


def outbox(positions: list[int], age_s: float = 0.0) -> list[StoredEvent]:
    (one,) = Life().events
    return [StoredEvent(position=at, event=one, created_at=NOW - timedelta(seconds=age_s)) for at in positions]


@given(st.sets(st.integers(1, 40), min_size=1), st.integers(1, 7))
def test_gaps_are_what_is_missing(positions: set[int], page: int) -> None:
    watch = Watch(Retention(), NOW.timestamp(), 40)
    rows = outbox(sorted(positions))
    found = [gap for at in range(0, len(rows), page) for gap in watch.feed(rows[at : at + page])]
    missing = {place for gap in found for place in _places(gap)}
    assert missing == set(range(1, max(positions))) - positions


def _places(gap: Finding) -> Iterator[int]:
    first, _, last = gap.subject.partition(" to ")
    yield from range(int(first), int(last or first) + 1)


def test_what_was_removed_for_its_age_leaves_no_gap() -> None:
    keep = Retention(outbox_s=3600.0)
    watch = Watch(keep, NOW.timestamp(), 9)
    # 5 is old and waits for the broker; around it everything was published and removed.
    found = [*watch.feed(outbox([5], age_s=7200)), *watch.feed(outbox([8, 9], age_s=100))]
    assert found == []
    assert watch.standing().first_position == 8
    assert watch.standing().complete_since == pytest.approx(NOW.timestamp() - 100, abs=61)
    recent = Watch(keep, NOW.timestamp(), 9)
    assert [gap.subject for gap in recent.feed(outbox([7, 9], age_s=100))] == ["8"]


# ---- one wallet's order --------------------------------------------------------------------------------------------


def record(sequence: int, offset: int) -> Record:
    return Record(
        id=UUID(int=sequence), type="sync.started", topic="t", partition=0, offset=offset, sequence=sequence, digest=b""
    )


@given(st.lists(st.integers(1, 1000), min_size=2, unique=True), st.data())
def test_new_events_of_a_wallet_grow(sequences: list[int], data: st.DataObject) -> None:
    rising = sorted(sequences)
    repeats = data.draw(st.lists(st.sampled_from(rising), max_size=4))
    assert not list(judge_wallet("w", [record(one, at) for at, one in enumerate([*rising, *repeats])], {}))
    mixed = [record(one, at) for at, one in enumerate(sequences)]
    assert bool(list(judge_wallet("w", data.draw(st.permutations(mixed)), {}))) == (sequences != rising)


def test_what_was_replayed_into_a_shortened_topic_is_in_order() -> None:
    replayed = [record(50, 100), record(51, 101), record(7, 102), record(52, 103)]
    assert [one.subject for one in judge_wallet("w", replayed, {})] == [str(UUID(int=7))]
    assert not list(judge_wallet("w", replayed, {("t", 0): 50}))


# ---- a producer's list ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("line", "claim"), [
    ("sync-1", Claim(job_id="sync-1")), (" 17 \n", Claim(job_id="17")), ('"a b"', Claim(job_id="a b")),
    ('{"id": "x", "timestamp": 5, "more": 1}', Claim(job_id="x", timestamp=5)), ('{"jobId": 3}', Claim(job_id="3")),
    ("", None), ("\n", None),
])  # fmt: skip
def test_a_line_of_a_list(line: str, claim: Claim | None) -> None:
    assert facts.parse_claim(line) == claim


@pytest.mark.parametrize("line", ['{"id": ', "{}", '{"timestamp": 1}', '{"id": "x", "timestamp": "soon"}'])
def test_a_line_that_is_no_claim(line: str) -> None:
    with pytest.raises(ValueError, match="id"):
        facts.parse_claim(line)


def test_a_claim_is_met_by_what_is_known_of_that_very_job() -> None:
    scope = Scope(queue="q", now=3.0, outbox=Standing())
    view = JobView(job=JOB, state=JobState.COMPLETED, finished_on=2000)
    held = [facts.decode(body) for key, body in facts.held_entries(view, is_single=True) if key == "jj"]
    for claim, known in (
        (Claim(job_id="j"), True),
        (Claim(job_id="j", timestamp=1000), True),
        (Claim(job_id="j", timestamp=7), False),
    ):
        found = list(judge_job("jj", [claim, *held], {}, scope))
        assert [one.kind for one in found] == ([] if known else ["lost-job"])
    member = row_of(life(["complete"]).events, job_id=f"j/u/{TASK.wallet}", id=uuid4())
    assert not list(judge_job("jj", [Claim(job_id="j", timestamp=7), member], {}, scope))


def test_a_tally_keeps_so_many_and_counts_all() -> None:
    tally = Tally(2)
    tally.add(Finding("gap", str(number), "", "outbox") for number in range(5))
    tally.add([Finding("unpublished", "3", "")])
    assert tally.faults == 5
    assert [(found.kind, found.count, len(found.examples)) for found in tally.found()] == [
        ("gap", 5, 2),
        ("unpublished", 1, 1),
    ]
    assert all(kind.title and kind.advice for kind in KINDS.values())


def test_another_queue_on_the_same_ledger_is_left_alone() -> None:
    """Its jobs are in a queue that nobody asked for here; its story is judged all the same."""
    lived = life(["retry"])
    given: list[Fact] = [row_of(lived.events, queue="other"), *told_of(lived.stored())]
    assert judged(given, None, topics=None) == set()
    row = row_of(life(["complete"]).events, queue="other")
    assert [key for key, _ in facts.row_entries(row, "q")] == [KEY]
