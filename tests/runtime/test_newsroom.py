"""What is told of statistics, when, and what becomes of it while the ledger or the archive is away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from moonxd.adapters.memory.archive import MemoryArchive
from moonxd.adapters.memory.ledger import MemoryLedger
from moonxd.agents.newsroom import Newsroom
from moonxd.domain.errors import Transient
from moonxd.domain.ledger import Event
from moonxd.domain.stats import BridgeStats, ChainStats, Health, PartHealth, Round, ServiceHealth
from moonxd.domain.stats_change import Thresholds
from tests.domain.test_stats_change import BRIDGE, CHAIN, WHOLE
from tests.services.event_schemas import assert_valid

NOW = 1_800_000_000.0
change = msgspec.structs.replace
DEGRADED = change(CHAIN, status=Health.DEGRADED, at_ms=2)
PARTS = (PartHealth(name="redis", status=Health.HEALTHY, critical=True),)
OVERVIEW = change(WHOLE, at_ms=int(NOW * 1000))


class Clock:
    """A second later each time: what is told at one instant by one collector is one event."""

    def __init__(self) -> None:
        self._now = NOW

    def now(self) -> float:
        self._now += 1
        return self._now


class Kept(MemoryArchive):
    """An archive that may be away, and that knows whether a row was told before it came."""

    def __init__(self, ledger: MemoryLedger) -> None:
        super().__init__(now=lambda: NOW)
        self._ledger = ledger
        self.is_away = False
        self.told_before: list[int] = []

    async def put_chains(self, rows: Sequence[ChainStats]) -> None:
        if self.is_away:
            raise Transient("the archive is away")
        self.told_before.append(len(await told(self._ledger)))
        await super().put_chains(rows)


class Absent(MemoryLedger):
    """A ledger that may be away."""

    is_away = False

    async def tell(self, events: Sequence[Event]) -> None:
        if self.is_away:
            raise Transient("the ledger is away")
        await super().tell(events)


async def told(ledger: MemoryLedger) -> list[dict[str, Any]]:
    bodies = [msgspec.json.decode(one.event.body) for one in await ledger.read(0, 1000)]
    for body in bodies:
        assert_valid(body)
    return bodies


async def types(ledger: MemoryLedger) -> list[str]:
    return [body["type"].removeprefix("stats.") for body in await told(ledger)]


@pytest.fixture
def ledger() -> Absent:
    return Absent(Clock())


@pytest.fixture
def archive(ledger: Absent) -> Kept:
    return Kept(ledger)


def newsroom(archive: Kept, ledger: Absent, clock: Clock | None = None) -> Newsroom:
    return Newsroom(archive, ledger, clock or Clock(), Thresholds(), version="1", term=lambda: 1)


async def test_what_changed_is_told_before_all_of_it_is_kept(archive: Kept, ledger: Absent) -> None:
    room = newsroom(archive, ledger)
    await room.keep("chains", Round(chains=(CHAIN,)))
    await room.keep("chains", Round(chains=(change(CHAIN, at_ms=2, head=7),)))
    await room.keep("chains", Round(chains=(change(DEGRADED, at_ms=3),)))
    assert archive.told_before == [1, 1, 2]
    assert [row.at_ms for row in await archive.chains()] == [3]
    first, second = await told(ledger)
    assert first["data"]["chains"][0]["status"] == "healthy"
    assert second["data"]["chains"][0]["status"] == "degraded"


async def test_of_a_round_only_what_changed_is_told(archive: Kept, ledger: Absent) -> None:
    room = newsroom(archive, ledger)
    base = change(CHAIN, chain_id=8453, slug="base", name="Base")
    await room.keep("chains", Round(chains=(CHAIN, base)))
    await room.keep("chains", Round(chains=(DEGRADED, change(base, at_ms=2))))
    assert [[row["chainSlug"] for row in body["data"]["chains"]] for body in await told(ledger)] == [
        ["ethereum", "base"], ["ethereum"],
    ]  # fmt: skip


async def test_every_kind_of_round_has_its_event(archive: Kept, ledger: Absent) -> None:
    room = newsroom(archive, ledger)
    service = ServiceHealth(at_ms=1, status=Health.HEALTHY, parts=PARTS)
    for found in (Round(chains=(CHAIN,)), Round(bridges=(BRIDGE,)), Round(overview=OVERVIEW), Round(service=service)):
        await room.keep("any", found)
        await room.keep("any", found)
    assert await types(ledger) == [
        "chain_performance_updated", "bridge_latency_updated", "overview_updated", "health_check",
    ]  # fmt: skip
    assert await archive.overview() == OVERVIEW
    assert await archive.bridges() == (BRIDGE,)


async def test_a_ledger_that_is_away_delays_news_and_loses_no_measurement(archive: Kept, ledger: Absent) -> None:
    room = newsroom(archive, ledger)
    await room.keep("chains", Round(chains=(CHAIN,)))
    ledger.is_away = True
    await room.keep("chains", Round(chains=(DEGRADED,)))
    assert [row.status for row in await archive.chains()] == [Health.DEGRADED], "it is kept all the same"
    ledger.is_away = False
    await room.keep("chains", Round(chains=(change(DEGRADED, at_ms=3),)))
    await room.keep("chains", Round(chains=(change(DEGRADED, at_ms=4),)))
    assert [body["data"]["chains"][0]["status"] for body in await told(ledger)] == ["healthy", "degraded"]


async def test_what_came_and_went_while_the_ledger_was_away_is_no_news(archive: Kept, ledger: Absent) -> None:
    room = newsroom(archive, ledger)
    await room.keep("chains", Round(chains=(CHAIN,)))
    ledger.is_away = True
    await room.keep("chains", Round(chains=(DEGRADED,)))
    ledger.is_away = False
    await room.keep("chains", Round(chains=(change(CHAIN, at_ms=3),)))
    assert len(await told(ledger)) == 1


async def test_a_restart_tells_nothing_again_and_what_changed_meanwhile(archive: Kept, ledger: Absent) -> None:
    clock = Clock()
    first = newsroom(archive, ledger, clock)
    await first.keep("any", Round(chains=(CHAIN,), bridges=(BRIDGE,), overview=OVERVIEW))
    count = len(await told(ledger))
    second = newsroom(archive, ledger, clock)
    slower = change(BRIDGE, at_ms=2, latency_s=3.0)
    await second.keep("any", Round(chains=(change(CHAIN, at_ms=2),), bridges=(slower,), overview=OVERVIEW))
    assert (await types(ledger))[count:] == ["bridge_latency_updated"]


async def test_an_archive_that_refuses_is_the_rounds_failure_and_nothing_is_told_twice(
    archive: Kept, ledger: Absent
) -> None:
    room = newsroom(archive, ledger)
    archive.is_away = True
    with pytest.raises(Transient, match="the archive is away"):
        await room.keep("chains", Round(chains=(CHAIN,)))
    archive.is_away = False
    await room.keep("chains", Round(chains=(change(CHAIN, at_ms=2),)))
    assert len(await told(ledger)) == 1


async def test_rounds_are_told_with_their_problems(archive: Kept, ledger: Absent) -> None:
    room = newsroom(archive, ledger)
    lost: Sequence[BridgeStats] = (BRIDGE,)
    await room.started("bridge_latency")
    await room.ended("bridge_latency", Round(bridges=tuple(lost), failed=("LI.FI: no answer",)), None, 1.5)
    await room.ended("bridge_latency", None, "not done within 90 s", 90.0)
    ledger.is_away = True
    await room.started("bridge_latency")
    started, completed, failed = await told(ledger)
    assert started["data"] == {"collector": "bridge_latency", "startedAt": started["metadata"]["timestamp"]}
    assert completed["type"] == "stats.collection_completed"
    assert completed["data"]["duration"] == 1500
    assert completed["data"]["bridges"] == 1
    assert completed["data"]["problems"] == ["LI.FI: no answer"]
    assert failed["type"] == "stats.collection_failed"
    assert failed["data"]["error"] == "not done within 90 s"
