"""The simulator as a process and inside another one: start, determinism, heads by WebSocket, end."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url, wrap_client_stream

from moonxd.domain.chain import CHAINS
from moonxd.sim import SimSettings, open_simulator
from tests.services import ROOT
from tests.services.simulator import SimulatorProcess

WALLETS = [f"0x{number * 7919:040x}" for number in range(1, 30)]
Start = Callable[..., SimulatorProcess]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_answers_in_two_processes(start_simulator: Start) -> None:
    arguments = ("--seed", "twin", "--price-bucket-s", "0", "--error-rate", "0.2")
    first, second = start_simulator(*arguments), start_simulator(*arguments)
    other = start_simulator("--seed", "other", "--price-bucket-s", "0")
    for wallet in WALLETS:
        assert first.wallet(wallet)["chains"] == second.wallet(wallet)["chains"]
    assert first.wallet(WALLETS[0])["chains"] != other.wallet(WALLETS[0])["chains"]
    asks: list[tuple[str, str, list[Any]]] = [
        ("ethereum", "eth_getBlockByNumber", ["0x1000000", False]),
        ("base", "eth_getBalance", [WALLETS[3], "latest"]),
        ("bsc", "eth_chainId", []),
    ]
    for chain, method, params in asks * 20:
        body = {"id": 1, "method": method, "params": params}
        answers = [one.http.post(f"/rpc/{chain}", json=body) for one in (first, second)]
        assert (answers[0].status_code, answers[0].content) == (answers[1].status_code, answers[1].content)


def test_the_environment_file_names_every_upstream(start_simulator: Start) -> None:
    running = start_simulator("--chains", "base,1", "--alchemy-key", "k")
    port = httpx.URL(running.url).port
    assert set(running.env) == {
        *(f"{slug}_{kind}_URL" for slug in ("BASE", "ETHEREUM") for kind in ("RPC", "WS")),
        "ENABLED_CHAINS", "ALCHEMY_BASE_URL", "ALCHEMY_API_KEY", "DEFILLAMA_API_URL", "DEFILLAMA_COINS_URL",
        "COINGECKO_BASE_URL", "DEXSCREENER_BASE_URL", "BINANCE_BASE_URL", "LIFI_API_URL", "RELAY_API_URL",
        "ALCHEMY_PRICES_URL", "MOONXD_STATS__ONEINCH__BASE_URL", "MOONXD_STATS__ACROSS__BASE_URL",
    }  # fmt: skip
    assert running.env["ENABLED_CHAINS"] == "base,ethereum"
    assert running.env["BASE_WS_URL"] == f"ws://127.0.0.1:{port}/ws/base"
    assert running.rpc("base", "eth_chainId")["result"] == "0x2105"
    assert running.http.post("/rpc/bsc", json={}).status_code == 404
    assert running.log.read_text() == f"simulating base, ethereum at http://127.0.0.1:{port}\n"


def test_a_token_list_is_what_wallets_hold_from(start_simulator: Start, tmp_path: Path) -> None:
    tokens = [
        {"chainId": 56, "address": f"0x{i:02x}" + "0" * 36 + "ff", "symbol": f"T{i}", "decimals": 9} for i in range(50)
    ]
    (tmp_path / "list.json").write_text(json.dumps({"name": "x", "tokens": tokens}))
    running = start_simulator("--tokens", str(tmp_path / "list.json"))
    held = {
        row["address"]: row
        for wallet in WALLETS
        for row in running.wallet(wallet)["chains"]["bsc"]["tokens"]
        if row["listed"] and row["symbol"] != "BNB"
    }
    assert len(held) > 40
    assert set(held) <= {token["address"] for token in tokens}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_even_with_clients(start_simulator: Start, number: signal.Signals) -> None:
    running = start_simulator()
    running.turn({"base": {"hang_rate": 1}})
    with httpx.Client(base_url=running.url, timeout=0.1) as client, pytest.raises(httpx.ReadTimeout):
        client.post("/rpc/base", json={"id": 1, "method": "eth_chainId"})
    running.process.send_signal(number)
    assert running.process.wait(5) == 0
    assert "Traceback" not in running.log.read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--chains", "moon"], 78, "moon"),
        (["--tokens", "/nowhere/list.json"], 78, "/nowhere/list.json"),
        (["--env-file", "/nowhere/sim.env"], 78, "/nowhere/sim.env"),
        (["--error-rate", "7"], 2, "error-rate"),
    ],
)
def test_mistakes_on_the_command_line(arguments: list[str], code: int, named: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "moonxd.sim", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20
    )
    assert ended.returncode == code
    assert named in re.sub(r"\x1b\[[0-9;]*m", "", ended.stderr)
    assert "Traceback" not in ended.stderr


def test_a_taken_port_is_said(simulator: SimulatorProcess) -> None:
    port = str(httpx.URL(simulator.url).port)
    ended = subprocess.run(
        [sys.executable, "-m", "moonxd.sim", "--port", port], cwd=ROOT, capture_output=True, text=True, timeout=20
    )
    assert ended.returncode == 78
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr


async def _ask(socket: WebSocketConnection, method: str, *params: Any) -> Any:
    await socket.send_message(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
    while True:
        answer = json.loads(await socket.get_message())
        if "method" not in answer:
            return answer


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[WebSocketConnection]:
    """A client whose stream we own: the library leaves it open when the server ends the conversation."""
    parts = httpx.URL(url)
    async with await trio.open_tcp_stream(parts.host, parts.port or 0) as stream, trio.open_nursery() as nursery:
        yield await wrap_client_stream(nursery, stream, parts.host, parts.path)
        nursery.cancel_scope.cancel()


async def _heads(socket: WebSocketConnection, count: int) -> list[int]:
    heights = []
    while len(heights) < count:
        message = json.loads(await socket.get_message())
        if message.get("method") == "eth_subscription":
            heights.append(int(message["params"]["result"]["number"], 16))
    return heights


async def test_new_heads_arrive_by_themselves_without_gaps(simulator: SimulatorProcess) -> None:
    simulator.turn({"bsc": {"block_time_s": 0.02}})
    with trio.fail_after(10):
        async with open_websocket_url(simulator.env["BSC_WS_URL"]) as socket:
            name = (await _ask(socket, "eth_subscribe", "newHeads"))["result"]
            heights = await _heads(socket, 10)
            assert all(after == before + 1 for before, after in pairwise(heights))
            assert (await _ask(socket, "eth_chainId"))["result"] == "0x38"
            assert (await _ask(socket, "eth_unsubscribe", name))["result"] is True
            assert (await _ask(socket, "eth_unsubscribe", name))["result"] is False
            assert "error" in await _ask(socket, "eth_subscribe", "logs")
            assert "error" in await _ask(socket, "eth_subscribe")


async def test_a_halted_chain_sends_no_heads_until_it_goes_on(simulator: SimulatorProcess) -> None:
    simulator.turn({"bsc": {"halted": True}})
    with trio.fail_after(10):
        async with open_websocket_url(simulator.env["BSC_WS_URL"]) as socket:
            await _ask(socket, "eth_subscribe", "newHeads")
            with trio.move_on_after(0.3) as waited:
                await _heads(socket, 1)
            assert waited.cancelled_caught
            simulator.turn({"bsc": {"halted": False, "block_time_s": 0.02}})
            assert await _heads(socket, 1)


async def test_websocket_clients_meet_faults_and_cannot_hurt(simulator: SimulatorProcess) -> None:
    with trio.fail_after(10):
        async with _connected(simulator.env["BASE_WS_URL"]) as socket:
            await socket.send_message("{")
            assert json.loads(await socket.get_message())["error"]["code"] == -32700
            await socket.ping(b"still there")
            simulator.turn({"base": {"drop_rate": 1}})
            await socket.send_message('{"id":1,"method":"eth_chainId"}')
            with pytest.raises(ConnectionClosed):
                await socket.get_message()
        simulator.reset()
        async with _connected(simulator.env["BASE_WS_URL"]) as socket:
            await socket.send_message(b"binary")
            with pytest.raises(ConnectionClosed):
                await socket.get_message()
    assert simulator.rpc("base", "eth_chainId")["result"] == "0x2105"


async def test_inside_another_process_with_a_clock_of_its_own() -> None:
    now = 1_800_000_000.0
    settings = SimSettings(chains=(CHAINS[1],), price_bucket_s=60.0)
    with trio.fail_after(10):
        async with (
            open_simulator(settings, now=lambda: now) as simulator,
            httpx.AsyncClient(base_url=simulator.url) as client,
        ):
            assert simulator.env()["ETHEREUM_RPC_URL"] == f"http://127.0.0.1:{simulator.port}/rpc/ethereum"
            body = {"id": 1, "method": "eth_blockNumber"}
            first = (await client.post("/rpc/ethereum", json=body)).json()["result"]
            prices = [(await client.get(f"/sim/wallets/{WALLETS[0]}")).json()["totalValueUsd"]]
            now += 120.0
            second = (await client.post("/rpc/ethereum", json=body)).json()["result"]
            prices.append((await client.get(f"/sim/wallets/{WALLETS[0]}")).json()["totalValueUsd"])
            assert int(second, 16) - int(first, 16) == 10
            assert prices[0] != prices[1]
            simulator.world.turn({"ethereum": {"error_rate": 1}})
            assert (await client.post("/rpc/ethereum", json=body)).status_code == 503
        with pytest.raises(OSError):
            await trio.open_tcp_stream("127.0.0.1", simulator.port)
