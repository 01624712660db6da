"""POST /jobs beyond the user's rate limit, and a wallet's past, over the API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from moonxd.adapters.memory.ledger import MemoryLedger
from moonxd.api import calls
from moonxd.api.client import ApiError
from moonxd.api.messages import EnqueueRequest
from moonxd.domain.guard import Window
from tests.conformance.ledger_data import admission, admitted, change, holding, new_wallet, synced
from tests.control.harness import WALLET, WallClock, serving

WINDOW = Window(most=2, window_s=900.0)


def enqueue(**others: Any) -> EnqueueRequest:
    return EnqueueRequest(**{"type": "portfolio-sync", "user_id": "u1", "wallet_address": WALLET, **others})


async def full_window() -> MemoryLedger:
    ledger = MemoryLedger(WallClock())
    for _ in range(2):
        lease = await admitted(ledger, admission(new_wallet(), user="u1", counted=True, window=WINDOW))
        await ledger.commit(change(lease))
    return ledger


async def test_a_manual_request_over_the_limit_is_429_with_retry_after(redis_url: str, socket_path: Path) -> None:
    ledger = await full_window()
    async with serving(redis_url, socket_path, frees_at=lambda user: ledger.window_frees_at(user, WINDOW)) as bench:
        with pytest.raises(ApiError, match="has used up the syncs of this window") as refused:
            await bench.call(calls.enqueue(enqueue()))
        assert (refused.value.status, refused.value.code) == (429, "rate-limited")
        with pytest.raises(ApiError):
            await bench.call(calls.enqueue(enqueue(force_refresh=True)))
        transport = httpx.AsyncHTTPTransport(uds=str(socket_path))
        async with httpx.AsyncClient(transport=transport, base_url="http://moonxd") as client:
            body = {"type": "portfolio-sync", "userId": "u1", "walletAddress": WALLET}
            answer = await client.post("/jobs", json=body)
        assert answer.status_code == 429
        assert 880 < int(answer.headers["retry-after"]) <= 900
        assert (await bench.queue.counts()).waiting == 0


async def test_who_is_not_over_it_passes(redis_url: str, socket_path: Path) -> None:
    ledger = await full_window()
    async with serving(redis_url, socket_path, frees_at=lambda user: ledger.window_frees_at(user, WINDOW)) as bench:
        await bench.call(calls.enqueue(enqueue(user_id="u2")))
        await bench.call(calls.enqueue(enqueue(metadata={"trigger": "bulk"})))
        await bench.call(calls.enqueue(enqueue(delay=901_000)))
        await bench.queue.add([])
        kept = await bench.add(id="mine")
        repeated = await bench.call(calls.enqueue(enqueue(job_id=kept)))
        assert repeated.existing, "repeating a request is no new one"


async def test_the_past_of_a_wallet(redis_url: str, socket_path: Path) -> None:
    ledger = MemoryLedger(WallClock())
    for count in (1, 2, 3):
        rows = tuple(holding(number) for number in range(1, count + 1))
        await synced(ledger, WALLET, rows, snapshot=rows)
    async with serving(redis_url, socket_path, history=ledger) as bench:
        reply = await bench.call(calls.history(WALLET))
        assert [len(one.holdings) for one in reply.snapshots] == [3, 2, 1]
        newest = reply.snapshots[0]
        assert (newest.user_id, newest.type, newest.total_value_usd) == ("user-1", "sync", 9)
        middle = reply.snapshots[1].taken_at
        assert len((await bench.call(calls.history(WALLET, since=middle.isoformat()))).snapshots) == 2
        assert len((await bench.call(calls.history(WALLET, until=str(middle.timestamp())))).snapshots) == 1
        assert len((await bench.call(calls.history(WALLET, limit=1))).snapshots) == 1
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%d")
        assert (await bench.call(calls.history(WALLET, since=tomorrow))).snapshots == ()
        assert (await bench.call(calls.history(WALLET, user="nobody"))).snapshots == ()
        with pytest.raises(ApiError, match="is no time"):
            await bench.call(calls.history(WALLET, since="yesterday"))
        with pytest.raises(ApiError, match="hex"):
            await bench.call(calls.history("0x12"))
