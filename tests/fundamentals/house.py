"""The inside of the daemon, whole, standing on memory: the queue, the ledger and the world outside are in this process.

Only the outermost things are stood in for: two chains and a price vendor that say what a test tells them to. All
between them and the tables is what `moonxd serve` runs. Time is trio's, so that a test about minutes takes none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec
import trio

from moonxd.adapters.memory.cache import MemoryCache
from moonxd.adapters.memory.ledger import MemoryLedger
from moonxd.adapters.memory.queue import MemoryQueue
from moonxd.agents.stalled import run_stalled_checker
from moonxd.domain.address import NATIVE
from moonxd.domain.chain import CHAINS, Chain
from moonxd.domain.errors import Transient
from moonxd.domain.job import Backoff, Completed, Failed, Job, JobOptions, NewJob, Outcome
from moonxd.domain.ledger import Portfolio
from moonxd.domain.token import ChainSnapshot, Price, TokenBalance, TokenMeta, TokenRef
from moonxd.jobs import Env
from moonxd.telemetry import Telemetry, outcome_word
from moonxd.worker.attempt import Attempts, Policy
from moonxd.worker.consumer import Consumer
from moonxd.worker.leases import LeaseKeeper
from moonxd.worker.pricing import PriceBook

ALICE = "0x" + "a1" * 20
BOB = "0x" + "b0" * 20
#: A token with six decimals, on whatever chain.
USDC = "0x" + "cc" * 20
#: Seconds that a job's lock and a wallet's lease last.
LOCK_S = 30.0
#: No test of this room waits longer, on a clock that jumps over all waiting.
PATIENCE_S = 3600.0


class Chainlet:
    """A chain on which every wallet holds `holds`; it is away while `trouble` is set, slow by `takes_s`."""

    def __init__(self, chain_id: int, holds: Mapping[str, int]) -> None:
        self._chain = CHAINS[chain_id]
        self.holds = dict(holds)
        self.trouble: Exception | None = None
        self.takes_s = 0.1
        self.reads = 0

    @property
    def chain(self) -> Chain:
        return self._chain

    async def read(self, wallet: str, seen: Sequence[str], *, refresh_metadata: bool = False) -> ChainSnapshot:
        self.reads += 1
        await trio.sleep(self.takes_s)
        if self.trouble is not None:
            raise self.trouble
        return ChainSnapshot(
            chain_id=self._chain.id,
            block_low=100,
            block_high=100,
            balances=tuple(self._balance(address, raw) for address, raw in self.holds.items() if raw),
            source="multicall",
            discovers=False,
        )

    def _balance(self, address: str, raw: int) -> TokenBalance:
        coin = TokenMeta(self._chain.symbol, self._chain.coin_name, self._chain.coin_decimals)
        meta = coin if address == NATIVE else TokenMeta("USDC", "USD Coin", 6)
        return TokenBalance(TokenRef(self._chain.id, address), raw, meta, verified=True)


class Market:
    """A price vendor: what is not in `usd` it does not know; it is away while not `open`, slow by `takes_s`."""

    name = "market"
    most: int | None = None

    def __init__(self) -> None:
        self.usd: dict[str, str] = {NATIVE: "2000", USDC: "1"}
        self.open = True
        self.takes_s = 0.0

    async def prices(self, tokens: Sequence[TokenRef]) -> Mapping[TokenRef, Price]:
        await trio.sleep(self.takes_s)
        if not self.open:
            raise Transient("the market is closed")
        return {
            token: Price(Decimal(self.usd[token.address]), self.name, 0.99, 0.0)
            for token in tokens
            if token.address in self.usd
        }


class House:
    """One worker and what it stands on. `neighbour()` is a second worker on the same queue and ledger."""

    def __init__(self, nursery: trio.Nursery, *, slots: int = 3) -> None:
        self._nursery = nursery
        self.queue = MemoryQueue("sync-jobs", lock_ms=int(LOCK_S * 1000), defaults=JobOptions(attempts=3))
        self.ledger = MemoryLedger(self.queue)
        self.ethereum = Chainlet(1, {NATIVE: 3 * 10**18, USDC: 250_000_000})
        self.base = Chainlet(8453, {USDC: 100_000_000})
        self.market = Market()
        self.slots = slots
        self._move_in()

    def neighbour(self) -> House:
        other = object.__new__(House)
        other.__dict__.update(self.__dict__)
        other.queue = self.queue.other_worker()
        other._move_in()
        return other

    def _move_in(self) -> None:
        self.telemetry = Telemetry()
        self.leases = LeaseKeeper(self.ledger, lease_s=LOCK_S)
        self.outcomes: dict[str, list[Outcome | None]] = {}
        self._news = trio.Event()
        prices = PriceBook([self.market], MemoryCache(), ttl_s=60)
        env = Env(readers={1: self.ethereum, 8453: self.base}, prices=prices.lookup)
        self.attempts = Attempts(
            ledger=self.ledger,
            leases=self.leases,
            env=lambda: env,
            clock=self.queue,
            policy=Policy(worker_id="house", version="1", backoff=Backoff("exponential", 5000)),
            rand=lambda: 0.5,
            step=self.telemetry.job_step,
            cancelled=lambda job_id: self.consumer.is_cancelled(job_id),
        )
        self.consumer = Consumer(
            self.queue,
            self.attempts,
            slots=self.slots,
            lock_s=LOCK_S,
            doomed=self.attempts.doomed,
            on_started=lambda job: self.telemetry.job_started(job.id, job.name, job.attempts_made + 1),
            on_settled=self._settled,
            now=self.queue.now,
            rand=lambda: 0.5,
        )

    def _settled(self, job: Job, outcome: Outcome | None, _seconds: float) -> None:
        self.telemetry.job_settled(job.id, *outcome_word(outcome))
        self.outcomes.setdefault(job.id, []).append(outcome)
        news, self._news = self._news, trio.Event()
        news.set()

    # ---- what a test does

    def work(self) -> None:
        """From now on jobs are taken, renewed, and brought back when another worker dies."""
        self._nursery.start_soon(self.consumer.run)
        self._nursery.start_soon(self.leases.run, lambda: None)
        self._nursery.start_soon(partial(run_stalled_checker, self.queue, interval_s=LOCK_S, rand=lambda: 0.5))

    async def enqueue(self, wallet: str = ALICE, user: str = "alice", **payload: Any) -> str:
        """What a producer does; the job's id."""
        return await self.enqueue_raw({"userId": user, "walletAddress": wallet, **payload})

    async def enqueue_raw(self, data: Any, name: str = "portfolio-sync") -> str:
        (job_id,) = await self.queue.add([NewJob(name=name, data=data)])
        return job_id

    async def ended(self, job_id: str) -> Completed | Failed:
        """How the job ended for good, once it has."""
        outcome: Completed | Failed = await self._until(job_id, (Completed, Failed))
        return outcome

    async def settled(self, job_id: str) -> Outcome | None:
        """The next thing that becomes of the job here, or has already."""
        outcome: Outcome | None = await self._until(job_id, (object,))
        return outcome

    async def _until(self, job_id: str, kinds: tuple[type, ...]) -> Any:
        with trio.fail_after(PATIENCE_S):
            while not (found := [one for one in self.outcomes.get(job_id, ()) if isinstance(one, kinds)]):
                await self._news.wait()
        return found[-1]

    async def sync(self, wallet: str = ALICE, user: str = "alice", **payload: Any) -> dict[str, Any]:
        """Enqueue, wait, and give the return value of a job that must succeed."""
        outcome = await self.ended(await self.enqueue(wallet, user, **payload))
        assert isinstance(outcome, Completed), outcome
        value: dict[str, Any] = msgspec.json.decode(outcome.value)
        return value

    async def holdings(self, wallet: str = ALICE) -> dict[tuple[str, str | None], Decimal | None]:
        """Amounts by chain and symbol, as the ledger has them."""
        portfolio = await self.portfolio(wallet)
        return {(CHAINS[row.chain_id].slug, row.symbol): row.amount for row in portfolio.holdings}

    async def portfolio(self, wallet: str = ALICE) -> Portfolio:
        (found,) = await self.ledger.portfolio(wallet)
        return found

    async def events(self) -> list[str]:
        """Types of all committed events, in commit order."""
        return [stored.event.type for stored in await self.ledger.read(0, 1000)]

    @contextmanager
    def outage(self, *chains: Chainlet) -> Iterator[None]:
        for chain in chains:
            chain.trouble = Transient(f"{chain.chain.slug} does not answer")
        yield
        for chain in chains:
            chain.trouble = None
