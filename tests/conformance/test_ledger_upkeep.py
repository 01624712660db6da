"""History, what is removed because it is old, events of no job, dead letters by filter: every ledger alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import trio

from moonxd.domain.guard import Window
from moonxd.domain.ledger import AlreadyCommitted, LetterFilter, Page, RateLimited, Retention
from tests.conformance.ledger_data import (
    WholeLedger,
    admission,
    admitted,
    change,
    ending,
    event,
    holding,
    letter,
    new_wallet,
    synced,
)

# ---- history -------------------------------------------------------------------------------------------------------


async def test_history_is_newest_first_with_what_was_held_then(ledger: WholeLedger, wallet: str) -> None:
    first = (holding(1, raw=10**18), holding(2, is_spam=True))
    second = (holding(1, raw=3 * 10**18, said={"source": "x"}),)
    await synced(ledger, wallet, first, snapshot=first)
    lease = await synced(ledger, wallet, second, snapshot=second, snapshot_type="scheduled")
    newest, oldest = await ledger.history(wallet)
    assert (newest.holdings, oldest.holdings) == (second, first)
    assert (newest.total_value_usd, oldest.total_value_usd) == (Decimal(6), Decimal(2))
    assert (newest.type, newest.operation, newest.user_id) == ("scheduled", lease.operation, "user-1")
    assert newest.taken_at > oldest.taken_at
    assert abs(newest.taken_at - datetime.now(UTC)) < timedelta(seconds=30)


async def test_history_by_time_user_and_number(ledger: WholeLedger, wallet: str) -> None:
    rows = (holding(1), holding(2))
    for _ in range(3):
        await synced(ledger, wallet, rows, snapshot=rows)
    lease = await admitted(ledger, admission(wallet, job="theirs", user="user-2"))
    await ledger.commit(change(lease, rows, snapshot=rows))
    everything = await ledger.history(wallet)
    assert len(everything) == 4
    assert all(len(one.holdings) == 2 for one in everything)
    assert await ledger.history(wallet, limit=2) == everything[:2]
    assert len(await ledger.history(wallet, user_id="user-2")) == 1
    middle = everything[2].taken_at
    assert await ledger.history(wallet, since=middle) == everything[:3]
    assert await ledger.history(wallet, until=middle) == everything[3:]
    assert await ledger.history(new_wallet()) == ()


# ---- retention -----------------------------------------------------------------------------------------------------


async def later() -> None:
    """Past the coarsest clock of a ledger."""
    await trio.sleep(0.01)


async def drained(ledger: WholeLedger, keep: Retention, limit: int = 1000) -> dict[str, int]:
    """Prune until nothing more goes."""
    total = {"history": 0, "operations": 0, "outbox": 0}
    while True:
        gone = await ledger.prune(keep, limit)
        for name in total:
            count = getattr(gone, name)
            assert count <= limit
            total[name] += count
        if not (gone.history or gone.operations or gone.outbox):
            return total


async def test_nothing_is_removed_that_nobody_said(ledger: WholeLedger, wallet: str) -> None:
    rows = (holding(1),)
    await synced(ledger, wallet, rows, snapshot=rows, events=(event(wallet),))
    await later()
    assert await drained(ledger, Retention()) == {"history": 0, "operations": 0, "outbox": 0}
    day = 86400.0
    young = Retention(history_s=day, operations_s=day, outbox_s=day, unpublished=True)
    await ledger.prune(young, 1000)
    assert len(await ledger.history(wallet)) == 1
    assert len(await ledger.operations(wallet=wallet)) == 1


async def test_old_history_goes_in_batches(ledger: WholeLedger, wallet: str) -> None:
    rows = tuple(holding(number) for number in range(1, 8))
    await synced(ledger, wallet, rows, snapshot=rows)
    await later()
    first = await ledger.prune(Retention(history_s=0.0), 3)
    assert first.history == 3
    await drained(ledger, Retention(history_s=0.0), 3)
    assert await ledger.history(wallet) == ()
    (view,) = await ledger.portfolio(wallet)
    assert view.holdings == rows


async def test_old_operations_go_but_the_last_and_the_open_ones_stay(ledger: WholeLedger, wallet: str) -> None:
    for _ in range(3):
        last = await synced(ledger, wallet, [holding(1)])
    failed = await admitted(ledger, admission(wallet, job="failed"))
    await ledger.close(ending(failed, "failed"))
    pending = await admitted(ledger, admission(wallet, job="pending"))
    await ledger.close(ending(pending, "retrying"))
    running = await admitted(ledger, admission(wallet, job="running"))
    await later()
    await drained(ledger, Retention(operations_s=0.0), 2)
    left = {row.id: row.status for row in await ledger.operations(wallet=wallet)}
    assert left == {last.operation: "completed", pending.operation: "pending", running.operation: "running"}
    await ledger.commit(change(running, [holding(2)]))


async def test_the_rate_limit_sees_what_retention_keeps(ledger: WholeLedger, wallet: str) -> None:
    window, user = Window(most=2, window_s=60.0), f"user-{wallet}"
    for _ in range(2):
        mine = new_wallet()
        lease = await admitted(ledger, admission(mine, user=user, counted=True, window=window))
        await ledger.commit(change(lease))
    await ledger.prune(Retention(operations_s=60.0), 1000)
    answer = await ledger.admit(admission(new_wallet(), user=user, counted=True, window=window))
    assert isinstance(answer, RateLimited)


async def test_unpublished_events_stay_while_somebody_publishes(ledger: WholeLedger, wallet: str) -> None:
    await drained(ledger, Retention(outbox_s=0.0, unpublished=True))
    await ledger.tell([event(wallet) for _ in range(5)])
    await later()
    assert (await ledger.prune(Retention(outbox_s=0.0, outbox_rows=1), 1000)).outbox == 0
    assert await ledger.backlog() == 5
    # Without a publisher the age decides.
    assert (await ledger.prune(Retention(outbox_s=0.0, unpublished=True), 3)).outbox == 3
    assert await ledger.backlog() == 2


async def test_the_outbox_is_bounded_by_number_too(ledger: WholeLedger, wallet: str) -> None:
    await drained(ledger, Retention(outbox_s=0.0, unpublished=True))
    await ledger.tell([event(wallet) for _ in range(10)])
    seen = await ledger.read(0, 100)
    await drained(ledger, Retention(outbox_rows=4, unpublished=True), 2)
    assert await ledger.read(0, 100) == seen[-4:]
    await ledger.tell([event(wallet)])
    (newest,) = await ledger.read(seen[-1].position, 10)
    assert newest.position > seen[-1].position, "positions never come back"


async def test_the_newest_position_outlives_its_rows(ledger: WholeLedger, wallet: str) -> None:
    """The live feed begins there."""
    await ledger.tell([event(wallet) for _ in range(3)])
    positions = [one.position for one in await ledger.read(0, 10_000)]
    assert await ledger.newest() == positions[-1]
    await ledger.tell([event(wallet)])
    assert [one.position for one in await ledger.read(positions[-1], 10)] == [await ledger.newest()]
    newest = await ledger.newest()
    await later()
    await drained(ledger, Retention(outbox_s=0.0, unpublished=True))
    assert not [one for one in await ledger.read(0, 10) if one.position < newest]
    assert await ledger.newest() == newest


async def test_told_events_are_told_once(ledger: WholeLedger, wallet: str) -> None:
    before = await ledger.backlog()
    alert = event(wallet, "system.alert", "system.alerts")
    await ledger.tell([alert])
    await ledger.tell([alert])
    assert await ledger.backlog() == before + 1
    await ledger.tell([])


async def test_a_result_is_answered_until_its_row_goes(ledger: WholeLedger, wallet: str) -> None:
    ask = admission(wallet)
    lease = await admitted(ledger, ask)
    await ledger.commit(change(lease, [holding(1)], result={"n": 1}))
    await later()
    await drained(ledger, Retention(operations_s=0.0))
    assert await ledger.admit(ask) == AlreadyCommitted({"n": 1}), "the wallet's last one stays"


# ---- dead letters --------------------------------------------------------------------------------------------------


async def test_letters_by_filter_in_pages(ledger: WholeLedger, wallet: str) -> None:
    queue = f"queue-{wallet}"
    for number in range(7):
        await ledger.bury(
            letter(
                f"job-{number}", queue=queue, failed_at=1000 + number // 2, user_id=f"u{number % 2}",
                reason=f"RPC Timeout {number}" if number % 3 else "bad address", name="a" if number < 5 else "b",
            )
        )  # fmt: skip

    async def found(wanted: LetterFilter) -> list[str]:
        ids: list[str] = []
        after: Page | None = None
        while page := await ledger.letters(queue, limit=2, wanted=wanted, after=after):
            ids += [one.job_id for one in page]
            after = Page(page[-1].failed_at, page[-1].job_id)
        assert await ledger.count_letters(queue, wanted) == len(ids)
        return ids

    assert await found(LetterFilter()) == [f"job-{n}" for n in (6, 4, 5, 2, 3, 0, 1)]
    assert await found(LetterFilter(reason="rpc timeout")) == [f"job-{n}" for n in (4, 5, 2, 1)]
    assert await found(LetterFilter(user="u1", name="a")) == ["job-3", "job-1"]
    assert await found(LetterFilter(since=1001, before=1003)) == [f"job-{n}" for n in (4, 5, 2, 3)]
    assert await found(LetterFilter(ids=("job-5", "nope", "job-0"))) == ["job-5", "job-0"]
    assert await found(LetterFilter(reason="100%_")) == []
    assert await found(LetterFilter(ids=())) == []
