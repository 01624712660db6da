"""What is told of statistics when the office changes hands, and when the ledger refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from moonxd.adapters.memory.archive import MemoryArchive
from moonxd.adapters.memory.election import MemoryElection
from moonxd.agents.newsroom import Newsroom
from moonxd.agents.office import Office
from moonxd.domain.errors import MoonxdError, Permanent, Transient
from moonxd.domain.ledger import Event
from moonxd.domain.stats import Health, Round
from moonxd.domain.stats_change import Thresholds
from tests.conformance.archive_data import MINUTE_MS, START_MS, chain


class Outbox:
    """The part of a ledger that takes events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.mood: MoonxdError | None = None

    async def tell(self, events: Sequence[Event]) -> None:
        if self.mood is not None:
            raise self.mood
        self.events += events

    def statuses(self) -> list[str]:
        told = [msgspec.json.decode(one.body)["data"] for one in self.events if one.type.startswith("stats.chain")]
        return [row["status"] for data in told for row in data["chains"]]


class Fixed:
    def now(self) -> float:
        return START_MS / 1000


def newsroom(archive: MemoryArchive, outbox: Any, term: Any = lambda: 1) -> Newsroom:
    return Newsroom(archive, outbox, Fixed(), Thresholds(), version="0", term=term)


def look(minute: int, status: Health) -> Round:
    return Round(chains=(chain(START_MS + minute * MINUTE_MS, status=status),))


async def test_whoever_takes_the_office_again_knows_what_was_told_meanwhile() -> None:
    archive, outbox = MemoryArchive(now=lambda: START_MS / 1000), Outbox()
    terms = 1
    one, other = newsroom(archive, outbox, lambda: terms), newsroom(archive, outbox)
    await one.keep("chains", look(0, Health.HEALTHY))
    await other.keep("chains", look(1, Health.DEGRADED))
    terms += 1
    await one.keep("chains", look(2, Health.HEALTHY))
    assert outbox.statuses() == ["healthy", "degraded", "healthy"]


async def test_each_time_it_is_taken_is_a_term_of_its_own() -> None:
    offices: dict[str, tuple[str, float]] = {}
    one, other = MemoryElection("one", offices), MemoryElection("other", offices)
    office = Office(one, "stats", ttl_s=30)
    assert office.terms == 0
    await office.stand()
    await office.stand()
    assert office.terms == 1
    await one.leave("stats")
    assert await other.hold("stats", 30)
    await office.stand()
    await other.leave("stats")
    await office.stand()
    assert office.terms == 2


@pytest.mark.parametrize("mood", [Transient("away"), Permanent("no such text")])
async def test_a_ledger_that_refuses_news_ends_no_round(mood: MoonxdError) -> None:
    archive, outbox = MemoryArchive(now=lambda: START_MS / 1000), Outbox()
    outbox.mood = mood
    room = newsroom(archive, outbox)
    await room.started("chains")
    await room.keep("chains", look(0, Health.HEALTHY))
    await room.ended("chains", look(0, Health.HEALTHY), None, 1.0)
    assert len(await archive.chains()) == 1
    outbox.mood = None
    await room.keep("chains", look(1, Health.HEALTHY))
    assert outbox.statuses() == ["healthy"], "told as soon as it is taken"
