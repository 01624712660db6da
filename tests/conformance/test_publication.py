"""The right to publish and what comes with it: every ledger alike."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from moonxd.domain.ledger import Backlog, Retention, StoredEvent
from moonxd.ports import Drain
from tests.conformance.conftest import Opener
from tests.conformance.ledger_data import WholeLedger, admission, admitted, change, event, holding, new_wallet

PATIENCE_S = 10.0


def kinds(stored: Sequence[StoredEvent]) -> list[str]:
    return [one.event.type for one in stored]


async def tell(ledger: WholeLedger, wallet: str, *words: str) -> None:
    await ledger.tell([event(wallet, word) for word in words])


async def test_unpublished_events_come_once_and_in_order(ledger: WholeLedger, wallet: str) -> None:
    await tell(ledger, wallet, *"abcdef")
    async with ledger.publication().hold() as drain:
        first = await drain.unpublished(0, 4)
        assert kinds(first) == list("abcd")
        rest = await drain.unpublished(first[-1].position, 4)
        assert kinds(rest) == list("ef")
        assert [one.position for one in (*first, *rest)] == list(range(1, 7))
        await drain.mark([one.position for one in first[:3]])
        assert kinds(await drain.unpublished(0, 10)) == list("def")
        await drain.mark([one.position for one in first[:3]])
        await drain.mark([one.position for one in (*first, *rest)])
        assert await drain.unpublished(0, 10) == ()
    assert await ledger.backlog() == 0
    assert all(one.published_at is not None and one.parked is None for one in await ledger.read(0, 10))


async def test_a_parked_event_is_out_of_the_way_with_its_reason(ledger: WholeLedger, wallet: str) -> None:
    await tell(ledger, wallet, "good", "huge", "good too")
    async with ledger.publication().hold() as drain:
        _, huge, _ = await drain.unpublished(0, 10)
        await drain.park(huge.position, "too large")
        assert kinds(await drain.unpublished(0, 10)) == ["good", "good too"]
    assert [one.parked for one in await ledger.read(0, 10)] == [None, "too large", None]


async def test_the_backlog_says_how_many_and_since_when(ledger: WholeLedger, wallet: str) -> None:
    publication = ledger.publication()
    assert await publication.backlog() == Backlog(count=0)
    await tell(ledger, wallet, "a")
    before = await publication.backlog()
    await tell(ledger, wallet, "b")
    old = await publication.backlog()
    assert old.count == 2
    assert before.age_s < old.age_s < PATIENCE_S
    first, _ = await ledger.read(0, 10)
    async with publication.hold() as drain:
        await drain.mark([first.position])
    young = await publication.backlog()
    assert young.count == 1
    assert young.age_s < PATIENCE_S
    assert await publication.holdup(60.0) is None


async def test_nothing_is_awaited_where_all_was_published_before(ledger: WholeLedger, wallet: str) -> None:
    await tell(ledger, wallet, "a")
    async with ledger.publication().hold() as drain:
        (one,) = await drain.unpublished(0, 10)
        await drain.mark([one.position])
    async with ledger.publication().hold() as drain:
        assert await drain.unpublished(0, 10) == ()
        assert not await drain.wait(0.3), "the relay of the next daemon may sleep"


async def test_one_holds_it_at_a_time(open_ledger: Opener, wallet: str) -> None:
    holders = 0

    async def relay(ledger: WholeLedger) -> None:
        nonlocal holders
        async with ledger.publication().hold() as drain:
            holders += 1
            assert holders == 1
            await drain.confirm()
            await trio.sleep(0.05)
            holders -= 1

    async with open_ledger() as one, open_ledger() as other:
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                for ledger in (one, other, one):
                    nursery.start_soon(relay, ledger)


async def test_the_next_one_gets_it_when_the_holder_goes(open_ledger: Opener, wallet: str) -> None:
    async with open_ledger() as one, open_ledger() as other:
        await tell(one, wallet, "a", "b")
        taken = trio.Event()
        seen: list[str] = []

        async def second() -> None:
            async with other.publication().hold() as drain:
                seen.extend(kinds(await drain.unpublished(0, 10)))

        async def first(scope: trio.CancelScope) -> None:
            with scope:
                async with one.publication().hold() as drain:
                    await drain.mark([(await drain.unpublished(0, 1))[0].position])
                    taken.set()
                    await trio.sleep_forever()

        scope = trio.CancelScope()
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first, scope)
                await taken.wait()
                nursery.start_soon(second)
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert seen == []
                scope.cancel()
        assert seen == ["b"]


async def _woken(drain: Drain, ledger: WholeLedger, wallet: str) -> float:
    """Seconds from a commit until the waiting drain has its event."""
    at = 0.0

    async def commit() -> None:
        nonlocal at
        await trio.testing.wait_all_tasks_blocked(0.05)
        await tell(ledger, wallet, "news")
        at = trio.current_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(commit)
        with trio.fail_after(PATIENCE_S):
            while not (page := await drain.unpublished(0, 10)):
                await drain.wait(PATIENCE_S)
    await drain.mark([one.position for one in page])
    return trio.current_time() - at


async def test_a_commit_wakes_the_relay(open_ledger: Opener, wallet: str) -> None:
    """By this process and by another one (here: another opening of the same ledger)."""
    async with open_ledger() as one, open_ledger() as other, one.publication().hold() as drain:
        assert await drain.unpublished(0, 10) == ()
        assert await drain.wait(0.05) is False
        for writer in (one, other, one, other):
            assert await _woken(drain, writer, wallet) < 1.0


async def test_nothing_is_missed_while_many_commit(ledger: WholeLedger) -> None:
    """The relay sleeps and wakes between commits; every event arrives, per wallet in order, positions without gap."""
    wallets = [new_wallet() for _ in range(6)]
    seen: list[StoredEvent] = []
    done = trio.Event()

    async def write(wallet: str) -> None:
        for number in range(15):
            lease = await admitted(ledger, admission(wallet, job=str(number)))
            await ledger.commit(change(lease, [holding(number)], events=(event(wallet, str(number)),)))

    async def relay() -> None:
        async with ledger.publication().hold() as drain:
            after = 0
            while not (done.is_set() and len(seen) == 90):
                page = await drain.unpublished(after, 7)
                seen.extend(page)
                after = page[-1].position if page else after
                await drain.mark([one.position for one in page])
                if not page:
                    assert await drain.wait(PATIENCE_S)

    with trio.fail_after(3 * PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay)
            async with trio.open_nursery() as writers:
                for wallet in wallets:
                    writers.start_soon(write, wallet)
            done.set()
    assert [one.position for one in seen] == list(range(1, 91))
    for wallet in wallets:
        assert [one.event.type for one in seen if one.event.wallet == wallet] == [str(n) for n in range(15)]


async def test_waiting_reading_and_marking_can_be_cancelled(ledger: WholeLedger, wallet: str) -> None:
    await tell(ledger, wallet, *"abc")
    async with ledger.publication().hold() as drain:
        for after in (0.0, 0.0005, 0.001, 0.002, 0.005):
            with trio.move_on_after(after):
                await drain.wait(PATIENCE_S)
            with trio.move_on_after(after):
                await drain.unpublished(0, 10)
        await drain.mark([one.position for one in await drain.unpublished(0, 10)])
        assert await _woken(drain, ledger, wallet) < 1.0
        assert await drain.wait(0.05) is False


async def test_published_events_age_out_and_positions_go_on(ledger: WholeLedger, wallet: str) -> None:
    await tell(ledger, wallet, *"abcd")
    async with ledger.publication().hold() as drain:
        page = await drain.unpublished(0, 10)
        await drain.mark([one.position for one in page[:2]])
        await ledger.prune(Retention(outbox_s=0.0), 100)
        assert kinds(await ledger.read(0, 10)) == ["c", "d"]
        await drain.mark([one.position for one in page])
        await ledger.prune(Retention(outbox_s=0.0), 100)
        await tell(ledger, wallet, "e")
        (late,) = await drain.unpublished(page[-1].position, 10)
    assert late.position == 5
