"""What could not be read is not gone. A chain that failed keeps its last good rows and is named."""

from __future__ import annotations

from trio.testing import MockClock

from moonxd.domain.errors import Transient
from moonxd.domain.job import Completed, Failed, Retry

from .house import ALICE, House


async def test_one_chain_away(clock: MockClock, house: House) -> None:
    await house.sync()
    before = await house.holdings()

    with house.outage(house.base):
        result = await house.sync()

    assert result["chainsFailed"] == [{"chainId": 8453, "error": "base does not answer"}]
    assert await house.holdings() == before
    assert result["totalValueUsd"] == 6350, "the rows that stayed count as before"


async def test_a_chain_that_hangs_is_given_up_and_the_others_are_kept(clock: MockClock, house: House) -> None:
    house.base.takes_s = 900.0
    result = await house.sync()
    assert result["chainsFailed"] == [{"chainId": 8453, "error": "no answer within 30 s"}]
    assert {chain for chain, _ in await house.holdings()} == {"ethereum"}


async def test_all_chains_away_is_a_failure_that_is_tried_again(clock: MockClock, house: House) -> None:
    await house.sync()
    before = await house.holdings()

    with house.outage(house.ethereum, house.base):
        job_id = await house.enqueue()
        outcome = await house.settled(job_id)
        assert isinstance(outcome, Retry)
        assert outcome.delay_ms == 5000
        assert await house.holdings() == before

    assert isinstance(await house.ended(job_id), Completed), "the next attempt finds them back"


async def test_no_attempt_is_spent_while_every_breaker_is_open(clock: MockClock, house: House) -> None:
    """The soonest chain that may be asked again decides; one that says nothing is worth the usual backoff."""
    with house.outage(house.ethereum, house.base):
        house.ethereum.trouble = Transient("its breaker is open", retry_after=40.0)
        house.base.trouble = Transient("its breaker is open", retry_after=25.0)
        outcome = await house.settled(await house.enqueue())
        assert isinstance(outcome, Retry)
        assert outcome.delay_ms == 25_000

        house.base.trouble = Transient("base does not answer")
        outcome = await house.settled(await house.enqueue(user="bob"))
        assert isinstance(outcome, Retry)
        assert outcome.delay_ms == 5000


async def test_an_outage_that_outlives_all_attempts_is_a_dead_letter(clock: MockClock, house: House) -> None:
    with house.outage(house.ethereum, house.base):
        job_id = await house.enqueue()
        outcome = await house.ended(job_id)

    assert isinstance(outcome, Failed)
    assert outcome.reason == "no chain could be read (ethereum: ethereum does not answer; base: base does not answer)"
    assert [type(one) for one in house.outcomes[job_id]] == [Retry, Retry, Failed]
    letter = await house.ledger.letter("sync-jobs", job_id)
    assert letter is not None
    assert (letter.wallet, letter.attempts_made) == (ALICE, 3)

    # An operator puts it back once the chains are: nothing of the payload was lost.
    house.outcomes.clear()
    assert await house.queue.requeue([job_id]) == (job_id,)
    assert isinstance(await house.ended(job_id), Completed)
