"""Every knob has its effect, over the wire, and the simulator's own paths stay sound meanwhile."""

from __future__ import annotations

import gzip
import socket
import time
from typing import Any

import httpx
import pytest

from tests.services.simulator import SimulatorProcess

WALLET = "0x" + "d4" * 20
BLOCK = {"jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": []}


def ask(simulator: SimulatorProcess, chain: str = "ethereum", **options: Any) -> httpx.Response:
    return simulator.http.post(f"/rpc/{chain}", json=BLOCK, **options)


def test_an_error_rate_of_one_is_every_request_and_of_no_other_upstream(simulator: SimulatorProcess) -> None:
    simulator.turn({"ethereum": {"error_rate": 1, "error_status": 502}})
    assert [ask(simulator).status_code for _ in range(5)] == [502] * 5
    assert ask(simulator, "base").status_code == 200
    assert simulator.stats()["upstreams"]["ethereum"]["faults"] == {"error": 5}
    simulator.reset()
    assert ask(simulator).status_code == 200


def test_a_share_of_errors(simulator: SimulatorProcess) -> None:
    simulator.turn({"chains": {"error_rate": 0.3}})
    failed = sum(ask(simulator).status_code == 503 for _ in range(200))
    assert 40 < failed < 80


def test_rate_limits_carry_retry_after(simulator: SimulatorProcess) -> None:
    simulator.turn(
        {"llama": {"rate_limit_rate": 1, "retry_after_s": 7}, "base": {"rate_limit_rate": 1, "retry_after_s": None}}
    )
    answer = simulator.http.get("/llama/coins/prices/current/base:0x1")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    bare = ask(simulator, "base")
    assert bare.status_code == 429
    assert "retry-after" not in bare.headers


def test_json_rpc_errors_for_some_methods_and_a_budget(simulator: SimulatorProcess) -> None:
    knobs = {"rpc_error_rate": 1, "rpc_error_code": -32005, "rpc_error_message": "limit exceeded"}
    simulator.turn({"ethereum": {**knobs, "methods": ["eth_blockNumber"], "fault_budget": 2}})
    assert "result" in simulator.rpc("ethereum", "eth_chainId")
    answers = [simulator.rpc("ethereum", "eth_blockNumber") for _ in range(3)]
    assert [answer.get("error") for answer in answers[:2]] == [{"code": -32005, "message": "limit exceeded"}] * 2
    assert "result" in answers[2]


def test_hanging_never_answers_and_holds_nobody_else_up(simulator: SimulatorProcess) -> None:
    simulator.turn({"ethereum": {"hang_rate": 1}})
    with pytest.raises(httpx.ReadTimeout):
        ask(simulator, timeout=0.2)
    assert ask(simulator, "base").status_code == 200


def test_dropping_closes_the_connection(simulator: SimulatorProcess) -> None:
    simulator.turn({"ethereum": {"drop_rate": 1}})
    with pytest.raises(httpx.RemoteProtocolError):
        ask(simulator)


@pytest.mark.parametrize("kind", ["html", "truncated", "empty", "wrong-shape"])
def test_malformed_bodies_come_with_200(simulator: SimulatorProcess, kind: str) -> None:
    simulator.turn({"ethereum": {"malformed_rate": 1, "malformed_kind": kind}})
    answer = ask(simulator)
    assert answer.status_code == 200
    if kind == "wrong-shape":
        assert not isinstance(answer.json()["result"], str)
    else:
        with pytest.raises(ValueError):
            answer.json()


def test_an_oversized_body(simulator: SimulatorProcess) -> None:
    simulator.turn({"ethereum": {"oversize_rate": 1, "oversize_bytes": 3_000_000}})
    assert len(ask(simulator, headers={"accept-encoding": "identity"}).content) > 3_000_000


def test_latency_is_at_least_its_median_when_fixed(simulator: SimulatorProcess) -> None:
    simulator.turn({"*": {"latency_ms": 60}})
    for path in ("/rpc/base", "/alchemy/base-mainnet/v2/k"):
        start = time.monotonic()
        simulator.http.post(path, json=BLOCK)
        assert time.monotonic() - start >= 0.06
    start = time.monotonic()
    simulator.http.get("/llama/coins/prices/current/base:0x1")
    assert time.monotonic() - start >= 0.06


