"""The existing core service and the whole daemon: requests by Redis lists, through ioredis and its keyPrefix."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.services.daemon import StartDaemon
from tests.services.node import NodePeer, Start
from tests.services.redis import RedisServer
from tests.services.simulator import SimulatorProcess

pytestmark = [pytest.mark.node, pytest.mark.redis, pytest.mark.slow]

WALLET = "0x" + "ab" * 20
PREFIXES = ("moonx:sync-proxy:", "moonx:sync-worker:")
ON = {"MOONXD_CORE_SERVICE__ENABLED": "true"}


async def until_idle(client: NodePeer, wallet: str = WALLET, user: str = "user-1") -> dict[str, Any]:
    status: dict[str, Any] = await client.until(
        "status", lambda now: now["lastSyncAt"] and not now["isRunning"], userId=user, walletAddress=wallet
    )
    return status


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_all_four_types_under_both_prefixes(
    prefix: str,
    start_core_service: Start,
    start_daemon: StartDaemon,
    simulator: SimulatorProcess,
    redis_server: RedisServer,
    redis_url: str,
) -> None:
    start_daemon({**simulator.env, **ON, "REDIS_URL": redis_url})
    async with start_core_service(prefix, redis_server) as client:
        never = await client("status", userId="user-1", walletAddress=WALLET)
        assert (never["syncStatus"], never["lastSyncAt"], never["isRunning"]) == ("never", None, False)

        request = {"jobId": "5f0e-1", "userId": "user-1", "walletAddress": WALLET, "priority": "high"}
        queued = await client("sync", request=request)
        assert (queued["jobId"], queued["status"], queued["metadata"]["bullmqJobId"]) == ("5f0e-1", "queued", "5f0e-1")

        current = await until_idle(client)
        assert current["syncStatus"] == "current"
        assert current["totalTokens"] > 0
        assert current["totalValueUsd"] > 0
        assert isinstance(current["syncFrequency"], int)

        (row,) = await client("operations", userId="user-1", walletAddress=WALLET, filters={"limit": 20, "days": 30})
        assert (row["status"], row["tokensSync"], row["metadata"]["jobId"]) == (
            "completed", current["totalTokens"], "5f0e-1",
        )  # fmt: skip
        assert row["totalValueUsd"] == pytest.approx(current["totalValueUsd"])

        ended = {"found": True, "cancelled": False, "previousStatus": "completed"}
        assert await client("cancel", operationId="5f0e-1", userId="user-1") == ended
        assert await client("cancel", operationId=row["id"], userId="user-1") == ended
        assert await client("left") == 0
        assert await client("parked") == []
    metrics: bytes = redis_server.command("KEYS", f"{prefix}*")
    assert all(key == f"{prefix}sync:owners".encode() for key in metrics), "every reply was read, nothing else stays"


async def test_a_running_sync_is_cancelled_by_its_owner_only(
    start_core_service: Start,
    start_daemon: StartDaemon,
    simulator: SimulatorProcess,
    redis_server: RedisServer,
    redis_url: str,
) -> None:
    simulator.turn({"*": {"latency_ms": 20_000}})
    start_daemon({**simulator.env, **ON, "REDIS_URL": redis_url})
    async with start_core_service(PREFIXES[0], redis_server) as client:
        await client("sync", request={"jobId": "slow-1", "userId": "user-1", "walletAddress": WALLET})
        about = {"userId": "user-1", "walletAddress": WALLET}
        busy = await client.until("status", lambda now: now["isRunning"], **about)
        assert busy["activeSyncOperations"] == 1
        (row,) = await client("operations", **about, filters={"status": "running"})
        for operation in ("slow-1", row["id"]):
            assert await client("cancel", operationId=operation, userId="user-2") == {
                "found": False,
                "cancelled": False,
            }
        assert await client("cancel", operationId=row["id"], userId="user-1") == {
            "found": True, "cancelled": True, "previousStatus": "running",
        }  # fmt: skip
        await client.until("status", lambda now: not now["isRunning"], **about)
        (row,) = await client("operations", **about, filters={})
        assert row["status"] == "cancelled"


async def test_malformed_messages_are_answered_or_parked_and_stop_nobody(
    start_core_service: Start,
    start_daemon: StartDaemon,
    simulator: SimulatorProcess,
    redis_server: RedisServer,
    redis_url: str,
) -> None:
    daemon = start_daemon({**simulator.env, **ON, "REDIS_URL": redis_url})
    async with start_core_service(PREFIXES[0], redis_server) as client:
        for text in ("{", "[]", '{"type":"sync_request","data":null}', "\0", '{"type":"make_coffee","data":{}}'):
            for name in ("requests", "status", "operations", "cancel"):
                await client("raw", list=f"sync:{name}", text=text)
        unknown = json.dumps({"type": "make_coffee", "data": {}, "responseQueue": "sync:responses:x", "requestId": "r"})
        reply = await client("raw", list="sync:status", text=unknown, responseQueue="sync:responses:x")
        assert (reply["status"], reply["requestId"]) == ("failed", "r")
        reply = await client("sync", request={"jobId": "bad-1", "userId": "user-1", "walletAddress": "0xnothex"})
        assert (reply["jobId"], reply["status"]) == ("bad-1", "failed")
        assert "walletAddress" in reply["error"] or "hex" in reply["error"]
        request = {"jobId": "good-1", "userId": "user-1", "walletAddress": WALLET}
        assert (await client("sync", request=request))["status"] == "queued"
        assert (await until_idle(client))["syncStatus"] == "current"
        parked = await client.until("parked", lambda entries: len(entries) == 22)
        assert all(entry["reason"] and entry["list"].startswith(PREFIXES[0]) for entry in parked)
    snapshot = daemon.snapshot()
    assert snapshot is not None
    (child,) = [child for child in snapshot.children if child.name == "core-service"]
    assert (child.state, child.restarts, child.critical) == ("running", 0, False)


async def test_the_rate_limit_is_answered_and_two_daemons_share_the_lists(
    start_core_service: Start,
    start_daemon: StartDaemon,
    simulator: SimulatorProcess,
    redis_server: RedisServer,
    redis_url: str,
    postgres_dsn: str,
) -> None:
    environ = {
        **simulator.env, **ON, "REDIS_URL": redis_url, "DATABASE_URL": postgres_dsn,
        "MOONXD_RATE_LIMIT__ENABLED": "true", "WORKER_RATE_LIMIT_MAX": "2",
    }  # fmt: skip
    for name in ("one", "two"):
        start_daemon(environ | {"MOONXD_DAEMON__WORKER_NAME": name})
    async with start_core_service(PREFIXES[1], redis_server) as client:
        for number in range(2):
            request = {"jobId": f"limit-{number}", "userId": "user-1", "walletAddress": WALLET}
            assert (await client("sync", request=request))["status"] == "queued"
            await client.until(
                "operations", lambda rows, least=number: len(rows) > least and rows[0]["status"] == "completed",
                userId="user-1", walletAddress=WALLET, filters={},
            )  # fmt: skip
        refused = await client("sync", request=request | {"jobId": "limit-2", "forceRefresh": True})
        assert (refused["jobId"], refused["status"]) == ("limit-2", "failed")
        assert "Rate limit" in refused["error"]
        other = request | {"jobId": "limit-3", "userId": "user-2"}
        assert (await client("sync", request=other))["status"] == "queued"


async def test_a_service_that_starts_before_the_daemon_is_answered_later(
    start_redis: Callable[..., RedisServer],
    start_core_service: Start,
    start_daemon: StartDaemon,
    simulator: SimulatorProcess,
) -> None:
    server = start_redis(appendonly=True, appendfsync="always")
    async with start_core_service(PREFIXES[0], server) as client:
        (job,) = await client("pushMany", wallets=[WALLET])
        start_daemon({**simulator.env, **ON, "REDIS_URL": server.url})
        reply = await client.until("firstReply", lambda found: found is not None, job=job)
        assert reply["status"] == "queued"
        assert 0 < reply["livesMs"] <= 300_000
        # Redis dies and comes back: the daemon's listener goes on by itself.
        server.kill()
        server.start()
        request = {"jobId": "after-1", "userId": "user-9", "walletAddress": WALLET}
        assert (await client("sync", request=request, seconds=45))["status"] == "queued"
