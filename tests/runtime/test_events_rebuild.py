"""Whatever becomes of jobs, replaying their events gives `sync_operations`: on a real Redis and real ledgers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from moonxd.adapters.bullmq.queue import BullQueue
from moonxd.adapters.postgres.ledger import open_postgres_ledger
from moonxd.adapters.redis.client import open_redis
from moonxd.adapters.redis.settings import parse_redis_url
from moonxd.adapters.sqlite.ledger import open_sqlite_ledger
from moonxd.agents.announcer import Announcer
from moonxd.agents.janitor import Janitor
from moonxd.agents.stalled import run_stalled_checker
from moonxd.control.deps import Deps
from moonxd.control.story import Story
from moonxd.domain.chain import CHAINS, Chain
from moonxd.domain.errors import Transient
from moonxd.domain.guard import Guards, Window
from moonxd.domain.job import Backoff, Job, JobOptions, JobState, NewJob
from moonxd.domain.ledger import Operation
from moonxd.domain.portfolio import PriceLookup
from moonxd.domain.rebuild import COLUMNS, Rebuilt, rebuild
from moonxd.domain.token import ChainSnapshot, Price, TokenBalance, TokenMeta, TokenRef
from moonxd.jobs import Env
from moonxd.wiring import Database, WallClock
from moonxd.worker.attempt import Attempts, Policy
from moonxd.worker.consumer import Consumer
from moonxd.worker.handler import Handler
from moonxd.worker.leases import LeaseKeeper
from tests.services.event_schemas import assert_valid

TOKEN = "0x" + "cc" * 20
LOCK_S = 0.6


def wallet(number: int) -> str:
    return f"0x{number:040x}"


class Chainlet:
    """What reading a wallet comes to is said by wallet: how many times it fails, how long it takes."""

    def __init__(self) -> None:
        self.fails: dict[str, int] = {}
        self.takes: dict[str, float] = {}
        self.entered: set[str] = set()

    @property
    def chain(self) -> Chain:
        return CHAINS[1]

    async def read(self, wallet: str, seen: Sequence[str], *, refresh_metadata: bool = False) -> ChainSnapshot:
        self.entered.add(wallet)
        await trio.sleep(self.takes.get(wallet, 0))
        if self.fails.get(wallet, 0):
            self.fails[wallet] -= 1
            raise Transient("the chain is away: https://rpc.example/v2/PLANTED-KEY answered 503")
        balance = TokenBalance(TokenRef(1, TOKEN), int(wallet, 16), TokenMeta("TOK", "Token", 6), verified=True)
        return ChainSnapshot(
            chain_id=1, block_low=7, block_high=7, balances=(balance,), source="multicall", discovers=False
        )


class Site:
    """One queue and one ledger, and any number of workers on them."""

    def __init__(self, redis: Any, name: str, ledger: Database, nursery: trio.Nursery) -> None:
        self._redis, self._name, self._nursery = redis, name, nursery
        self.ledger = ledger
        self.chain = Chainlet()
        self.announcer = Announcer(ledger)
        self.queue = self.queue_of("desk")
        self.story = Story(
            Deps(
                queue_name=name, worker="desk", queue_admin=self.queue, ledger=ledger, letters=None, outbox=ledger,
                sample=_never, cancel_running=lambda job_id: False, pause_worker=lambda paused: None,
                dependencies=_never, metrics=lambda: b"", news=self.announcer,
            )
        )  # fmt: skip
        nursery.start_soon(self.announcer.run, lambda: None)

    def queue_of(self, worker: str) -> BullQueue:
        return BullQueue(
            self._redis, self._name, worker_name=worker, lock_ms=int(LOCK_S * 1000), stalled_interval_ms=200,
            defaults=JobOptions(attempts=3, backoff=Backoff("fixed", 30)),
        )  # fmt: skip

    def worker(self, name: str) -> tuple[Consumer, Attempts, BullQueue]:
        queue, leases = self.queue_of(name), LeaseKeeper(self.ledger, lease_s=LOCK_S)
        env = Env(readers={1: self.chain}, prices=_prices)
        consumer: Consumer
        attempts = Attempts(
            ledger=self.ledger,
            leases=leases,
            env=lambda: env,
            clock=WallClock(),
            policy=Policy(worker_id=name, version="9", guards=Guards(window=Window(most=2, window_s=900, reject=True))),
            rand=lambda: 0.5,
            step=lambda job_id, step, **who: None,
            cancelled=lambda job_id: consumer.is_cancelled(job_id),
            withdraw=self.announcer.withdraw,
        )
        handler = Handler(attempts, slots=8, page=10, progress=queue.progress)
        consumer = Consumer(queue, handler, slots=8, lock_s=LOCK_S, doomed=attempts.doomed)
        self._nursery.start_soon(leases.run, lambda: None)
        return consumer, attempts, queue

    async def add(self, number: int, *, told: bool = False, **given: Any) -> str:
        """A producer's job; `told`: added through the API."""
        data = {"userId": f"user-{number}", "walletAddress": wallet(number), **given.pop("data", {})}
        new = NewJob(**{"name": "portfolio-sync", "data": data, "timestamp": int(time.time() * 1000), **given})
        (job_id,) = await self.queue.add([new])
        if told:
            await self.story.added(new, job_id)
        return job_id

    async def is_at(self, job_id: str, *states: JobState) -> None:
        async def there() -> bool:
            view = await self.queue.get(job_id)
            return view is not None and view.state in states

        await until(there, f"job {job_id} is {states}")

    async def call_off(self, job_id: str) -> None:
        view = await self.queue.get(job_id)
        assert view is not None
        assert await self.queue.remove([job_id])
        self.story.called_off(view.job)

    async def bodies(self) -> list[bytes]:
        found: list[bytes] = []
        position = 0
        while page := await self.ledger.read(position, 500):
            found += [one.event.body for one in page]
            position = page[-1].position
        return found

    async def rows(self) -> dict[str, Operation]:
        return {row.wallet: row for row in await self.ledger.operations(limit=500)}


