"""Who may ask what over TCP: reading is free on loopback, changing needs the token, elsewhere everything does."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest
import trio

from moonxd.control.gate import Gate
from moonxd.control.server import ControlPlane, serve_control
from moonxd.control.socket import tcp_listeners
from tests.control.harness import WALLET, Bench, queue_on

pytestmark = pytest.mark.redis

TOKEN = "correct-horse-battery"
JOB = {"type": "portfolio-sync", "userId": "u1", "walletAddress": WALLET}
#: Every call that changes something, with a body that is good enough to be let in.
CHANGES: tuple[tuple[str, str, Any], ...] = (
    ("POST", "/jobs", JOB),
    ("POST", "/jobs/requeue", {"all": True}),
    ("POST", "/jobs/none/promote", None),
    ("DELETE", "/jobs/none", None),
    ("POST", "/workers/pause", {}),
    ("POST", "/workers/resume", {}),
    ("POST", "/workers/restart", {}),
    ("POST", "/v1/dlq/requeue", {"all": True}),
    ("POST", "/v1/dlq/purge", {"all": True}),
    ("POST", "/v1/users", {"users": []}),
    ("PATCH", "/v1/users", {"userId": "u1", "enabled": False}),
    ("DELETE", "/v1/users?user=u1", None),
    ("POST", "/v1/users/touch", {"userId": "u1"}),
    ("POST", "/v1/schedule/pause", {}),
    ("POST", "/v1/schedule/resume", {}),
    ("POST", "/v1/schedule/trigger", {}),
    ("POST", "/v1/events/replay", {"since": 0, "until": 1}),
)
PROBES = ("/health", "/v1/health", "/health/live", "/health/ready", "/metrics", "/v1/metrics")
READS = ("/v1", "/jobs", "/workers", "/queue-stats", "/v1/status", "/v1/events", "/v1/operations")


@asynccontextmanager
async def over_tcp(redis_url: str, gate: Gate) -> AsyncGenerator[tuple[Bench, httpx.AsyncClient]]:
    async with queue_on(redis_url) as queue, trio.open_nursery() as nursery:
        bench = Bench(queue)
        plane = ControlPlane(dataclasses.replace(bench.deps(), gate=gate))
        (listener,) = await tcp_listeners("127.0.0.1:0")
        port = listener.socket.getsockname()[1]
        stop = trio.Event()
        await nursery.start(partial(serve_control, plane, [listener], stop, grace=0.5))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            yield bench, client
        stop.set()


def bearer(token: str = TOKEN) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_every_change_needs_the_token(redis_url: str) -> None:
    async with over_tcp(redis_url, Gate(TOKEN)) as (bench, client):
        index = (await client.get("/v1")).json()["paths"]
        changing = {line.split(" ")[1].split("{")[0] for line in index if not line.startswith("GET ")}
        asked = {path.partition("?")[0] for _, path, _ in CHANGES} | {"/v1" + path for _, path, _ in CHANGES}
        left = {path for path in changing if not any(one.startswith(path.rstrip("/")) for one in asked)}
        assert left <= {"/v1/breakers/"}, "each is asked below"
        for method, path, body in CHANGES:
            for shown in ({}, bearer("wrong" * 5), {"Authorization": TOKEN}, {"Authorization": f"Basic {TOKEN}"}):
                answer = await client.request(method, path, json=body, headers=shown)
                assert (answer.status_code, answer.headers.get("www-authenticate")) == (401, "Bearer"), (method, path)
                assert TOKEN not in answer.text
        assert (await bench.queue.counts()).waiting == 0
        for method, path, body in CHANGES:
            answer = await client.request(method, path, json=body, headers=bearer())
            assert answer.status_code not in (401, 403), (method, path, answer.text)


async def test_reading_is_free_on_this_machine(redis_url: str) -> None:
    async with over_tcp(redis_url, Gate(TOKEN)) as (_, client):
        for path in (*PROBES, *READS):
            assert (await client.get(path)).status_code == 200, path


async def test_without_a_token_nothing_is_changed(redis_url: str) -> None:
    async with over_tcp(redis_url, Gate()) as (bench, client):
        answer = await client.post("/jobs", json=JOB, headers=bearer())
        assert answer.status_code == 403
        assert "[http] token" in answer.json()["error"]["hint"]
        assert (await client.get("/jobs")).status_code == 200
        assert (await bench.queue.counts()).waiting == 0


async def test_on_other_addresses_reading_needs_it_too_and_probes_do_not(redis_url: str) -> None:
    async with over_tcp(redis_url, Gate(TOKEN, is_public=True)) as (_, client):
        elsewhere = {"Host": "moonxd.example:3001"}
        for path in PROBES:
            assert (await client.get(path, headers=elsewhere)).status_code == 200, path
        for path in READS:
            assert (await client.get(path, headers=elsewhere)).status_code == 401, path
            assert (await client.get(path, headers=elsewhere | bearer())).status_code == 200, path
        page = elsewhere | bearer() | {"Origin": "https://evil.example"}
        assert (await client.post("/jobs", json=JOB, headers=page)).status_code == 403


async def test_a_page_of_another_site_is_refused_whatever_it_shows(redis_url: str) -> None:
    async with over_tcp(redis_url, Gate(TOKEN)) as (_, client):
        for foreign in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
            assert (await client.post("/jobs", json=JOB, headers=bearer() | foreign)).status_code == 403
