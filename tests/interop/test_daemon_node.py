"""Existing Node programs and the whole daemon: they add jobs as before, and read what became of them as before."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio

from tests.services.daemon import StartDaemon
from tests.services.node import Start
from tests.services.redis import RedisServer
from tests.services.simulator import SimulatorProcess

pytestmark = [pytest.mark.node, pytest.mark.redis, pytest.mark.slow]

QUEUE = "sync-jobs"
WALLET = "0x" + "ab" * 20
#: What the existing producers send with a job.
OPTIONS = {
    "priority": 1,
    "attempts": 3,
    "backoff": {"type": "exponential", "delay": 2000},
    "removeOnComplete": 100,
    "removeOnFail": 50,
}


def payload(**more: Any) -> dict[str, Any]:
    return {
        "jobId": "j-1", "userId": "user-1", "walletAddress": WALLET, "priority": "high", "syncType": "portfolio",
        "forceRefresh": True, "chainIds": [8453, "56"], "triggeredAt": "2025-01-06T00:00:00.000Z",
        "metadata": {"source": "web"}, **more,
    }  # fmt: skip


@pytest.mark.parametrize("version", ["bullmq5", "bullmq6"])
async def test_a_node_producer_never_notices_that_the_worker_changed(
    version: str,
    start_node: Start,
    start_daemon: StartDaemon,
    simulator: SimulatorProcess,
    redis_server: RedisServer,
    redis_url: str,
) -> None:
    environ = {**simulator.env, "REDIS_URL": redis_url}
    await trio.to_thread.run_sync(partial(start_daemon, environ))
    async with start_node(version, redis_server) as node:
        await node("listen", queue=QUEUE)
        good, old_name = await node(
            "add",
            queue=QUEUE,
            jobs=[
                {"name": "portfolio-sync", "data": payload(), "opts": OPTIONS},
                {"name": "sync-job", "data": payload(userId="user-2"), "opts": OPTIONS},
            ],
        )
        bad_address, unknown_name, no_object = await node(
            "add",
            queue=QUEUE,
            jobs=[
                {"name": "portfolio-sync", "data": payload(walletAddress="0xnothex"), "opts": OPTIONS},
                {"name": "make-coffee", "data": payload(), "opts": OPTIONS},
                {"name": "portfolio-sync", "data": [1, 2, 3], "opts": OPTIONS},
            ],
        )
        await node.until("counts", lambda counts: counts["completed"] == 2 and counts["failed"] == 3, queue=QUEUE)

        job = await node("job", queue=QUEUE, id=good)
        assert job["state"] == "completed"
        result = job["returnvalue"]
        assert (result["success"], result["jobId"], result["userId"]) == (True, good, "user-1")
        assert (result["walletAddress"], result["chainsSync"], result["chainsFailed"]) == (WALLET, 2, [])
        assert result["totalValueUsd"] > 0
        assert result["tokensSync"] > 0
        assert isinstance(result["processingTime"], int)
        assert (await node("job", queue=QUEUE, id=old_name))["returnvalue"]["userId"] == "user-2"

        for job_id, says in (
            (bad_address, "is not hex"),
            (unknown_name, "unknown job type 'make-coffee'"),
            (no_object, "must be a JSON object"),
        ):
            failed = await node("job", queue=QUEUE, id=job_id)
            assert failed["state"] == "failed"
            assert says in failed["failedReason"]
            assert failed["attemptsMade"] == 1, "no attempt is wasted on what can never work"

        def told(heard: list[dict[str, Any]], kind: str) -> set[str]:
            return {event["jobId"] for event in heard if event["kind"] == kind and "jobId" in event}

        everything = {good, old_name, bad_address, unknown_name, no_object}
        heard = await node.until(
            "heard", lambda heard: told(heard, "completed") | told(heard, "failed") == everything, queue=QUEUE
        )
        assert told(heard, "added") == told(heard, "active") == everything
