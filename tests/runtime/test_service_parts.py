"""The daemon's own health, part by part, as a whole daemon knows it without asking anybody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from moonxd.domain.stats import Health, PartHealth
from tests.runtime.test_parts_fail import COLLECTORS, ENVIRON, Breakable, running
from tests.services.redis import RedisServer, until
from tests.services.simulator import SimulatorProcess

pytestmark = [pytest.mark.slow, pytest.mark.redis]

LEANED_ON = {"redis", "ledger", "stats archive", "chain_performance", "bridge_latency", "overview"}


def parts(supervisor: Breakable) -> dict[str, PartHealth]:
    opened = supervisor.daemon._parts
    assert opened is not None
    assert opened.statistics is not None
    return {part.name: part for part in opened.statistics.parts(0)}


async def test_parts_are_healthy_and_one_that_goes_is_named(
    tmp_path: Path, simulator: SimulatorProcess, start_redis: Callable[..., RedisServer]
) -> None:
    redis = start_redis()
    async with running({**simulator.env, **ENVIRON, "REDIS_URL": redis.url}, tmp_path) as supervisor:

        def is_well() -> bool:
            now = parts(supervisor)
            return now.keys() >= LEANED_ON and {part.status for part in now.values()} == {Health.HEALTHY}

        await until(is_well, 30)
        children = {child.name for child in supervisor.children()}
        assert set(parts(supervisor)) == children | LEANED_ON | {"service_health"} & set(parts(supervisor))
        assert set(COLLECTORS) <= children
        redis.kill()
        await until(lambda: parts(supervisor)["redis"].status is Health.UNHEALTHY, 30)
        assert parts(supervisor)["redis"].critical
        redis.start()
        await until(lambda: parts(supervisor)["redis"].status is Health.HEALTHY, 30)
