"""The live feed of whole daemons: with either database, of several workers, over a restart, and in a real browser."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import wrap_client_stream

from tests.control.live_harness import SECRET, Page, token
from tests.services import ROOT, free_port
from tests.services.chromium import OpenPage
from tests.services.daemon import DaemonProcess, StartDaemon
from tests.services.simulator import SimulatorProcess

pytestmark = pytest.mark.slow

WALLET = "0x" + "c0ffee" * 6 + "0001"
in_thread = partial(trio.to_thread.run_sync, abandon_on_cancel=True)


def settings(port: int, **more: str) -> dict[str, str]:
    return {"MOONXD_HTTP__LISTEN": f"127.0.0.1:{port}", "MOONXD_LIVE__HS256_SECRET": SECRET, **more}


@asynccontextmanager
async def page_on(port: int) -> AsyncIterator[Page]:
    async with (
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
        trio.open_nursery() as nursery,
        await wrap_client_stream(nursery, stream, "localhost", "/v1/ws") as connection,
    ):
        yield Page(connection)


async def heard_until(page: Page, kind: str) -> list[dict[str, Any]]:
    heard = []
    with trio.fail_after(60):
        while not heard or heard[-1]["type"] != kind:
            heard.append(json.loads(await page.connection.get_message()))
    return heard


def sync(daemon: DaemonProcess, user: str = "u1") -> None:
    detail = daemon.wait(daemon.enqueue(WALLET, user))
    assert detail.state == "completed", detail


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres), "two-workers"])
def kind(request: pytest.FixtureRequest) -> tuple[dict[str, str], tuple[str, ...]]:
    """Variables and arguments of a daemon."""
    if request.param == "postgres":
        return {"DATABASE_URL": request.getfixturevalue("postgres_dsn")}, ()
    return {}, ("--workers", "2") if request.param == "two-workers" else ()


async def test_a_sync_is_heard_and_resumed_over_a_restart(
    start_daemon: StartDaemon, simulator: SimulatorProcess, kind: tuple[dict[str, str], tuple[str, ...]]
) -> None:
    port = free_port()
    daemon = start_daemon({**simulator.env, **settings(port, **kind[0])}, *kind[1])
    async with page_on(port) as page, page_on(port) as other:
        assert (await page.join("user:u1", token()))["type"] == "joined"
        assert (await other.join("user:u2", token("u2")))["type"] == "joined"
        await in_thread(sync, daemon)
        heard = await heard_until(page, "portfolio_update")
        assert {"sync_started", "sync_completed"} & {one["type"] for one in heard}
        assert heard[-1]["walletAddress"] == WALLET
        assert heard[-1]["data"]["totalTokens"] > 0
        last = heard[-1]["id"]
        daemon.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        assert await page.hear_code() == 1001
        assert await other.hear_code() == 1001, "and heard nothing before"
    await in_thread(daemon.terminate)
    await in_thread(daemon.start)
    simulator.put_wallet(WALLET, {"ethereum": {"native": "123456789"}})
    await in_thread(sync, daemon)
    async with page_on(port) as page:
        await page.join("user:u1", token(), lastEventId=last)
        heard = await heard_until(page, "portfolio_update")
        assert all(one["id"] > last for one in heard)
    log = daemon.log()
    assert token()[:30] not in log
    assert SECRET not in log


async def test_metrics_count_clients_and_messages(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    port = free_port()
    daemon = start_daemon({**simulator.env, **settings(port)})
    async with page_on(port) as page:
        await page.join("user:u1", token())
        await in_thread(sync, daemon)
        await heard_until(page, "portfolio_update")
        text = await in_thread(_metrics, port)
        assert "moonxd_live_clients 1.0" in text
        assert 'moonxd_live_messages_total{type="portfolio_update"} 1.0' in text
        assert "u1" not in [part for line in text.splitlines() if "live" in line for part in line.split('"')]


async def test_statistics_are_heard_as_they_are_collected(
    start_daemon: StartDaemon, simulator: SimulatorProcess
) -> None:
    """What the collectors found, and after it what changed, under the names that pages know."""
    port = free_port()
    rhythm = {"CHAIN_PERFORMANCE_INTERVAL": "*/2 * * * * *", "BRIDGE_LATENCY_INTERVAL": "*/2 * * * * *",
              "STATS_COLLECTION_INTERVAL": "*/2 * * * * *"}  # fmt: skip
    start_daemon({**simulator.env, **settings(port), **rhythm})
    async with page_on(port) as page:
        # A browser may come after the first news: what it missed is told first.
        await page.join("stats", token(), lastEventId=0)
        heard: dict[str, dict[str, Any]] = {}
        with trio.fail_after(60):
            while len(heard) < 3:
                message = json.loads(await page.connection.get_message())
                assert message["room"] == "stats"
                heard.setdefault(message["type"], message)
        assert set(heard) == {"chain_stats_update", "bridge_stats_update", "stats_overview_update"}
        chains = {one["chainName"] for one in heard["chain_stats_update"]["data"]["chains"]}
        assert len(chains) == 6
        assert "userId" not in heard["bridge_stats_update"] or heard["bridge_stats_update"]["userId"] == "system"
        # A chain that stops is news, and nobody has to ask for it.
        simulator.turn({"polygon": {"error_rate": 1.0}})
        with trio.fail_after(60):
            while True:
                message = json.loads(await page.connection.get_message())
                if message["type"] == "chain_stats_update" and b"polygon" in json.dumps(message).lower().encode():
                    states = {one["chainName"]: one["status"] for one in message["data"]["chains"]}
                    if any(name.lower().startswith("polygon") and state != "healthy" for name, state in states.items()):
                        break


def _metrics(port: int) -> str:
    import httpx

    return httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text


async def test_the_example_page_in_a_real_browser(
    start_daemon: StartDaemon, simulator: SimulatorProcess, open_page: OpenPage, tmp_path: Path
) -> None:
    """It joins, shows an update, comes back by itself after a restart and shows what it missed, once."""
    port = free_port()
    daemon = start_daemon({**simulator.env, **settings(port, MOONXD_LIVE__ORIGINS="null")})
    given = f"url=ws://127.0.0.1:{port}/v1/ws&rooms=user:u1&token={token('u1')}"
    async with open_page(f"{(ROOT / 'docs/examples/live.html').as_uri()}#{given}") as page:
        await page.until("document.getElementById('state').className === 'open'")
        await in_thread(sync, daemon)
        shown = "[...document.querySelectorAll('#rows tr')].filter((row) => row.innerText.includes('portfolio_update'))"
        await page.until(f"{shown}.length === 1")
        assert WALLET in await page.evaluate(f"{shown}[0].innerText")
        await page.screenshot(tmp_path / "live.png")

        await page.evaluate("leave()")
        await page.until("document.getElementById('state').innerText.startsWith('closed: 1000')")
        simulator.put_wallet(WALLET, {"ethereum": {"native": "123456789"}})
        await in_thread(sync, daemon)
        await page.evaluate("connect()")
        await page.until(f"{shown}.length === 2")

        await in_thread(daemon.terminate)
        await page.until("document.getElementById('state').className === 'lost'")
        await in_thread(daemon.start)
        await page.until("document.getElementById('state').className === 'open'")
        simulator.put_wallet(WALLET, {"ethereum": {"native": "987654321"}})
        await in_thread(sync, daemon)
        await page.until(f"{shown}.length === 3")
        ids = await page.evaluate(f"{shown}.map((row) => Number(row.cells[0].innerText))")
        assert ids == sorted(set(ids), reverse=True), "each once, the newest above"
