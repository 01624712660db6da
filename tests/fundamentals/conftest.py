"""The house that every test of this room walks through."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from .house import House


@pytest.fixture
def clock() -> MockClock:
    """Jumps over all waiting. A test has to name it, then its run goes by it."""
    return MockClock(autojump_threshold=0)


@pytest.fixture
async def house(nursery: trio.Nursery) -> House:
    """A worker at work."""
    house = House(nursery)
    house.work()
    return house


@pytest.fixture
async def quiet_house(nursery: trio.Nursery) -> House:
    """The same before it takes its first job: the test says when."""
    return House(nursery)
