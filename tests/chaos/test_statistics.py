"""A MongoDB that is killed again and again while statistics are collected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from pymongo import MongoClient

from moonxd.adapters.island.loop import open_island
from moonxd.adapters.island.mongo import open_mongo_archive
from moonxd.agents.archivist import Archivist
from tests.conformance.archive_data import MINUTE_MS, START_MS, bridge, chain, overview
from tests.services.mongo import MongoServer
from tests.services.redis import until

pytestmark = [pytest.mark.mongo, pytest.mark.chaos, pytest.mark.slow]
CHAINS = (1, 10, 56, 137, 8453, 42161)


async def run(archivist: Archivist, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    await archivist.run(task_status.started)


async def collect(archivist: Archivist, minutes: range) -> None:
    """As the collectors do, only without the minute in between."""
    for minute in minutes:
        at_ms = START_MS + minute * MINUTE_MS
        await archivist.put_chains([chain(at_ms, chain_id, head=minute) for chain_id in CHAINS])
        await archivist.put_bridges([bridge(at_ms)])
        await archivist.put_overview(overview(at_ms))
        await trio.sleep(0.002)


@pytest.mark.timeout(180)
async def test_kill_minus_nine_under_load_loses_and_doubles_nothing(start_mongo: Callable[..., MongoServer]) -> None:
    # What was acknowledged must survive here as it does on a replica set.
    server = start_mongo("--sync-on-commit")
    async with open_island() as island, open_mongo_archive(island, f"{server.uri()}?connectTimeoutMS=500") as archive:
        archivist = Archivist(archive)
        async with trio.open_nursery() as nursery:
            await nursery.start(run, archivist)
            for life in range(3):
                first = life * 400
                await collect(archivist, range(first, first + 200))
                await until(lambda: archivist.report().written > 0)
                server.kill()
                await collect(archivist, range(first + 200, first + 400))
                await until(lambda: archivist.report().away is not None, 30.0)
                latest = await archivist.chains()
                assert [row.head for row in latest] == [first + 399] * len(CHAINS)
                server.start()  # in this thread: the server ends with the thread that started it
            await until(lambda: archivist.report().pending == 0, 90.0)
            report = archivist.report()
            assert (report.away, report.thinned, report.refused) == (None, 0, 0)
            nursery.cancel_scope.cancel()
    with MongoClient[dict[str, Any]](server.uri()) as client:
        found = client.get_default_database()
        assert found["chainstats_history"].count_documents({}) == 1200 * len(CHAINS)
        assert found["bridgestats_history"].count_documents({}) == 1200
        assert sorted(row["chainId"] for row in found["chainstats"].find()) == sorted(CHAINS)
        assert {row["head"] for row in found["chainstats"].find()} == {1199}
        assert [row["latency"] for row in found["bridgestats"].find()] == [750.0]
        assert found["statsoverviews"].count_documents({"isLatest": True}) == 1
