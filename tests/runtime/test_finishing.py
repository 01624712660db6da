"""Jobs that end together share a call: nobody's reply is lost or swapped, whoever is cancelled meanwhile."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from moonxd.adapters.bullmq.finishing import MAX_BATCH, MAX_FLYING, Ending, Finisher
from moonxd.adapters.redis.errors import RedisUnavailable


class FakeCalls:
    """Takes a moment per call; the reply to a job is its own key. Every third call breaks when told to."""

    def __init__(self, rand: random.Random, *, breaking: bool = False) -> None:
        self.sizes: list[int] = []
        self.sent: list[str] = []
        self.flying = self.most_flying = 0
        self._rand = rand
        self._breaking = breaking

    async def __call__(self, batch: Sequence[Ending]) -> list[Any]:
        self.sizes.append(len(batch))
        self.sent += [ending.key for ending in batch]
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        await trio.sleep(self._rand.choice([0.0, 0.0001, 0.001, 0.01]))
        self.flying -= 1
        if self._breaking and len(self.sizes) % 3 == 0:
            raise RedisUnavailable("cut", maybe_executed=True)
        return [ending.key for ending in batch]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("breaking", [False, True])
async def test_everybody_gets_an_answer_of_their_own(autojump_clock: MockClock, seed: int, breaking: bool) -> None:
    rand = random.Random(seed)
    calls = FakeCalls(rand, breaking=breaking)
    finisher = Finisher(calls)
    answered: list[str] = []
    cancelled: list[str] = []

    async def slot(number: int) -> None:
        for turn in range(rand.randrange(1, 30)):
            key = f"{number}:{turn}"
            with trio.move_on_after(rand.choice([0.0, 0.0001, 0.005, 60.0, 60.0, 60.0])):
                try:
                    assert await finisher.submit(Ending(key, ())) == key
                except RedisUnavailable:
                    assert breaking
                answered.append(key)
                continue
            cancelled.append(key)
            if rand.random() < 0.3:
                await trio.sleep(rand.random() / 100)

    with trio.fail_after(3600):
        async with trio.open_nursery() as nursery:
            for number in range(rand.choice([1, 2, 10, 50, 100])):
                nursery.start_soon(slot, number)
    assert len(calls.sent) == len(set(calls.sent)), "no job is ended twice"
    assert set(calls.sent) >= set(answered), "who was answered was sent"
    assert not set(calls.sent) & set(cancelled), "who was told of a cancellation was not sent"
    assert max(calls.sizes, default=0) <= MAX_BATCH
    assert calls.most_flying <= MAX_FLYING
    assert calls.flying == 0


async def test_a_lone_job_waits_for_nobody_and_a_crowd_goes_in_halves(autojump_clock: MockClock) -> None:
    calls = FakeCalls(random.Random(1))
    finisher = Finisher(calls)
    assert await finisher.submit(Ending("lone", ())) == "lone"
    assert calls.sizes == [1]

    async def slot(number: int) -> None:
        for turn in range(200):
            await finisher.submit(Ending(f"{number}:{turn}", ()))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(slot, number)
    assert 4000 / len(calls.sizes[1:]) > 5, "batches, not single jobs"
    assert calls.most_flying == 2
