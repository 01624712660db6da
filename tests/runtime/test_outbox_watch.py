"""When the outbox calls for help, and when it says that it is over."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from moonxd.agents.outbox import LOOK_S, OutboxWatch, Rule
from moonxd.domain.errors import Transient
from moonxd.domain.ledger import Backlog


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


class Outside:
    """A publication whose backlog is what the test says."""

    def __init__(self) -> None:
        self.count = 0
        self.since = 0.0
        self.why: str | None = None
        self.is_away = False

    def hold(self) -> Any:
        raise AssertionError("the watch holds nothing")

    async def backlog(self) -> Backlog:
        await trio.lowlevel.checkpoint()
        if self.is_away:
            raise Transient("the database is away")
        return Backlog(count=self.count, age_s=trio.current_time() - self.since if self.count else 0.0)

    async def holdup(self, longer_s: float) -> str | None:
        await trio.lowlevel.checkpoint()
        return self.why


class Scene:
    def __init__(self) -> None:
        self.outside = Outside()
        self.is_ours = True
        self.told: list[tuple[str, bool]] = []
        self.shown: list[Backlog] = []
        self.watch = OutboxWatch(
            self.outside,
            Rule(lag_s=60.0, transaction_s=300.0),
            is_ours=lambda: self.is_ours,
            notify=lambda kind, _text, _severity, more: self.told.append((kind, more["raised"])),
            show=self.shown.append,
        )

    async def pass_time(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self.watch.run(lambda: None)


async def test_lag_is_told_once_and_again_when_over(autojump_clock: MockClock) -> None:
    scene = Scene()
    await scene.pass_time(20)
    scene.outside.count, scene.outside.since = 7, trio.current_time()
    await scene.pass_time(55)
    assert scene.told == []
    await scene.pass_time(200)
    assert scene.told == [("outbox_lag", True)]
    scene.outside.since = trio.current_time() - 40
    await scene.pass_time(LOOK_S)
    assert scene.told == [("outbox_lag", True)]
    scene.outside.count = 0
    await scene.pass_time(20)
    assert scene.told == [("outbox_lag", True), ("outbox_lag", False)]
    assert scene.shown[-1] == Backlog(count=0)
    assert max(one.age_s for one in scene.shown) > 200


async def test_a_long_transaction_is_told_once_and_again_when_over(autojump_clock: MockClock) -> None:
    scene = Scene()
    scene.outside.why = "a transaction of pid 7 is open for 400 s"
    await scene.pass_time(60)
    scene.outside.why = "a transaction of pid 7 is open for 460 s"
    await scene.pass_time(60)
    scene.outside.why = None
    await scene.pass_time(60)
    assert scene.told == [("outbox_held_up", True), ("outbox_held_up", False)]


async def test_who_does_not_answer_for_the_outbox_only_measures(autojump_clock: MockClock) -> None:
    scene = Scene()
    scene.is_ours = False
    scene.outside.count, scene.outside.why = 3, "a transaction"
    await scene.pass_time(300)
    assert scene.told == []
    assert scene.shown[-1].count == 3
    scene.is_ours = True
    await scene.pass_time(LOOK_S + 1)
    assert scene.told == [("outbox_lag", True), ("outbox_held_up", True)]


async def test_a_ledger_that_is_away_changes_nothing(autojump_clock: MockClock) -> None:
    scene = Scene()
    scene.outside.is_away = True
    await scene.pass_time(300)
    assert scene.watch.standing is None
    assert scene.told == []