def test_a_wrong_chain_id(simulator: SimulatorProcess) -> None:
    simulator.turn({"base": {"wrong_chain_id": 84532}})
    assert simulator.rpc("base", "eth_chainId")["result"] == hex(84532)
    assert simulator.rpc("base", "net_version")["result"] == "84532"
    assert simulator.rpc("k", "eth_chainId", path="alchemy/base-mainnet/v2")["result"] == hex(84532)


def test_a_halted_chain_stands_and_goes_on(simulator: SimulatorProcess) -> None:
    def height() -> int:
        return int(simulator.rpc("arbitrum", "eth_blockNumber")["result"], 16)

    def climbs_past(start: int) -> bool:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if height() > start:
                return True
        return False

    simulator.turn({"arbitrum": {"block_time_s": 0.02}})
    assert climbs_past(height())
    simulator.turn({"arbitrum": {"halted": True}})
    stopped = height()
    assert all(height() == stopped for _ in range(50))
    simulator.turn({"arbitrum": {"halted": False}})
    assert climbs_past(stopped)


def test_a_lagging_node_does_not_know_the_newest_block(simulator: SimulatorProcess) -> None:
    simulator.turn({"ethereum": {"halted": True}})
    newest = simulator.rpc("ethereum", "eth_blockNumber")["result"]
    simulator.turn({"ethereum": {"halted": True, "lag_blocks": 3}})
    assert int(newest, 16) - int(simulator.rpc("ethereum", "eth_blockNumber")["result"], 16) == 3
    answer = simulator.rpc("ethereum", "eth_getBalance", WALLET, newest)
    assert answer["error"] == {"code": -32000, "message": "header not found"}
    assert simulator.rpc("ethereum", "eth_getBlockByNumber", newest, False)["result"] is None
    simulator.turn({"ethereum": {"lag_rate": 0.5}})
    heights = {simulator.rpc("ethereum", "eth_blockNumber")["result"] for _ in range(40)}
    assert heights == {newest, hex(int(newest, 16) - 3)}


def test_reverts(simulator: SimulatorProcess) -> None:
    simulator.turn({"ethereum": {"revert_rate": 1}})
    answer = simulator.rpc("ethereum", "eth_call", {"to": WALLET, "data": "0x"}, "latest")
    assert answer["error"] == {"code": 3, "message": "execution reverted", "data": "0x"}


def test_a_gas_cap_limits_the_batch(simulator: SimulatorProcess) -> None:
    simulator.turn({"ethereum": {"gas_cap": 1000}})
    answer = simulator.rpc("ethereum", "eth_call", {"to": WALLET, "data": "0x70a08231"}, "latest")
    assert answer["error"]["message"] == "out of gas"


def test_bad_orders_are_refused_with_a_sentence(simulator: SimulatorProcess) -> None:
    orders: list[tuple[str, str, Any, str]] = [
        ("PATCH", "/sim/knobs", {"ethereum": {"nonsense": 1}}, "nonsense"),
        ("PATCH", "/sim/knobs", {"moon": {}}, "moon"),
        ("PATCH", "/sim/knobs", [], "object"),
        ("GET", "/sim/wallets/0x12", None, "hex digits"),
        ("POST", f"/sim/wallets/{WALLET}", {"balances": {"moon": {}}}, "moon"),
        ("POST", f"/sim/wallets/{WALLET}", {"balances": {"base": {WALLET: "1"}}}, "no token"),
        ("POST", f"/sim/wallets/{WALLET}", {"balances": {"base": {"native": "-1"}}}, "uint256"),
        ("POST", "/sim/tokens", {"chain": 1, "address": WALLET, "symbol": "X", "decimals": 300}, "decimals"),
        (
            "POST",
            "/sim/tokens",
            {"chain": 1, "address": WALLET, "symbol": "X", "decimals": 3, "price_usd": "0"},
            "price",
        ),
        (
            "POST",
            "/sim/tokens",
            {"chain": 1, "address": WALLET, "symbol": "X", "decimals": 3, "price_usd": "NaN"},
            "price",
        ),
    ]
    for method, path, body, named in orders:
        answer = simulator.http.request(method, path, json=body)
        assert answer.status_code == 400, (path, body)
        assert named in answer.json()["error"]
    assert simulator.http.get("/sim/nothing").status_code == 404
    assert simulator.http.get("/nothing").status_code == 404
    assert simulator.http.get("/rpc/ethereum").status_code == 405


