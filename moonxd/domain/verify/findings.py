"""The kinds of fault, each with its sentence, and the account of what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """`is_fault` False: worth knowing, nothing is wrong for sure."""

    title: str
    #: What to do about it.
    advice: str
    is_fault: bool = True


KINDS: dict[str, Kind] = {
    "lost-job": Kind(
        title="jobs that were announced or claimed and are nowhere",
        advice="neither queue nor ledger knows them: add them again, and look for whoever removes jobs in Redis",
    ),
    "no-operation": Kind(
        title="completed jobs without a committed operation",
        advice="the queue says done, the ledger does not: sync these wallets again (moonxd enqueue) and keep the logs",
    ),
    "double-operation": Kind(
        title="jobs with more than one committed operation",
        advice="a job was done twice under two ids: does another program write sync_operations?",
    ),
    "wrong-identity": Kind(
        title="events or operations under an id that is not theirs",
        advice="ids derive from queue, job and its time: somebody else wrote these rows, readers cannot tell doubles",
    ),
    "no-event": Kind(
        title="ended operations whose event was never written",
        advice="readers do not know of these changes: sync the wallets again, and look for writes past moonxd",
    ),
    "event-without-operation": Kind(
        title="events that tell of a commit which is not in the ledger",
        advice="readers were told of changes that do not exist: was the database restored from an older backup?",
    ),
    "double-event": Kind(
        title="changes that were told under more than one event id",
        advice="readers that count by event id count these twice: tell them the ids below",
    ),
    "stuck-running": Kind(
        title="operations left running that nobody works on",
        advice="the janitor of a running daemon closes them; does one run, and is worker.janitor_interval_s sane?",
    ),
    "stuck-pending": Kind(
        title="operations left pending without a job to finish them",
        advice="their jobs were removed while they waited: enqueue the wallets again if they are still wanted",
    ),
    "gap": Kind(
        title="gaps between the positions of the outbox",
        advice="committed events were deleted before their time: who writes moonxd_outbox?",
    ),
    "wrong-order": Kind(
        title="events out of order",
        advice="a reader that applies them as they come ends with an older state: let it compare metadata.sequence",
    ),
    "table-differs": Kind(
        title="operations that their own events tell differently",
        advice="sync_operations was written past moonxd, or an event was: compare the columns named",
    ),
    "not-in-topic": Kind(
        title="events marked as published that are not on their topic",
        advice="send them again: moonxd events replay --from ... --to ...",
    ),
    "unknown-record": Kind(
        title="records on a topic that no committed event stands behind",
        advice="another ledger publishes to the same topic, or the database was restored from an older backup",
    ),
    "changed-record": Kind(
        title="records that differ from the event of their id",
        advice="an event never changes once it is told: somebody else writes to this topic",
    ),
    "no-letter": Kind(
        title="failed jobs whose dead letter is gone",
        advice="purged by hand (moonxd dlq purge) they look like this, too; otherwise enqueue the wallets again",
        is_fault=False,
    ),
    "repeated-record": Kind(
        title="records that are on their topic more than once, unchanged",
        advice="resent after a broker or a relay died, or replayed: readers take each event id once",
        is_fault=False,
    ),
    "unpublished": Kind(
        title="events that wait to be published",
        advice="moonxd status says what the relay is doing",
        is_fault=False,
    ),
}


class Finding(msgspec.Struct, frozen=True, order=True):
    """One thing that is not as it should be. `subject` is what it is about, `said` what and where."""

    kind: str
    subject: str
    said: str
    #: The key whose facts showed it.
    key: str = ""


class Found(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """All findings of one kind; `examples` are all of them unless `count` is larger."""

    kind: str
    is_fault: bool
    count: int
    title: str
    advice: str
    examples: tuple[Finding, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What was looked at, and what was found."""

    ok: bool
    #: Where: queue, ledger, topics.
    places: dict[str, str]
    #: How many of each were read.
    read: dict[str, int]
    looks: int
    found: tuple[Found, ...]


class Tally:
    """Findings by kind, of which at most `most` are kept each."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.counts: Counter[str] = Counter()
        self._kept: dict[str, list[Finding]] = {}

    def add(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.counts[finding.kind] += 1
            kept = self._kept.setdefault(finding.kind, [])
            if len(kept) < self._most:
                kept.append(finding)

    @property
    def faults(self) -> int:
        return sum(count for kind, count in self.counts.items() if KINDS[kind].is_fault)

    def kept(self) -> list[Finding]:
        return [finding for kept in self._kept.values() for finding in kept]

    def found(self) -> tuple[Found, ...]:
        """In the order of KINDS, faults first."""
        return tuple(
            Found(
                kind=name,
                is_fault=kind.is_fault,
                count=self.counts[name],
                title=kind.title,
                advice=kind.advice,
                examples=tuple(sorted(self._kept[name])),
            )
            for name, kind in KINDS.items()
            if self.counts[name]
        )