async def _never() -> Any:
    raise AssertionError("nobody asks for it")


async def _prices(tokens: Sequence[TokenRef]) -> PriceLookup:
    return PriceLookup({token: Price(Decimal("1.23456789"), "llama", 0.99, 0.0) for token in tokens})


async def until(condition: Any, what: str) -> None:
    with trio.move_on_after(20):
        while not await condition():  # noqa: ASYNC110
            await trio.sleep(0.02)
        return
    pytest.fail(f"{what}: not within 20 s")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AbstractAsyncContextManager[Database]:
    if request.param == "sqlite":
        return open_sqlite_ledger(tmp_path / "ledger.db")
    return open_postgres_ledger(request.getfixturevalue("postgres_dsn"))


@pytest.fixture
async def site(
    opened: AbstractAsyncContextManager[Database], redis_url: str, nursery: trio.Nursery
) -> AsyncIterator[Site]:
    async with opened as ledger, open_redis(parse_redis_url(redis_url)) as redis, trio.open_nursery() as inside:
        yield Site(redis, "mixed", ledger, inside)
        inside.cancel_scope.cancel()


@asynccontextmanager
async def working(consumer: Consumer, queue: BullQueue) -> AsyncIterator[trio.CancelScope]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(consumer.run)
        nursery.start_soon(partial(run_stalled_checker, queue, interval_s=0.2))
        yield nursery.cancel_scope
        nursery.cancel_scope.cancel()


async def _crash(site: Site, attempts: Attempts, queue: BullQueue) -> Job:
    """A worker takes a job, is admitted, and is never heard of again."""
    claim = await queue.claim()
    assert claim.job is not None
    close = site.ledger.close

    async def dead(ending: Any) -> None:
        """The process is gone before it could write anything."""

    site.ledger.close = dead  # type: ignore[method-assign]
    with trio.move_on_after(0.2):
        await attempts(claim.job)
    site.ledger.close = close  # type: ignore[method-assign]
    return claim.job


async def test_replaying_the_events_rebuilds_the_table(site: Site) -> None:
    slow = {10, 11, 13, 14, 15}
    site.chain.takes = {wallet(number): 30.0 for number in slow} | {wallet(16): 0.4}
    site.chain.fails = {wallet(2): 99, wallet(3): 1, wallet(12): 99}

    # Two crashes before anybody else works: one job comes back, the other is lost with its queue.
    _, dead, dead_queue = site.worker("dead")
    await site.add(14)
    again = await _crash(site, dead, dead_queue)
    await site.add(15)
    lost = await _crash(site, dead, dead_queue)
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
