"""What cannot be done fails at once, with a sentence that helps, and the queue goes on."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from moonxd.domain.job import Completed, Failed

from .house import ALICE, BOB, House

MIXED_CASE = "0x00000000219AB540356cBB839Cbe05303d7705Fa"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"userId": "alice", "walletAddress": "0x12"}, "has 2 hex digits after 0x, an EVM address has 40"),
        ({"userId": "alice", "walletAddress": MIXED_CASE}, "has a wrong EIP-55 checksum"),
        ({"walletAddress": ALICE}, "the payload has no userId"),
        ({"userId": "alice"}, "the payload has no walletAddress"),
        ({"userId": "alice", "walletAddress": ALICE, "chainIds": [5]}, "unknown chain 5: use one of 1 (ethereum)"),
        ({"userId": "alice", "walletAddress": ALICE, "chainIds": [56]}, "chain 56 (bsc) is not enabled here"),
        ({"userId": "alice", "walletAddress": ALICE, "syncType": "trades"}, "trades is not supported"),
        (["alice", ALICE], "the payload must be a JSON object"),
        ({"userId": "alice", "walletAddress": ALICE, "junk": "x" * 1_000_001}, "at most 1000000 are accepted"),
    ],
)
async def test_it_fails_once_and_says_why(clock: MockClock, house: House, data: Any, says: str) -> None:
    bad = await house.enqueue_raw(data)
    good = await house.enqueue(BOB, "bob")

    outcome = await house.ended(bad)
    assert isinstance(outcome, Failed)
    assert says in outcome.reason
    assert len(house.outcomes[bad]) == 1, "trying again would change nothing"
    assert isinstance(await house.ended(good), Completed)


async def test_an_unknown_job_name_is_refused_by_name(clock: MockClock, house: House) -> None:
    outcome = await house.ended(await house.enqueue_raw({}, name="make-coffee"))
    assert isinstance(outcome, Failed)
    handled = "portfolio-sync, sync-job, bulk-sync, chain-sync, token-metadata"
    assert outcome.reason == f"unknown job type 'make-coffee': this worker handles {handled}"


async def test_a_dead_letter_keeps_what_the_producer_wrote(clock: MockClock, house: House) -> None:
    bad = await house.enqueue_raw({"userId": "alice", "walletAddress": "0x12", "note": "kept"})
    await house.ended(bad)
    letter = await house.ledger.letter("sync-jobs", bad)
    assert letter is not None
    assert b'"note":"kept"' in letter.data


async def test_unknown_fields_are_kept_not_refused(clock: MockClock, house: House) -> None:
    await house.sync(campaign="spring")
    (operation,) = await house.ledger.operations(wallet=ALICE)
    assert operation.metadata["campaign"] == "spring"
