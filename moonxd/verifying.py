"""Reads queue, ledger, outbox and topics to their ends, and has what they say of one thing judged together.

Nothing holds still meanwhile, so what looks wrong is looked at again: only what is wrong the same way each time counts.
A look keeps one share of the facts in memory, the rest lies on the disk.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from itertools import islice
from uuid import UUID

import trio

from .domain.errors import Permanent
from .domain.job import JobState, JobView
from .domain.ledger import Page, Retention, StoredEvent
from .domain.message import Received
from .domain.verify import (
    Claim,
    Finding,
    Record,
    Report,
    Scope,
    Standing,
    Tally,
    Watch,
    facts,
    judge_job,
    judge_operation,
    judge_wallet,
    open_jobs,
    unknown_jobs,
)
from .domain.verify.facts import Entry, Fact
from .jobs import JOBS, JobType
from .ports import QueueAdmin, Records, Scratch, Topic

#: Rows, events and jobs read at a time.
PAGE = 1000
#: Jobs that are asked for one by one at the same time.
AT_ONCE = 16
#: Findings kept per kind; beyond that they are only counted.
MOST = 10_000
#: Rows that were created so much before `since` are read as well: their events may be younger.
SLACK_S = 3600.0
#: Not worth a second look.
_STEADY = frozenset({"repeated-record", "unpublished"})

OpenTopic = Callable[[str, float | None], AbstractAsyncContextManager[Topic]]
States = dict[str, tuple[JobState, int] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """What is compared. `open_topic` None: topics are not."""

    queue: QueueAdmin
    records: Records
    scratch: Scratch
    topics: tuple[str, ...] = ()
    open_topic: OpenTopic | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How it is compared. `places` is told in the report; `claims` are the producers' own lists, read at each look."""

    queue: str
    keep: Retention
    places: Mapping[str, str]
    claims: Callable[[], Iterable[Claim]] | None = None
    since: float | None = None
    #: Whether somebody works on the queue, and after how many seconds without a word it gives an operation up.
    is_live: bool = False
    grace_s: float = 0.0
    looks: int = 3
    pause_s: float = 2.0
    now: Callable[[], float] = field(default=time.time)


async def verify(stores: Stores, plan: Plan) -> Report:
    """Compare everything. Raises Transient while a store is away."""
    first = _Look(stores, plan, None)
    await first.run()
    tally, looks = first.tally, 1
    while looks < plan.looks and (suspects := _suspects(tally)):
        await trio.sleep(plan.pause_s)
        again = _Look(stores, plan, frozenset(finding.key for finding in suspects))
        await again.run()
        tally = _confirmed(tally, again.tally)
        looks += 1
    return _report(plan, tally, first.read, looks)


def _suspects(tally: Tally) -> list[Finding]:
    return [finding for finding in tally.kept() if finding.kind not in _STEADY]


def _confirmed(before: Tally, after: Tally) -> Tally:
    """What was found both times; what only the first look saw whole is taken from it."""
    known = {(finding.kind, finding.subject) for finding in before.kept()}
    both = Tally(MOST)
    both.add(one for one in before.kept() if one.kind in _STEADY)
    both.add(one for one in after.kept() if one.kind not in _STEADY and (one.kind, one.subject) in known)
    for kind, count in before.counts.items():
        # Too many to be looked at one by one.
        if count > MOST and both.counts[kind]:
            both.counts[kind] = count
    return both


def _report(plan: Plan, tally: Tally, read: Counter[str], looks: int) -> Report:
    return Report(ok=not tally.faults, places=dict(plan.places), read=dict(read), looks=looks, found=tally.found())


