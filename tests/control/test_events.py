"""Pages of committed events, following them, sending them again; and what the API does told as events."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from moonxd.adapters.memory.ledger import MemoryLedger
from moonxd.agents.announcer import Announcer
from moonxd.api import calls
from moonxd.api.client import ApiError
from moonxd.api.events import ReplayRequest
from moonxd.api.messages import EnqueueRequest, WalletAsk
from moonxd.control.scan import PAGE, before, end
from moonxd.domain.errors import Transient
from moonxd.domain.job import JobOptions
from moonxd.domain.ledger import Event, StoredEvent
from tests.conformance.ledger_data import event, new_wallet, synced
from tests.control.harness import WALLET, Served, WallClock, serving

NOW = 1_700_000_000.0


class Clock:
    """Time as a test sets it."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> float:
        return self.at


async def minutely(count: int) -> MemoryLedger:
    """One event a minute: sync.started of u0, sync.failed of u1 and portfolio.updated of u2 in turn."""
    clock = Clock()
    ledger = MemoryLedger(clock)
    kinds = (
        ("sync.started", "sync.events"),
        ("sync.failed", "sync.events"),
        ("portfolio.updated", "portfolio.updates"),
    )
    for number in range(count):
        type_, topic = kinds[number % 3]
        one = msgspec.structs.replace(event(WALLET, type_, topic), key=f"u{number % 3}")
        await ledger.tell([one])
        clock.at += 60
    return ledger


def types(page: Any) -> list[str]:
    return [one.type for one in page.events]


async def test_a_page_is_filtered_and_goes_on_behind_it(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path, outbox=await minutely(30)) as bench:
        page = await bench.call(calls.events(limit=3, types=["sync.*"], users=["u1"]))
        assert (types(page), page.next, page.more) == (["sync.failed"] * 3, 8, True)
        rest = await bench.call(calls.events(page.next, types=["sync.*"], users=["u1"]))
        assert (len(rest.events), rest.next, rest.more) == (7, 30, False)
        several = await bench.call(calls.events(types=["sync.started", "portfolio.updated"], topics=["sync.events"]))
        assert set(types(several)) == {"sync.started"}
        assert [one.position for one in (await bench.call(calls.events(last=4))).events] == [27, 28, 29, 30]
        assert len((await bench.call(calls.events())).events) == 30


async def test_since_a_moment(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path, outbox=await minutely(30)) as bench:
        page = await bench.call(calls.events(since=NOW + 60 * 25))
        assert [one.position for one in page.events] == [26, 27, 28, 29, 30]
        assert (await bench.call(calls.events(since=NOW + 10**6))).events == ()


