"""Coming back: what was missed is told once and in order, or the page is told to load anew."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moonxd.adapters.memory.ledger import MemoryLedger
from moonxd.control.live.window import MAX_BYTES, Told, Window
from moonxd.domain.errors import Transient
from moonxd.domain.ledger import StoredEvent
from tests.control.live_harness import LiveBench, Page, live, portfolio_event, stats_event, token
from tests.services.redis import until

ROOM = "user:u1"


async def test_missed_events_are_told_before_the_new_ones(redis_url: str) -> None:
    async with live(redis_url) as bench:
        async with bench.page() as page:
            assert (await page.join(ROOM, token()))["id"] == 0
            await bench.tell(portfolio_event("u1", total=1))
            last = (await page.hear())["id"]
        await bench.tell(*(portfolio_event("u1", total=n) for n in (2, 3)), portfolio_event("u2"), stats_event())
        async with bench.page() as page:
            # As text, too: some clients keep ids as strings.
            assert await page.join(ROOM, token(), lastEventId=str(last)) == {"type": "joined", "room": ROOM, "id": last}
            await bench.tell(portfolio_event("u1", total=4))
            assert [(await page.hear())["data"]["totalValueUsd"] for _ in range(3)] == [2, 3, 4]


async def test_what_happened_before_anybody_listened_is_read_from_the_outbox(redis_url: str) -> None:
    """As after a restart of the daemon."""
    async with live(redis_url) as bench:
        await bench.ledger.tell([portfolio_event("u1", total=n) for n in range(1200)])
        async with bench.page() as page:
            await page.join(ROOM, token(), lastEventId=400)
            assert [(await page.hear())["id"] for _ in range(800)] == list(range(401, 1201))


async def test_more_than_is_kept_means_to_load_anew(redis_url: str) -> None:
    async with live(redis_url, replay_events=10) as bench, bench.page() as page:
        await bench.ledger.tell([portfolio_event("u1") for _ in range(30)])
        assert await page.join(ROOM, token(), lastEventId=5) == {"type": "joined", "room": ROOM, "id": 30}
        assert await page.hear() == {"type": "resync", "room": ROOM, "id": 30}
        await bench.tell(portfolio_event("u1"))
        assert (await page.hear())["id"] == 31


async def test_an_id_from_another_database_means_to_load_anew(redis_url: str) -> None:
    async with live(redis_url) as bench, bench.page() as page:
        assert (await page.join(ROOM, token(), lastEventId=10**15))["id"] == 0
        assert (await page.hear())["type"] == "resync"


@pytest.mark.parametrize("given_id", [-1, "x", "", "-5", "1" * 30, 1.5, [1], {"a": 1}, "١"])
async def test_an_id_that_is_none(redis_url: str, given_id: Any) -> None:
    async with live(redis_url) as bench, bench.page() as page:
        assert (await page.join(ROOM, token(), lastEventId=given_id))["code"] == "malformed"
        assert (await page.join(ROOM, token()))["type"] == "joined", "it may try again"


async def test_joining_again_with_a_newer_token_repeats_nothing(redis_url: str) -> None:
    async with live(redis_url) as bench, bench.page() as page:
        await page.join(ROOM, token())
        await bench.tell(portfolio_event("u1"))
        assert (await page.hear())["id"] == 1
        assert await page.join(ROOM, token()) == {"type": "joined", "room": ROOM, "id": 1}
        await bench.tell(portfolio_event("u1"))
        assert (await page.hear())["id"] == 2


class Reader:
    """A page that comes and goes and keeps the last id, as docs/examples/live.html does."""

    def __init__(self, bench: LiveBench) -> None:
        self._bench = bench
        self.last = 0
        self.ids: list[int] = []
        #: (from, to] of what it was told to load anew.
        self.skipped: list[tuple[int, int]] = []

    async def visit(self, wanted: int, last: int, *, rejoins: bool) -> None:
        """Take so many messages, `last` being the last that will come; perhaps leave and join again."""
        async with self._bench.page() as page:
            await self._join(page)
            while wanted > 0 and self.last < last:
                await self._take(await page.hear())
                wanted -= 1
            if rejoins:
                await page.say(type="leave_room", room=ROOM)
                while (heard := await page.hear())["type"] != "left":
                    await self._take(heard)
                await self._join(page)

    async def _join(self, page: Page) -> None:
        await page.say(type="join_room", room=ROOM, token=token(), lastEventId=self.last)

    async def _take(self, heard: Any) -> None:
        if heard["type"] == "resync":
            self.skipped.append((self.last, heard["id"]))
            self.last = heard["id"]
        elif heard["type"] == "portfolio_update":
            self.ids.append(heard["id"])
            self.last = heard["id"]
        else:
            assert heard["type"] == "joined", heard


VISITS = st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=6)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(visits=VISITS, bursts=st.lists(st.integers(1, 25), min_size=1, max_size=12), keep=st.sampled_from([15, 10_000]))
def test_nothing_is_missed_and_nothing_told_twice(
    redis_url: str, visits: list[tuple[int, bool]], bursts: list[int], keep: int
) -> None:
    """Commits go on while the page leaves, joins again and connects anew wherever it is."""
    reader = trio.run(_come_and_go, redis_url, visits, bursts, keep)
    # Every second event was somebody else's.
    mine = range(1, sum(bursts) * 2, 2)
    loaded_anew = {number for low, high in reader.skipped for number in range(low + 1, high + 1)}
    assert reader.ids == sorted(set(reader.ids)), "in order, once"
    assert not loaded_anew & set(reader.ids)
    assert set(reader.ids) | loaded_anew >= set(mine), "nothing is missing"
    if keep > sum(bursts) * 2:
        assert not reader.skipped


async def _come_and_go(redis_url: str, visits: list[tuple[int, bool]], bursts: list[int], keep: int) -> Reader:
    async with live(redis_url, replay_events=keep) as bench, trio.open_nursery() as nursery:
        reader = Reader(bench)

        async def commit() -> None:
            for burst in bursts:
                await bench.tell(*(portfolio_event(user) for _ in range(burst) for user in ("u1", "u2")))
                await trio.lowlevel.checkpoint()

        nursery.start_soon(commit)
        last = sum(bursts) * 2 - 1
        for wanted, rejoins in visits:
            await reader.visit(wanted, last, rejoins=rejoins)
        await reader.visit(1000, last, rejoins=False)
    return reader


async def test_a_database_that_is_away_delays_and_loses_nothing(redis_url: str) -> None:
    async with live(redis_url) as bench, bench.page() as page:
        await page.join(ROOM, token())
        broken = Away(bench.ledger)
        bench.feed._tail._outbox = broken
        await bench.tell(portfolio_event("u1"))
        await until(lambda: broken.asked > 1)
        broken.is_away = False
        assert (await page.hear())["id"] == 1


class Away:
    """An outbox whose database does not answer."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self._ledger = ledger
        self.is_away = True
        self.asked = 0

    async def read(self, after: int, limit: int) -> tuple[StoredEvent, ...]:
        self.asked += 1
        if self.is_away:
            raise Transient("the database is away")
        return await self._ledger.read(after, limit)

    async def newest(self) -> int:
        return await self._ledger.newest()

    async def backlog(self) -> int:
        return 0


async def test_an_event_in_a_strange_form_stops_nobody(redis_url: str) -> None:
    async with live(redis_url) as bench, bench.page() as page:
        await page.join(ROOM, token())
        good = portfolio_event("u1")
        strange = [type(good)(id=portfolio_event("u1").id, type="sync.started", topic="t", key="u1", wallet="", body=b)
                   for b in (b"[]", b"{}", b'{"metadata": {}}', b"nonsense")]  # fmt: skip
        await bench.tell(*strange, good)
        assert (await page.hear())["id"] == 5


def test_the_window_is_bounded_in_messages_and_bytes() -> None:
    window = Window(3, most_bytes=25)
    window.restart(10)
    assert window.knows(10)
    for position in range(11, 21):
        window.add(Told(position, f"r{position % 2}", "t", b"12345678", 0.0))
    assert (window.floor, window.head) == (17, 20)
    assert [one.position for one in window.missed("r1", 0)] == [19]
    window.add(Told(21, "r1", "t", b"x" * 20, 0.0))
    assert [one.position for one in window.missed("r1", 0)] == [21]
    assert not window.knows(19)
    assert not window.knows(22)
    assert MAX_BYTES > 1 << 20
