"""One attempt from payload to outcome, on the memory ledger and readers that answer as told."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from moonxd.adapters.memory.ledger import MemoryLedger
from moonxd.domain.chain import CHAINS, Chain
from moonxd.domain.errors import LeaseLost, Permanent, Transient
from moonxd.domain.job import Backoff, Completed, Failed, Job, JobOptions, Outcome, Postpone, Retry
from moonxd.domain.ledger import Commit
from moonxd.domain.portfolio import PriceLookup
from moonxd.domain.token import ChainSnapshot, Price, TokenBalance, TokenMeta, TokenRef
from moonxd.jobs import Env
from moonxd.worker.attempt import Attempts, Policy
from moonxd.worker.leases import LeaseKeeper

WALLET = "0x" + "ab" * 20
TOKEN = "0x" + "11" * 20
LEASE_S = 30.0


class TrioClock:
    """Wall time that follows the simulated clock."""

    def now(self) -> float:
        return 1_700_000_000 + trio.current_time()


class Chainlet:
    """A chain whose answer is whatever stands in `answer`: balances by address, an error, or a number of seconds."""

    def __init__(self, chain_id: int, answer: Any) -> None:
        self._chain = CHAINS[chain_id]
        self.answer = answer
        self.reads = 0

    @property
    def chain(self) -> Chain:
        return self._chain

    async def read(self, wallet: str, seen: Sequence[str], *, refresh_metadata: bool = False) -> ChainSnapshot:
        self.reads += 1
        if isinstance(self.answer, float):
            await trio.sleep(self.answer)
        if isinstance(self.answer, Exception):
            raise self.answer
        held = self.answer if isinstance(self.answer, dict) else {}
        balances = tuple(
            TokenBalance(TokenRef(self._chain.id, address), raw, TokenMeta("TOK", "Token", 6), verified=True)
            for address, raw in held.items()
        )
        return ChainSnapshot(
            chain_id=self._chain.id, block_low=7, block_high=7, balances=balances, source="multicall", discovers=False
        )


#: How the story of a sync begins that somebody asked for.
BEGUN = ["sync.queued", "user.activity", "sync.started"]


class World:
    """Everything an attempt needs, with two chains."""

    def __init__(self) -> None:
        self.clock = TrioClock()
        self.ledger = MemoryLedger(self.clock)
        self.leases = LeaseKeeper(self.ledger, lease_s=LEASE_S)
        self.ethereum = Chainlet(1, {TOKEN: 2_000_000})
        self.base = Chainlet(8453, {TOKEN: 3_000_000})
        self.steps: list[str] = []
        self.cancelled = False
        self.seen: list[tuple[str, str]] = []
        self.attempts = self.handler(self.ledger)

    def handler(self, ledger: Any, **policy: Any) -> Attempts:
        env = Env(readers={1: self.ethereum, 8453: self.base}, prices=self.prices, chain_timeout_s=20)
        return Attempts(
            ledger=ledger,
            leases=self.leases,
            env=lambda: env,
            clock=self.clock,
            policy=Policy(worker_id="w1", version="0", backoff=Backoff(delay=100), **policy),
            rand=lambda: 0.5,
            step=lambda job_id, step, **who: self.steps.append(step),
            cancelled=lambda job_id: self.cancelled,
            seen=lambda user, wallet: self.seen.append((user, wallet)),
        )

    async def prices(self, tokens: Sequence[TokenRef]) -> PriceLookup:
        return PriceLookup({token: Price(Decimal(2), "llama", 0.99, 0.0) for token in tokens})

    async def run(self, job: Job | None = None) -> Outcome:
        return await self.attempts(job or make_job())

    async def status(self) -> str:
        (operation, *_) = await self.ledger.operations(wallet=WALLET)
        return operation.status

    async def event_types(self) -> list[str]:
        return [stored.event.type for stored in await self.ledger.read(0, 100)]


def make_job(job_id: str = "1", made: int = 0, name: str = "portfolio-sync", **payload: Any) -> Job:
    data = msgspec.json.encode({"userId": "u1", "walletAddress": WALLET, **payload})
    return Job(
        queue="sync-jobs", id=job_id, name=name, data=data, options=JobOptions(attempts=3), timestamp=1,
        attempts_made=made, token="t",
    )  # fmt: skip


@pytest.fixture
def world() -> World:
    return World()


async def test_a_sync_writes_everything_and_returns_the_contracts_value(
    autojump_clock: MockClock, world: World
) -> None:
    outcome = await world.run()
    assert isinstance(outcome, Completed)
    value = msgspec.json.decode(outcome.value)
    assert value.pop("processingTime") >= 0
    assert value == {
        "success": True, "jobId": "1", "userId": "u1", "walletAddress": WALLET, "tokensSync": 2, "chainsSync": 2,
        "totalValueUsd": 10, "chainsFailed": [],
    }  # fmt: skip
    (portfolio,) = await world.ledger.portfolio(WALLET)
    assert portfolio.total_value_usd == 10
    assert [row.chain_id for row in portfolio.holdings] == [1, 8453]
    assert await world.status() == "completed"
    assert await world.event_types() == [*BEGUN, "sync.completed", "portfolio.updated"]
    assert world.steps == ["admit", "fetch", "price", "commit"]


async def test_what_somebody_asked_for_is_a_sign_of_life(autojump_clock: MockClock, world: World) -> None:
    await world.run()
    assert world.seen == [("u1", WALLET)]
    assert _snapshot_types(world) == {"sync"}


async def test_a_periodic_sync_is_no_sign_of_life(autojump_clock: MockClock, world: World) -> None:
    await world.run(make_job("periodic-1", metadata={"trigger": "periodic"}))
    assert world.seen == []
    assert "user.activity" not in await world.event_types()
    assert _snapshot_types(world) == {"scheduled"}


def _snapshot_types(world: World) -> set[str]:
    connection = world.ledger._runner._connection  # type: ignore[attr-defined]
    return {kind for (kind,) in connection.execute("SELECT snapshot_type FROM user_token_holdings_history")}


async def test_syncing_again_without_a_change_tells_nobody_of_an_update(
    autojump_clock: MockClock, world: World
) -> None:
    await world.run(make_job("1"))
    await world.run(make_job("2"))
    assert (await world.event_types())[5:] == [*BEGUN, "sync.completed"]


async def test_a_redelivered_job_is_answered_from_the_ledger(autojump_clock: MockClock, world: World) -> None:
    first = await world.run()
    again = await world.run()
    assert isinstance(first, Completed)
    assert isinstance(again, Completed)
    assert msgspec.json.decode(again.value) == msgspec.json.decode(first.value)
    assert world.ethereum.reads == 1, "nothing was read twice"
    assert len(await world.event_types()) == 5, "nothing was told twice"


async def test_a_failed_chain_keeps_its_rows_and_is_named(autojump_clock: MockClock, world: World) -> None:
    await world.run(make_job("1"))
    world.base.answer = Transient("base is away")
    world.ethereum.answer = {}
    outcome = await world.run(make_job("2"))
    assert isinstance(outcome, Completed)
    value = msgspec.json.decode(outcome.value)
    assert value["chainsFailed"] == [{"chainId": 8453, "error": "base is away"}]
    (portfolio,) = await world.ledger.portfolio(WALLET)
    assert [(row.chain_id, row.raw) for row in portfolio.holdings] == [(8453, 3_000_000)]


async def test_when_every_chain_fails_the_job_is_retried_then_dead(autojump_clock: MockClock, world: World) -> None:
    world.ethereum.answer = Transient("429", retry_after=1)
    world.base.answer = Permanent("wrong chain id")
    outcome = await world.run(make_job(made=0))
    assert isinstance(outcome, Retry)
    assert outcome.delay_ms == 1000, "as long as the one that asked for a rest wants"
    assert "ethereum: 429; base: wrong chain id" in outcome.reason
    assert await world.status() == "pending"
    outcome = await world.run(make_job(made=2))
    assert isinstance(outcome, Failed)
    assert await world.status() == "failed"
    assert await world.event_types() == [*BEGUN, "sync.retrying", "sync.started", "sync.failed"]
    letter = await world.ledger.letter("sync-jobs", "1")
    assert letter is not None
    assert (letter.user_id, letter.attempts_made) == ("u1", 3)
    assert (await world.ledger.portfolio(WALLET))[0].holdings == ()


async def test_a_hanging_chain_does_not_hold_up_the_others(autojump_clock: MockClock, world: World) -> None:
    world.base.answer = 1000.0
    outcome = await world.run()
    assert isinstance(outcome, Completed)
    assert trio.current_time() == pytest.approx(20)
    assert "no answer within 20 s" in str(msgspec.json.decode(outcome.value)["chainsFailed"])


@pytest.mark.parametrize(
    ("job", "says"),
    [
        (make_job(name="dance"), "unknown job type 'dance'"),
        (make_job(walletAddress="0x12"), "has 2 hex digits"),
        (make_job(chainIds=[5]), "unknown chain 5"),
    ],
)
async def test_bad_input_is_a_dead_letter_at_once(autojump_clock: MockClock, world: World, job: Job, says: str) -> None:
    outcome = await world.run(job)
    assert isinstance(outcome, Failed)
    assert says in outcome.reason
    letter = await world.ledger.letter("sync-jobs", "1")
    assert letter is not None
    assert letter.data == job.data


async def test_trades_are_recorded_as_unsupported(autojump_clock: MockClock, world: World) -> None:
    outcome = await world.run(make_job(syncType="trades"))
    assert isinstance(outcome, Failed)
    assert "trades is not supported" in outcome.reason
    (operation,) = await world.ledger.operations(wallet=WALLET)
    assert (operation.type, operation.status) == ("trades", "failed")


async def test_a_chain_that_is_not_enabled_here_is_refused_by_name(autojump_clock: MockClock, world: World) -> None:
    outcome = await world.run(make_job(chainIds=[56]))
    assert isinstance(outcome, Failed)
    assert "chain 56 (bsc) is not enabled here; enabled: ethereum, base" in outcome.reason


async def test_only_the_asked_chains_are_read(autojump_clock: MockClock, world: World) -> None:
    await world.run(make_job(chainIds=["8453"]))
    assert (world.ethereum.reads, world.base.reads) == (0, 1)


async def test_a_drain_hands_the_wallet_back(autojump_clock: MockClock, world: World) -> None:
    world.base.answer = 15.0
    with trio.move_on_after(5) as scope:
        await world.run()
    assert scope.cancelled_caught
    assert await world.status() == "pending"
    world.base.answer = {}
    assert isinstance(await world.run(), Completed), "another worker needs no lease to run out"


async def test_an_operators_cancel_is_final(autojump_clock: MockClock, world: World) -> None:
    world.cancelled = True
    world.base.answer = 15.0
    with trio.move_on_after(5):
        await world.run()
    assert await world.status() == "cancelled"
    assert (await world.event_types())[-1] == "sync.cancelled"


async def test_a_commit_that_has_begun_is_not_cut_short(autojump_clock: MockClock, world: World) -> None:
    began = trio.Event()
    write = world.ledger.commit

    async def slow(change: Commit) -> None:
        began.set()
        await trio.sleep(3)
        await write(change)

    world.ledger.commit = slow  # type: ignore[method-assign]
    world.cancelled = True
    outcomes: list[Outcome] = []
    async with trio.open_nursery() as nursery:

        async def attempt() -> None:
            outcomes.append(await world.run())

        nursery.start_soon(attempt)
        await began.wait()
        assert world.attempts.is_committing("1"), "an operator is told that it is too late"
        nursery.cancel_scope.cancel()
    assert [type(outcome) for outcome in outcomes] == [Completed]
    assert await world.status() == "completed"
    assert not world.attempts.is_committing("1")


async def test_a_wallet_that_is_being_synced_makes_the_second_job_wait(autojump_clock: MockClock, world: World) -> None:
    world.base.answer = 15.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, make_job("1"))
        await trio.sleep(1)
        outcome = await world.run(make_job("2"))
    assert isinstance(outcome, Postpone)
    assert 0 < outcome.until_ms / 1000 - 1_700_000_000 - 1 <= 2


async def test_an_attempt_whose_wallet_was_taken_over_writes_nothing(autojump_clock: MockClock, world: World) -> None:
    world.base.answer = 15.0
    lost = trio.Event()

    async def stale() -> None:
        with pytest.raises(LeaseLost):
            await world.run()
        lost.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stale)
        await trio.sleep(1)
        # The queue thought the first worker dead and delivered the same job again.
        world.base.answer = {TOKEN: 9}
        world.ethereum.answer = {}
        assert isinstance(await world.handler(world.ledger)(make_job()), Completed)
        await lost.wait()
    (portfolio,) = await world.ledger.portfolio(WALLET)
    assert [row.raw for row in portfolio.holdings] == [9]


async def test_renewal_keeps_a_long_sync_alive_and_notices_a_loss(autojump_clock: MockClock, world: World) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.leases.run, lambda: None)
        world.base.answer = 19.0
        world.ethereum.answer = 19.0
        assert isinstance(await world.run(), Completed)
        nursery.cancel_scope.cancel()


async def test_a_sync_that_takes_too_long_is_stopped_and_retried(autojump_clock: MockClock, world: World) -> None:
    world.base.answer = 15.0
    outcome = await world.handler(world.ledger, timeout_s=3)(make_job())
    assert isinstance(outcome, Retry)
    assert "longer than 3 s" in outcome.reason
    assert trio.current_time() == pytest.approx(3)


class AwayFor(MemoryLedger):
    """A ledger that is away for one of its sentences, before or (`after`) after writing it down."""

    def __init__(self, clock: TrioClock, sentence: str, *, after: bool = False) -> None:
        super().__init__(clock)
        self.sentence, self.after = sentence, after

    async def _say(self, sentence: str, argument: Any) -> Any:
        if self.sentence == sentence and not self.after:
            raise Transient("the database is away")
        result = await getattr(MemoryLedger, sentence)(self, argument)
        if self.sentence == sentence:
            raise Transient("the connection broke: outcome unknown")
        return result

    async def admit(self, ask: Any) -> Any:
        return await self._say("admit", ask)

    async def commit(self, change: Commit) -> None:
        await self._say("commit", change)


@pytest.mark.parametrize("sentence", ["admit", "commit"])
async def test_a_ledger_that_is_away_costs_the_job_no_attempt(
    autojump_clock: MockClock, world: World, sentence: str
) -> None:
    ledger = AwayFor(world.clock, sentence)
    world.leases = LeaseKeeper(ledger, lease_s=LEASE_S)
    outcome = await world.handler(ledger)(make_job())
    assert isinstance(outcome, Postpone)
    ledger.sentence = ""
    assert isinstance(await world.handler(ledger)(make_job()), Completed)


async def test_a_commit_of_unknown_outcome_is_not_repeated(autojump_clock: MockClock, world: World) -> None:
    ledger = AwayFor(world.clock, "commit", after=True)
    world.leases = LeaseKeeper(ledger, lease_s=LEASE_S)
    assert isinstance(await world.handler(ledger)(make_job()), Postpone)
    ledger.sentence = ""
    assert isinstance(await world.handler(ledger)(make_job()), Completed)
    assert world.ethereum.reads == 1
    assert [stored.event.type for stored in await ledger.read(0, 10)].count("sync.completed") == 1


async def test_a_surprise_is_retried_with_its_trace(autojump_clock: MockClock, world: World) -> None:
    world.base.answer = ZeroDivisionError("a bug")
    outcome = await world.run()
    assert isinstance(outcome, Retry)
    assert outcome.reason == "a bug"
    assert "ZeroDivisionError" in outcome.stack[0]