def test_a_wallet_can_be_set_emptied_and_given_back(simulator: SimulatorProcess) -> None:
    before = simulator.wallet(WALLET)["chains"]["base"]
    largest = 2**256 - 1
    truth = simulator.put_wallet(WALLET, {"base": {"native": str(largest)}}, replace=True)
    assert [row["raw"] for row in truth["chains"]["base"]["tokens"]] == [str(largest)]
    truth = simulator.put_wallet(WALLET, {"8453": {"native": "0"}})
    assert truth["chains"]["base"]["tokens"] == []
    simulator.reset()
    assert simulator.wallet(WALLET)["chains"]["base"] == before


def test_knobs_are_listed_for_every_upstream(simulator: SimulatorProcess) -> None:
    knobs = simulator.turn({"alchemy": {"latency_ms": 5}})
    assert {name for name, one in knobs.items() if one["latency_ms"] == 5} == {
        f"alchemy-{slug}" for slug in ("ethereum", "polygon", "optimism", "arbitrum", "base", "bsc")
    }


def test_gzip_is_used_when_asked_for(simulator: SimulatorProcess) -> None:
    body = b'{"id":1,"method":"eth_getBlockByNumber","params":["latest",false]}'
    head = b"POST /rpc/base HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(body)
    packed = exchange(simulator, head + b"Accept-Encoding: br, gzip\r\nConnection: close\r\n\r\n" + body)
    assert b"Content-Encoding: gzip" in packed
    assert gzip.decompress(packed.split(b"\r\n\r\n", 1)[1]).startswith(b'{"jsonrpc"')
    plain = exchange(simulator, head + b"Connection: close\r\n\r\n" + body)
    assert b"Content-Encoding" not in plain


def exchange(simulator: SimulatorProcess, data: bytes) -> bytes:
    """Everything the simulator says to `data` until it closes."""
    url = httpx.URL(simulator.url)
    with socket.create_connection((url.host, url.port or 0), timeout=5) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := client.recv(65536):
            received += chunk
        return received


def test_pipelined_requests_are_answered_in_order(simulator: SimulatorProcess) -> None:
    bodies = [b'{"id":%d,"method":"eth_chainId"}' % i for i in range(20)]
    requests = (b"POST /rpc/base HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(b), b) for b in bodies)
    answer = exchange(simulator, b"".join(requests))
    places = [answer.index(b'"id":%d,' % i) for i in range(20)]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b" 400 "),
        (b"GARBAGE\r\n\r\n", b" 400 "),
        (b"POST / HTTP/9.9\r\n\r\n", b" 400 "),
        (b"POST /rpc/base HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b" 400 "),
        (b"POST /rpc/base HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde", b" 400 "),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", b" 413 "),
        (b"POST /rpc/base HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b" 400 "),
        (b"GET /%zz%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b" 404 "),
        (b"GET /ws/base HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b" 400 "),
        (
            b"GET /ws/moon HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\n\r\n",
            b" 400 ",
        ),
        (b"POST /rpc/base HTTP/1.1\r\nContent-Length: 500\r\n\r\nhalf", b""),
        (b"", b""),
    ],
)
def test_malformed_http_is_refused_and_survived(simulator: SimulatorProcess, data: bytes, status: bytes) -> None:
    answer = exchange(simulator, data)
    assert status in answer[:20] if status else answer == b""
    assert ask(simulator).status_code == 200