class _Look:
    """One reading of everything; of keys in `only`, when there are any."""

    def __init__(self, stores: Stores, plan: Plan, only: frozenset[str] | None) -> None:
        self._stores = stores
        self._plan = plan
        self._only = only
        self._now = plan.now()
        self._standing = Standing()
        #: Topic -> from when on it is complete, None: from its beginning.
        self._floors: dict[str, float | None] = {}
        #: The oldest sequence of partitions that lost their beginning.
        self._begins: dict[tuple[str, int], int] = {}
        self.tally = Tally(MOST)
        self.read: Counter[str] = Counter()

    async def run(self) -> None:
        await self._stores.scratch.clear()
        # A job completes after its operation, a record follows its event: read in this order least is in between.
        await self._jobs()
        await self._rows()
        await self._outbox()
        if self._stores.open_topic is not None:
            for topic in self._stores.topics:
                await self._topic(topic, self._stores.open_topic)
        await self._claims()
        for number in range(self._stores.scratch.shares):
            await self._judge(await self._stores.scratch.share(number))

    async def _put(self, entries: Iterable[Entry]) -> None:
        only = self._only
        wanted = [entry for entry in entries if only is None or entry[0] in only]
        if wanted:
            await self._stores.scratch.put(wanted)

    # ---- reading -------------------------------------------------------------------------------------------------

    async def _jobs(self) -> None:
        since_ms = (self._plan.since or 0.0) * 1000
        for state in (JobState.COMPLETED, JobState.FAILED):
            start = 0
            # Newest first: whatever ends meanwhile pushes the others back, so none is stepped over.
            while page := await self._stores.queue.list(state, start=start, limit=PAGE):
                start += len(page)
                recent = [view for view in page if (view.finished_on or 0) >= since_ms]
                self.read[f"{state} jobs"] += len(recent)
                await self._put(entry for view in recent for entry in _held(view))
                if len(recent) < len(page):
                    break

    async def _rows(self) -> None:
        after: UUID | None = None
        # A claimed job may be older than what is asked for.
        is_all = self._plan.since is None or self._plan.claims is not None
        since = None if is_all else (self._plan.since or 0.0) - SLACK_S
        while page := await self._stores.records.rows(after, PAGE, since=since):
            after = page[-1].id
            self.read["operations"] += len(page)
            await self._put(entry for row in page for entry in facts.row_entries(row, self._plan.queue))
        last: Page | None = None
        while letters := await self._stores.records.letters(self._plan.queue, limit=PAGE, after=last):
            last = Page(letters[-1].failed_at, letters[-1].job_id)
            self.read["dead letters"] += len(letters)
            await self._put(entry for letter in letters for entry in facts.letter_entries(letter))

    async def _outbox(self) -> None:
        watch = Watch(self._plan.keep, self._now, await self._stores.records.newest())
        async for page in self._events():
            self.tally.add(watch.feed(page))
            since = self._plan.since or 0.0
            recent = [stored for stored in page if stored.created_at.timestamp() >= since]
            self.read["events"] += len(recent)
            await self._put(entry for stored in recent for entry in facts.event_entries(stored))
        self._standing = watch.standing()
        if self._standing.unpublished and self._stores.open_topic is not None:
            count = self._standing.unpublished
            self.tally.add([Finding("unpublished", str(count), f"{count} events are committed and not published")])

    async def _events(self) -> AsyncIterator[Sequence[StoredEvent]]:
        after = 0
        while page := await self._stores.records.placed(after, PAGE):
            after = page[-1].position
            yield page
        # Those that come by here while they get their position were read as such, or are looked for again.
        yield await self._stores.records.unplaced(100 * PAGE)

    async def _topic(self, name: str, open_topic: OpenTopic) -> None:
        self._floors[name] = self._plan.since
        firsts: dict[int, Received] = {}
        try:
            async with open_topic(name, self._plan.since) as topic:
                while page := await topic.page():
                    for one in page:
                        firsts.setdefault(one.partition, one)
                    self.read["records"] += len(page)
                    await self._put(entry for one in page for entry in facts.record_entries(one))
        except Permanent:
            # There is no such topic: nothing was ever sent there, or everything is lost.
            return
        cut = [one for one in firsts.values() if one.offset > 0]
        if cut:
            self._floors[name] = max(one.timestamp for one in cut)
        self._begins |= {(name, one.partition): facts.sequence_of(one) or 0 for one in cut}

    async def _claims(self) -> None:
        claims = iter(self._plan.claims() if self._plan.claims is not None else ())
        while page := list(islice(claims, PAGE)):
            self.read["claimed jobs"] += len(page)
            await self._put(facts.claim_entries(page))

    # ---- judging -------------------------------------------------------------------------------------------------

    async def _judge(self, share: Mapping[str, list[bytes]]) -> None:
        groups = {key: [facts.decode(body) for body in bodies] for key, bodies in share.items()}
        states = await self._states(groups)
        scope = self._scope()
        for key, found in groups.items():
            if key[0] == "o":
                self.tally.add(judge_operation(key, found, states, scope))
            elif key[0] == "j":
                self.tally.add(judge_job(key, found, states, scope))
            else:
                self.tally.add(judge_wallet(key, [one for one in found if isinstance(one, Record)], self._begins))

    async def _states(self, groups: Mapping[str, Sequence[Fact]]) -> States:
        """What the queue says now of jobs that the facts alone do not settle."""
        asked: dict[str, None] = {}
        for key, found in groups.items():
            if key[0] == "o":
                asked.update(dict.fromkeys(open_jobs(key, found, self._plan.queue)))
            elif key[0] == "j":
                asked.update(dict.fromkeys(unknown_jobs(key, found, self._plan.queue)))
        states: States = {}
        waiting = iter(asked)

        async def ask() -> None:
            for job_id in waiting:
                view = await self._stores.queue.get(job_id)
                states[job_id] = None if view is None else (view.state, view.job.timestamp)

        async with trio.open_nursery() as nursery:
            for _ in range(min(AT_ONCE, len(asked))):
                nursery.start_soon(ask)
        return states

    def _scope(self) -> Scope:
        plan = self._plan
        kept_s = plan.keep.operations_s
        return Scope(
            queue=plan.queue,
            now=self._now,
            outbox=self._standing,
            since=plan.since,
            rows_since=None if kept_s is None else self._now - kept_s,
            topics=None if self._stores.open_topic is None else self._floors,
            is_live=plan.is_live,
            grace_s=plan.grace_s,
        )


def _held(view: JobView) -> Iterable[Entry]:
    return facts.held_entries(view, is_single=isinstance(JOBS.get(view.job.name), JobType))