async def test_a_type_that_nobody_sends_is_a_slip_of_the_pen(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        with pytest.raises(ApiError, match=r"no event type 'sync\.finished'") as refused:
            await bench.call(calls.events(types=["sync.finished"]))
        assert "sync.completed" in (refused.value.hint or "")


async def test_whoever_waits_hears_of_the_next_that_matches(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        answers: list[Any] = []

        async def wait() -> None:
            answers.append(await bench.call(calls.events(types=["sync.failed"], wait=20)))

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await bench.ledger.tell([event(WALLET, "sync.started")])
                await trio.sleep(0.3)
                assert not answers
                await bench.ledger.tell([event(WALLET, "sync.failed")])
        assert (types(answers[0]), answers[0].next) == (["sync.failed"], 2)
        assert (await bench.call(calls.events(2, wait=0.1))).events == ()


async def test_a_daemon_that_stops_lets_whoever_waits_go(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bench.call, calls.events(wait=30))
                await trio.sleep(0.2)
                bench.stop.set()


async def test_a_moment_is_found_in_a_large_outbox() -> None:
    ledger = await minutely(3 * PAGE + 17)
    assert await end(ledger) == 3 * PAGE + 17
    for minute in (0, 1, PAGE, 2 * PAGE + 5, 3 * PAGE + 16):
        position = await before(ledger, datetime.fromtimestamp(NOW + 60 * minute, UTC))
        # A minute of slack: the event before may be of a transaction that was long in coming.
        assert position == max(0, minute - 1)
    assert await end(MemoryLedger(WallClock())) == 0
    assert await before(MemoryLedger(WallClock()), datetime.now(UTC)) == 0


# ---- sending again ---------------------------------------------------------------------------------------------------


class Published(MemoryLedger):
    """All but the newest three are on their topics already."""

    async def read(self, after: int, limit: int) -> tuple[StoredEvent, ...]:
        found = await super().read(after, limit)
        last = len(await super().read(0, 10_000))
        return tuple(
            one if one.position > last - 3 else msgspec.structs.replace(one, published_at=datetime.now(UTC))
            for one in found
        )


async def test_what_was_published_is_sent_again_in_order(redis_url: str, socket_path: Path) -> None:
    ledger, sent = Published(WallClock()), []
    told = [event(WALLET, "sync.failed") for _ in range(2500)] + [event(WALLET, "portfolio.updated") for _ in range(3)]
    await ledger.tell(told)

    async def resend(events: Sequence[StoredEvent]) -> None:
        sent.append([one.event for one in events])

    moment = datetime.now(UTC).timestamp()
    ask = ReplayRequest(since=moment - 60, until=moment + 60)
    async with serving(redis_url, socket_path, outbox=ledger, resend=resend) as bench:
        counted = await bench.call(calls.replay(msgspec.structs.replace(ask, dry_run=True)))
        assert (counted.matched, counted.sent, counted.more, sent) == (1000, 0, True, [])
        step, total = await bench.call(calls.replay(ask)), 0
        while True:
            total += step.sent
            if not step.more:
                break
            step = await bench.call(calls.replay(msgspec.structs.replace(ask, after=step.next)))
        assert [one for page in sent for one in page] == told[:2500], "what nobody published yet is the relay's"
        assert (total, max(map(len, sent))) == (2500, 1000)
        none = await bench.call(calls.replay(msgspec.structs.replace(ask, types=("portfolio.*",))))
        assert (none.matched, none.more) == (0, False)
        past = ReplayRequest(since=moment - 7200, until=moment - 3600)
        assert (await bench.call(calls.replay(past))).matched == 0


async def test_without_kafka_nothing_is_sent_again(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        with pytest.raises(ApiError, match="publishes to no Kafka") as refused:
            await bench.call(calls.replay(ReplayRequest(since=1, until=2)))
        assert "kafka.brokers" in (refused.value.hint or "")


async def test_a_span_that_ends_before_it_begins_is_refused(redis_url: str, socket_path: Path) -> None:
    async def resend(events: Sequence[StoredEvent]) -> None:
        raise AssertionError("nothing is to be sent")

    async with serving(redis_url, socket_path, resend=resend) as bench:
        for ask in (ReplayRequest(since=2, until=2), ReplayRequest(since=1e300, until=2e300)):
            with pytest.raises(ApiError) as refused:
                await bench.call(calls.replay(ask))
            assert refused.value.status == 400


# ---- what the API does is told -------------------------------------------------------------------------------------


async def told(bench: Served, count: int) -> list[Event]:
    """The first `count` events, once they are there."""
    with trio.fail_after(10):
        while len(found := await bench.ledger.read(0, 1000)) < count:  # noqa: ASYNC110
            await trio.sleep(0.02)
    return [one.event for one in found]


async def test_a_job_that_is_added_and_called_off_is_told(
    redis_url: str, socket_path: Path, nursery: trio.Nursery
) -> None:
    ledger = MemoryLedger(WallClock())
    news = Announcer(ledger)
    async with serving(redis_url, socket_path, ledger=ledger, outbox=ledger, news=news) as bench:
        bench.ledger = ledger
        nursery.start_soon(news.run, lambda: None)
        one = EnqueueRequest(type="portfolio-sync", user_id="u1", wallet_address=WALLET, job_id="mine", delay=60_000)
        await bench.call(calls.enqueue(one))
        await bench.call(calls.enqueue(one))
        (queued,) = await told(bench, 1)
        body = msgspec.json.decode(queued.body)
        assert (body["type"], body["data"]["jobId"], body["data"]["trigger"]) == ("sync.queued", "mine", "manual")
        assert body["data"]["delay"] == 60_000
        await bench.call(calls.cancel("mine"))
        assert [event.type for event in await told(bench, 2)] == ["sync.queued", "sync.cancelled"]
        (row,) = await ledger.operations(wallet=WALLET)
        assert (row.status, str(row.id)) == ("cancelled", body["metadata"]["correlationId"])

        wallets = tuple(WalletAsk(wallet_address=new_wallet(), user_id=f"v{number}") for number in range(3))
        bulk = EnqueueRequest(type="bulk-sync", wallets=wallets, delay=60_000)
        job_id = (await bench.call(calls.enqueue(bulk))).job_id
        assert {event.key for event in (await told(bench, 5))[2:]} == {"v0", "v1", "v2"}
        await bench.call(calls.cancel(job_id))
        assert [event.type for event in await told(bench, 8)][5:] == ["sync.cancelled"] * 3
        nursery.cancel_scope.cancel()


async def test_a_job_between_two_attempts_that_is_called_off_leaves_no_open_row(
    redis_url: str, socket_path: Path
) -> None:
    """Nobody tells of it where nothing takes the news, and nothing breaks."""
    async with serving(redis_url, socket_path) as bench:
        job_id = await bench.add(options=JobOptions(delay=60_000))
        assert (await bench.call(calls.cancel(job_id))).cancelled
        assert await bench.ledger.read(0, 10) == ()


async def test_a_portfolio_that_its_user_looks_at_is_a_sign_of_life(
    redis_url: str, socket_path: Path, nursery: trio.Nursery
) -> None:
    ledger, seen = MemoryLedger(WallClock()), []
    news = Announcer(ledger)
    await synced(ledger, WALLET)
    async with serving(
        redis_url, socket_path, ledger=ledger, outbox=ledger, news=news, seen=lambda *who: seen.append(who),
        now=lambda: NOW,
    ) as bench:  # fmt: skip
        bench.ledger = ledger
        nursery.start_soon(news.run, lambda: None)
        for _ in range(3):
            await bench.call(calls.portfolio(WALLET, "user-1"))
        await bench.call(calls.portfolio(WALLET))
        await bench.call(calls.portfolio(WALLET, "user-1", activity=False))
        (viewed,) = await told(bench, 1)
        body = msgspec.json.decode(viewed.body)
        assert (body["userId"], body["data"]["activityType"]) == ("user-1", "portfolio_viewed")
        assert body["metadata"]["source"] == "moonxd"
        assert seen == [("user-1", WALLET)], "looks within a minute are one"
        nursery.cancel_scope.cancel()


async def test_news_waits_for_a_ledger_that_is_away(nursery: trio.Nursery, autojump_clock: Any) -> None:
    class Away(MemoryLedger):
        fails = 3

        async def tell(self, events: Sequence[Event]) -> None:
            if self.fails:
                self.fails -= 1
                raise Transient("the database is away")
            await super().tell(events)

    ledger = Away(WallClock())
    news = Announcer(ledger)
    many = [event(WALLET) for _ in range(1200)]
    news.tell(many)
    nursery.start_soon(news.run, lambda: None)
    with trio.fail_after(60):
        while len(await ledger.read(0, 2000)) < 1200:  # noqa: ASYNC110
            await trio.sleep(0.5)
    assert [one.event for one in await ledger.read(0, 2000)] == many
    nursery.cancel_scope.cancel()
