"""Jobs about many wallets and about none, on the memory ledger and readers that answer as told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from moonxd.domain.errors import Transient
from moonxd.domain.job import Backoff, Completed, Failed, Job, JobOptions, Outcome, Postpone, Retry
from moonxd.domain.token import ChainSnapshot, TokenMeta
from moonxd.jobs import Terms
from moonxd.worker.handler import Handler, on_terms
from tests.runtime.test_attempt import TOKEN, Chainlet, World

WALLETS = [f"0x{number:040x}" for number in range(1, 8)]


class Sharing(Chainlet):
    """A chain that reads many wallets at once; `bad` wallets make the whole read fail, as a bad endpoint would."""

    def __init__(self, chain_id: int, answer: Any) -> None:
        super().__init__(chain_id, answer)
        self.shared: list[list[str]] = []
        self.told = TokenMeta("NEW", "New name", 9)

    async def read_many(
        self, wallets: Sequence[tuple[str, Sequence[str]]], *, refresh_metadata: bool = False
    ) -> tuple[ChainSnapshot, ...]:
        self.shared.append(sorted(wallet for wallet, _ in wallets))
        return tuple([await self.read(wallet, seen) for wallet, seen in wallets])

    async def describe(self, tokens: Sequence[str]) -> dict[str, TokenMeta]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return dict.fromkeys(tokens, self.told)


class Bulk(World):
    """A world whose handler takes every type of job."""

    def __init__(self) -> None:
        super().__init__()
        self.ethereum = Sharing(1, {TOKEN: 2_000_000})
        self.told: list[Any] = []
        self.terms: dict[str, Terms] = {}
        self.serve()

    def serve(self, slots: int = 10, page: int = 3) -> None:
        self.attempts = self.handler(self.ledger, terms=self.terms)
        self.all = Handler(self.attempts, slots=slots, page=page, progress=self.progress)

    async def progress(self, job: Job, value: Any) -> None:
        self.told.append(value)

    async def run_job(self, name: str, made: int = 0, job_id: str = "b1", **payload: Any) -> Outcome:
        return await self.all(job_of(name, made, job_id, **payload))


def job_of(name: str, made: int = 0, job_id: str = "b1", **payload: Any) -> Job:
    return Job(
        queue="sync-jobs", id=job_id, name=name, data=msgspec.json.encode(payload), options=JobOptions(attempts=3),
        timestamp=1, attempts_made=made, token="t",
    )  # fmt: skip


def value_of(outcome: Outcome) -> Any:
    assert isinstance(outcome, Completed), outcome
    return msgspec.json.decode(outcome.value)


@pytest.fixture
def bulk() -> Bulk:
    return Bulk()


async def test_a_bulk_job_syncs_every_wallet_and_says_what_became_of_each(
    autojump_clock: MockClock, bulk: Bulk
) -> None:
    users = [{"userId": f"u{place}", "walletAddress": wallet} for place, wallet in enumerate(WALLETS)]
    value = value_of(await bulk.run_job("bulk-sync", users=[*users, {"userId": "u9", "walletAddress": "0x12"}]))
    assert (value["success"], value["total"], value["succeeded"], value["failed"]) == (True, 8, 7, 1)
    assert [row["userId"] for row in value["results"]] == [*(f"u{place}" for place in range(7)), "u9"]
    assert {row["status"] for row in value["results"][:7]} == {"completed"}
    assert value["results"][0]["totalValueUsd"] == 10
    assert "2 hex digits" in value["results"][7]["error"]
    assert [told["done"] for told in bulk.told] == [4, 7, 8], "after every page, the unusable entry from the start"
    assert bulk.told[-1] == {"done": 8, "total": 8, "failed": 1, "percent": 100}
    operations = await bulk.ledger.operations()
    assert {row.status for row in operations} == {"completed"}
    assert len(operations) == 7
    assert operations[0].metadata["metadata"]["trigger"] == "bulk", "it does not count against its user"


async def test_what_is_done_is_not_done_again_by_the_next_attempt(autojump_clock: MockClock, bulk: Bulk) -> None:
    payload = {"userId": "u1", "wallets": WALLETS}
    reads = 0

    async def stubborn(wallet: str, seen: Sequence[str], *, refresh_metadata: bool = False) -> ChainSnapshot:
        nonlocal reads
        reads += 1
        if wallet == WALLETS[2] and bulk.ethereum.answer == "down":
            raise Transient("this one not")
        return await Chainlet(1, {TOKEN: 1_000_000}).read(wallet, seen)

    bulk.ethereum.read = stubborn  # type: ignore[method-assign]
    bulk.ethereum.answer = "down"
    outcome = await bulk.run_job("bulk-sync", chainIds=[1], **payload)
    assert isinstance(outcome, Retry)
    assert "1 of 7 wallets are not synced yet: no chain could be read" in outcome.reason
    assert reads == 7
    last = value_of(await bulk.run_job("bulk-sync", made=2, chainIds=[1], **payload))
    assert reads == 8, "six answered from the ledger"
    assert (last["succeeded"], last["failed"]) == (6, 1)
    bulk.ethereum.answer = "up"
    assert value_of(await bulk.run_job("bulk-sync", job_id="b2", chainIds=[1], **payload))["succeeded"] == 7


async def test_nothing_worked(autojump_clock: MockClock, bulk: Bulk) -> None:
    bulk.ethereum.answer = bulk.base.answer = Transient("down")
    first = await bulk.run_job("bulk-sync", userId="u1", wallets=WALLETS[:2])
    assert isinstance(first, Retry)
    last = await bulk.run_job("bulk-sync", made=2, userId="u1", wallets=WALLETS[:2])
    assert isinstance(last, Failed)
    assert "none of 2 wallets could be synced: no chain could be read (ethereum: down; base: down)" in last.reason
    (letter,) = await bulk.ledger.letters("sync-jobs")
    assert (letter.job_id, letter.name) == ("b1", "bulk-sync"), "the whole job is the dead letter, not its wallets"
    refused = await bulk.run_job("bulk-sync", wallets=[])
    assert isinstance(refused, Failed)
    assert "at least one entry" in refused.reason


async def test_a_chain_job_reads_a_page_at_once(autojump_clock: MockClock, bulk: Bulk) -> None:
    value = value_of(await bulk.run_job("chain-sync", chainId="ethereum", userId="u1", wallets=WALLETS))
    assert value["succeeded"] == 7
    assert [len(page) for page in bulk.ethereum.shared] == [3, 3, 1]
    assert bulk.base.reads == 0
    portfolios = [(await bulk.ledger.portfolio(wallet))[0] for wallet in WALLETS]
    assert all(portfolio.total_value_usd == 4 for portfolio in portfolios)


async def test_a_wallet_that_is_busy_does_not_hold_up_its_page(autojump_clock: MockClock, bulk: Bulk) -> None:
    bulk.base.answer = 50.0
    async with trio.open_nursery() as nursery:
        single = {"userId": "u1", "walletAddress": WALLETS[1], "chainIds": [8453]}
        nursery.start_soon(bulk.attempts, job_of("portfolio-sync", job_id="s1", **single))
        await trio.testing.wait_all_tasks_blocked()
        outcome = await bulk.run_job("chain-sync", chainId=1, userId="u1", wallets=WALLETS[:3])
        assert isinstance(outcome, Retry)
        assert "another job works on this wallet" in outcome.reason
        assert bulk.ethereum.shared == [[WALLETS[0], WALLETS[2]]]
        nursery.cancel_scope.cancel()
    again = value_of(await bulk.run_job("chain-sync", made=1, chainId=1, userId="u1", wallets=WALLETS[:3]))
    assert again["succeeded"] == 3
    assert bulk.ethereum.shared[1:] == [[WALLETS[1]]]


async def test_a_cancelled_bulk_job_closes_every_wallet_it_had_begun(autojump_clock: MockClock, bulk: Bulk) -> None:
    bulk.ethereum.answer = bulk.base.answer = 1000.0
    bulk.cancelled = True
    with trio.move_on_after(5):
        await bulk.run_job("chain-sync", chainId=1, userId="u1", wallets=WALLETS)
    operations = await bulk.ledger.operations()
    assert [row.status for row in operations] == ["cancelled"] * 3, "the first page"
    bulk.cancelled, bulk.ethereum.answer = False, {TOKEN: 1}
    fresh = await bulk.run_job("chain-sync", job_id="b2", chainId=1, userId="u1", wallets=WALLETS)
    assert value_of(fresh)["succeeded"] == 7, "no lease was left behind"


async def test_a_drained_bulk_job_counts_no_attempt(autojump_clock: MockClock, bulk: Bulk) -> None:
    bulk.ethereum.answer = 1000.0
    with trio.move_on_after(5):
        await bulk.run_job("chain-sync", chainId=1, userId="u1", wallets=WALLETS[:2])
    operations = await bulk.ledger.operations()
    assert [(row.status, row.retry_count) for row in operations] == [("pending", 0)] * 2


async def test_a_type_has_its_own_timeout_attempts_and_backoff(autojump_clock: MockClock, bulk: Bulk) -> None:
    bulk.terms = {"chain-sync": Terms(timeout_s=7, attempts=2, backoff=Backoff("fixed", 123))}
    bulk.serve()
    bulk.ethereum.answer = 10.0
    began = trio.current_time()
    job = msgspec.structs.replace(
        job_of("chain-sync", chainId=1, userId="u1", wallets=WALLETS[:1]),
        options=JobOptions(attempts=5, backoff=Backoff("fixed", 9)),
    )
    assert await bulk.all(job) == Retry(123, "the job took longer than 7 s and was stopped")
    assert trio.current_time() - began == pytest.approx(7)
    assert isinstance(await bulk.all(msgspec.structs.replace(job, attempts_made=1)), Failed), "two, by its terms"
    said = JobOptions(attempts=5, backoff=Backoff("fixed", 9), raw={"attempts": 5, "backoff": 9})
    told = msgspec.structs.replace(job, options=said)
    assert on_terms(told, bulk.terms["chain-sync"]) is told, "the producer's word wins"


async def test_a_type_holds_its_share_of_the_slots_and_no_more(autojump_clock: MockClock, bulk: Bulk) -> None:
    bulk.terms = {"chain-sync": Terms(share=0.2)}
    bulk.serve(slots=10)
    bulk.ethereum.answer = 5.0
    outcomes: dict[str, Outcome] = {}

    async def one(number: int) -> None:
        outcomes[f"b{number}"] = await bulk.run_job(
            "chain-sync", job_id=f"b{number}", chainId=1, userId="u1", wallets=[WALLETS[number]]
        )

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(one, number)
    put_off = [outcome for outcome in outcomes.values() if isinstance(outcome, Postpone)]
    assert len(put_off) == 4
    assert len({outcome.until_ms for outcome in put_off}) == 2, "those behind more others wait longer"
    assert bulk.all.shares.running("chain-sync") == 0
    assert isinstance(await bulk.run_job("chain-sync", job_id="b0", chainId=1, userId="u1", wallets=WALLETS), Completed)


async def test_token_metadata_is_asked_anew(autojump_clock: MockClock, bulk: Bulk) -> None:
    value = value_of(await bulk.run_job("token-metadata", chainId=1, tokens=[TOKEN, TOKEN]))
    assert value["tokens"] == [{"chainId": 1, "address": TOKEN, "symbol": "NEW", "name": "New name", "decimals": 9}]
    assert (value["total"], value["refreshed"], value["jobId"]) == (1, 1, "b1")
    bulk.ethereum.answer = Transient("down")
    assert isinstance(await bulk.run_job("token-metadata", chainId=1, tokens=[TOKEN]), Retry)
    for payload, why in (
        ({"chainId": 137, "tokens": [TOKEN]}, "not enabled here"),
        ({"chainId": 8453, "tokens": [TOKEN]}, "does not describe tokens"),
        ({"chainId": 1, "tokens": ["0x12"]}, "tokens[0].address"),
        ({"tokens": [TOKEN]}, "exactly one chain"),
    ):
        refused = await bulk.run_job("token-metadata", **payload)
        assert isinstance(refused, Failed)
        assert why in refused.reason


async def test_a_ledger_that_is_away_costs_no_attempt(autojump_clock: MockClock, bulk: Bulk) -> None:
    async def away(ask: Any) -> Any:
        raise Transient("gone")

    bulk.ledger.admit = away  # type: ignore[method-assign]
    outcome = await bulk.run_job("chain-sync", chainId=1, userId="u1", wallets=WALLETS)
    assert isinstance(outcome, Postpone)
