"""Whatever becomes of jobs, replaying their events gives `sync_operations`: on a real Redis and real ledgers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
import trio

from moonxd.adapters.scratch import open_scratch
from moonxd.adapters.sqlite.records import open_sqlite_records
from moonxd.agents.janitor import Janitor
from moonxd.domain.job import Backoff, JobOptions, JobState
from moonxd.domain.ledger import Operation, Retention
from moonxd.domain.rebuild import COLUMNS, Rebuilt, rebuild
from moonxd.verifying import Plan, Stores, verify
from moonxd.wiring import WallClock
from tests.runtime.story_world import Site, crash, opened, site, until, wallet, working
from tests.services.event_schemas import assert_valid

__all__ = ["opened", "site"]


async def test_replaying_the_events_rebuilds_the_table(site: Site, request: pytest.FixtureRequest) -> None:
    slow = {10, 11, 13, 14, 15}
    site.chain.takes = {wallet(number): 30.0 for number in slow} | {wallet(16): 0.4}
    site.chain.fails = {wallet(2): 99, wallet(3): 1, wallet(12): 99}

    # Two crashes before anybody else works: one job comes back, the other is lost with its queue.
    _, dead, dead_queue = site.worker("dead")
    await site.add(14)
    again = await crash(site, dead, dead_queue)
    await site.add(15)
    lost = await crash(site, dead, dead_queue)
    await site._redis.call("DEL", f"bull:mixed:{lost.id}", f"bull:mixed:{lost.id}:lock")
    await site._redis.call("LREM", "bull:mixed:active", "0", lost.id)
    del site.chain.takes[wallet(14)]

    first, _, queue = site.worker("first")
    async with working(first, queue):
        done = [await site.add(1, told=True), await site.add(3), await site.add(4, options=JobOptions(delay=80))]
        done.append(await site.add(5, name="bulk-sync", data={"wallets": [
            {"userId": "user-5", "walletAddress": wallet(5)}, {"userId": "user-6", "walletAddress": wallet(6)}
        ]}, told=True))  # fmt: skip
        # The second of two syncs of one wallet finds it busy, and then done by the first.
        merged = [await site.add(16), await site.add(16)]
        failed = [await site.add(2), await site.add(7, data={"syncType": "trades"})]
        # The third of one user within the window is rejected.
        for count in range(3):
            await site.is_at(await site.add(8, id=f"limit-{count}"), JobState.COMPLETED, JobState.FAILED)
        # Called off while it runs, while it waits, between two attempts.
        running = await site.add(10)
        await until(_entered(site, 10), "the slow job runs")
        assert first.cancel(running)
        await site.is_at(running, JobState.FAILED)
        await site.call_off(await site.add(9, options=JobOptions(delay=60_000), told=True))
        waiting = await site.add(12, options=JobOptions(attempts=5, backoff=Backoff("fixed", 60_000)))
        await site.is_at(waiting, JobState.DELAYED)
        await site.call_off(waiting)
        # The crashed worker's job comes back.
        await site.is_at(again.id, JobState.COMPLETED)
        for job_id in [*done, *merged]:
            await site.is_at(job_id, JobState.COMPLETED)
        for job_id in failed:
            await site.is_at(job_id, JobState.FAILED)
        # A dead letter that somebody puts back succeeds now.
        site.chain.fails[wallet(2)] = 0
        assert await site.queue.requeue([failed[0]])
        await site.is_at(failed[0], JobState.COMPLETED)
        # A deploy: the job is handed back, and the next worker ends it.
        deployed = await site.add(11)
        await until(_entered(site, 11), "the slow job runs")
        await first.drain(0)
    del site.chain.takes[wallet(11)]
    second, _, other = site.worker("second")
    async with working(second, other):
        await site.is_at(deployed, JobState.COMPLETED)
    # What no queue brings back the janitor closes.
    janitor = Janitor(site.ledger, interval_s=0.1, grace_s=0.1, version="9", clock=WallClock())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(janitor.run, lambda: None)
        await until(_status(site, 15, "failed"), "the janitor closed the orphan")
        await until(_status(site, 12, "cancelled"), "the announcer told")
        await until(_status(site, 9, "cancelled"), "the announcer told")
        nursery.cancel_scope.cancel()

    bodies = await site.bodies()
    await _assert_verified(site, request)
    rows = {row.id: row for row in await site.ledger.operations(limit=500)}
    rebuilt = rebuild(bodies)
    assert {key: _row(row) for key, row in rebuilt.items()} == {key: _row(row) for key, row in rows.items()}
    for key, row in rows.items():
        assert _near(rebuilt[key].started_at, row.started_at), (key, rebuilt[key], row)
        assert _near(rebuilt[key].completed_at, row.completed_at), (key, rebuilt[key], row)
    assert {row.status for row in rows.values()} == {"completed", "failed", "cancelled"}
    assert len(rows) == 18
    twins = {row.status: row.error for row in rows.values() if row.wallet == wallet(16)}
    assert set(twins) == {"completed", "cancelled"}
    assert str(twins["cancelled"]).startswith("merged into operation")

    # Twice as much changes nothing, and every one of them is what its schema says.
    assert {key: _row(row) for key, row in rebuild([*bodies, *bodies]).items()} == {
        key: _row(row) for key, row in rows.items()
    }
    decoded = [msgspec.json.decode(body) for body in bodies]
    assert {one["type"] for one in decoded} == {
        "sync.queued", "sync.started", "sync.completed", "sync.retrying", "sync.failed", "sync.cancelled",
        "sync.rejected", "portfolio.updated", "user.activity",
    }  # fmt: skip
    for one in decoded:
        assert_valid(one)
    assert b"PLANTED-KEY" not in b"".join(bodies)
    _assert_order(decoded)


async def _assert_verified(site: Site, request: pytest.FixtureRequest) -> None:
    async with AsyncExitStack() as stack:
        if hasattr(site.ledger, "records"):
            records = site.ledger.records()
        else:
            path = request.getfixturevalue("tmp_path") / "ledger.db"
            records = await stack.enter_async_context(open_sqlite_records(path))
        scratch = await stack.enter_async_context(open_scratch(4))
        plan = Plan(queue="mixed", keep=Retention(), places={})
        report = await verify(Stores(queue=site.queue, records=records, scratch=scratch), plan)
        assert report.found == ()


def _entered(site: Site, number: int) -> Any:
    async def there() -> bool:
        return wallet(number) in site.chain.entered

    return there


def _status(site: Site, number: int, status: str) -> Any:
    async def there() -> bool:
        row = (await site.rows()).get(wallet(number))
        return row is not None and row.status == status

    return there


def _row(row: Rebuilt | Operation) -> dict[str, Any]:
    """The columns that events carry. An event has no URL, a row's error may."""
    other = {"wallet_address": "wallet", "error_message": "error"}
    names = {name: other.get(name, name) if isinstance(row, Operation) else name for name in COLUMNS}
    values = {name: getattr(row, given) for name, given in names.items()}
    error = values["error_message"]
    values["error_message"] = error and error.replace("https://rpc.example/v2/PLANTED-KEY", "rpc.example")
    return values


def _near(told: int | None, stored: Any) -> bool:
    return (told is None) == (stored is None) and (told is None or abs(told / 1000 - stored.timestamp()) < 2)


def _assert_order(decoded: Sequence[dict[str, Any]]) -> None:
    """Nothing of an operation comes before it was queued, and that once."""
    seen: dict[str, list[str]] = {}
    for one in decoded:
        if one["type"].startswith("sync."):
            seen.setdefault(one["metadata"]["correlationId"], []).append(one["type"])
    for story in seen.values():
        assert story[0] == "sync.queued" or story == ["sync.failed"], story
        assert story.count("sync.queued") == 1
