"""One queue, one ledger and any number of workers, on real stores: what tests of whole stories are played on."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from moonxd.adapters.bullmq.queue import BullQueue
from moonxd.adapters.postgres.ledger import open_postgres_ledger
from moonxd.adapters.redis.client import open_redis
from moonxd.adapters.redis.settings import parse_redis_url
from moonxd.adapters.sqlite.ledger import open_sqlite_ledger
from moonxd.agents.announcer import Announcer
from moonxd.agents.stalled import run_stalled_checker
from moonxd.control.deps import Deps
from moonxd.control.story import Story
from moonxd.domain.chain import CHAINS, Chain
from moonxd.domain.errors import Transient
from moonxd.domain.guard import Guards, Window
from moonxd.domain.job import Backoff, Job, JobOptions, JobState, NewJob
from moonxd.domain.ledger import Operation
from moonxd.domain.portfolio import PriceLookup
from moonxd.domain.token import ChainSnapshot, Price, TokenBalance, TokenMeta, TokenRef
from moonxd.jobs import Env
from moonxd.wiring import Database, WallClock
from moonxd.worker.attempt import Attempts, Policy
from moonxd.worker.consumer import Consumer
from moonxd.worker.handler import Handler
from moonxd.worker.leases import LeaseKeeper

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


async def crash(site: Site, attempts: Attempts, queue: BullQueue) -> Job:
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
