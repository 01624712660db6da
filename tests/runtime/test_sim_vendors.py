"""The simulated price sources and bridges, read by decoders that refuse what the real ones never send."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from moonxd.domain.chain import CHAINS
from tests.services.simulator import SimulatorProcess

NATIVE = "0x" + "0" * 40
WETH = "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"
USDC = "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48"
WALLET = "0x" + "c3" * 20


class Coin(msgspec.Struct, forbid_unknown_fields=True):
    symbol: str
    price: Decimal
    timestamp: int
    confidence: float
    decimals: int | None = None


class Coins(msgspec.Struct, forbid_unknown_fields=True):
    coins: dict[str, Coin]


class Side(msgspec.Struct, forbid_unknown_fields=True):
    address: str
    name: str
    symbol: str


class Pair(msgspec.Struct, rename="camel"):
    chain_id: str
    pair_address: str
    base_token: Side
    quote_token: Side
    price_usd: str
    liquidity: dict[str, float]


def llama(simulator: SimulatorProcess, *coins: str) -> dict[str, Coin]:
    answer = simulator.http.get("/llama/coins/prices/current/" + ",".join(coins), params={"searchWidth": "4h"})
    return msgspec.json.decode(answer.content, type=Coins).coins


def test_llama_echoes_the_case_and_leaves_out_what_it_does_not_know(simulator: SimulatorProcess) -> None:
    asked = (f"ethereum:{WETH}", f"ethereum:{NATIVE}", "coingecko:ethereum", f"ethereum:{WALLET}", "moon:0x1", "x")
    coins = llama(simulator, *asked)
    assert set(coins) == set(asked[:3])
    assert {coin.price for coin in coins.values()} == {Decimal("3150.42")}
    assert coins["coingecko:ethereum"].decimals is None
    assert coins[f"ethereum:{WETH}"].decimals == 18


def test_llama_agrees_with_the_truth_on_every_token_of_a_wallet(simulator: SimulatorProcess) -> None:
    for slug, chain in simulator.wallet(WALLET)["chains"].items():
        name = CHAINS[chain["chainId"]].llama
        rows = {f"{name}:{row['address']}": row for row in chain["tokens"]}
        coins = llama(simulator, *rows) if rows else {}
        for key, row in rows.items():
            if row["priceUsd"] is None:
                assert key not in coins, slug
            else:
                assert coins[key].price == Decimal(row["priceUsd"])
                assert coins[key].confidence == row["confidence"]


def test_llama_refuses_a_list_that_is_too_long(simulator: SimulatorProcess) -> None:
    answer = simulator.http.get("/llama/coins/prices/current/" + ",".join(["a:b"] * 261))
    assert answer.status_code == 414


def test_a_price_can_be_set_and_a_source_can_lie(simulator: SimulatorProcess) -> None:
    address = simulator.deploy(chain="base", address="0x" + "ab" * 20, symbol="A", decimals=6, price_usd="0.000000123")
    key = f"base:{address}"
    assert llama(simulator, key)[key].price == Decimal("0.000000123")
    truth = simulator.put_wallet(WALLET, {"base": {address: "2000000000000"}}, replace=True)
    (row,) = truth["chains"]["base"]["tokens"]
    assert Decimal(row["valueUsd"]) == Decimal("0.246")
    simulator.turn({"llama": {"price_factor": 1000}})
    assert llama(simulator, key)[key].price == Decimal("0.000123")


def test_llama_statistics(simulator: SimulatorProcess) -> None:
    chains = simulator.http.get("/llama/api/v2/chains").json()
    by_id = {row["chainId"]: row for row in chains}
    assert set(by_id) == {*CHAINS, None}
    assert by_id[10]["name"] == "OP Mainnet"
    for name in ("ethereum", "Base", "OP Mainnet", "bsc"):
        dexs = simulator.http.get(f"/llama/api/overview/dexs/{name}", params={"excludeTotalDataChart": "true"}).json()
        assert dexs["total24h"] > 0
        assert dexs["total48hto24h"] > 0
    assert simulator.http.get("/llama/api/overview/dexs/moon").status_code == 404


def test_llama_finds_the_block_of_a_time(simulator: SimulatorProcess) -> None:
    newest = simulator.rpc("base", "eth_getBlockByNumber", "latest", False)["result"]
    when = int(newest["timestamp"], 16)
    block = simulator.http.get(f"/llama/coins/block/base/{when}").json()
    assert when - 2 <= block["timestamp"] <= when
    assert abs(block["height"] - int(newest["number"], 16)) <= 1


def test_coingecko_answers_in_lower_case(simulator: SimulatorProcess) -> None:
    query = {
        "contract_addresses": f"{WETH},{WALLET}",
        "vs_currencies": "usd",
        "include_last_updated_at": "true",
        "include_24hr_vol": "true",
    }
    answer = simulator.http.get("/coingecko/api/v3/simple/token_price/ethereum", params=query).json()
    assert list(answer) == [WETH.lower()]
    assert answer[WETH.lower()]["usd"] == 3150.42
    assert set(answer[WETH.lower()]) == {"usd", "usd_24h_vol", "last_updated_at"}
    assert simulator.http.get("/coingecko/api/v3/simple/token_price/moon", params=query).status_code == 404
    assert simulator.http.get("/coingecko/api/v3/simple/token_price/ethereum").status_code == 422


def test_dexscreener_sends_pairs_with_the_token_on_either_side(simulator: SimulatorProcess) -> None:
    for path in ("/dexscreener", "/dexscreener/latest"):
        pairs = msgspec.convert(simulator.http.get(f"{path}/tokens/v1/ethereum/{WETH}").json(), list[Pair])
        straight = [pair for pair in pairs if pair.base_token.address == WETH.lower()]
        assert [pair.price_usd for pair in straight] == ["3150.42"]
        assert len(pairs) == 2
        assert max(pairs, key=lambda pair: pair.liquidity["usd"]) not in straight, "the deepest pair is the trap"
    assert simulator.http.get(f"/dexscreener/tokens/v1/ethereum/{WALLET}").json() == []
    assert simulator.http.get(f"/dexscreener/latest/dex/tokens/{WALLET}").json()["pairs"] is None
    everywhere = simulator.http.get(f"/dexscreener/latest/dex/tokens/{WETH},{USDC}").json()["pairs"]
    assert len(msgspec.convert(everywhere, list[Pair])) == 4
    assert simulator.http.get("/dexscreener/tokens/v1/ethereum/" + ",".join([WETH] * 31)).status_code == 400


def test_binance_fails_the_whole_question_for_one_unknown_symbol(simulator: SimulatorProcess) -> None:
    def ask(**query: str) -> Any:
        return simulator.http.get("/binance/api/v3/ticker/price", params=query)

    rows = ask(symbols=json.dumps(["ETHUSDT", "BNBUSDT", "BTCUSDT"])).json()
    assert [row["symbol"] for row in rows] == ["ETHUSDT", "BNBUSDT", "BTCUSDT"]
    assert rows[0]["price"] == "3150.42"
    assert ask(symbol="ETHUSDT").json() == rows[0]
    assert (ask(symbols='["ETHUSDT","MOONUSDT"]').status_code, ask(symbol="X").json()["code"]) == (400, -1121)
    assert ask().json()["code"] == -1102
    assert ask(symbols="[").status_code == 400


LIFI = {
    "fromChain": "8453", "toChain": "1", "fromToken": "USDC", "toToken": USDC,
    "fromAmount": "100000000", "fromAddress": WALLET,
}  # fmt: skip


def test_lifi_quotes(simulator: SimulatorProcess) -> None:
    answer = simulator.http.get("/lifi/v1/quote", params=LIFI)
    assert int(answer.headers["ratelimit-remaining"]) > 0
    quote = answer.json()
    assert quote["estimate"]["toAmount"] == "99700000"
    assert quote["estimate"]["executionDuration"] == 48
    assert (quote["action"]["fromChainId"], quote["action"]["toChainId"]) == (8453, 1)
    assert {row["id"] for row in simulator.http.get("/lifi/v1/chains").json()["chains"]} == set(CHAINS)


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"fromAmount": "10"}, 404, 1002),
        ({"fromAmount": "ten"}, 400, 1011),
        ({"toChain": "5"}, 400, 1011),
        ({"toToken": "MOON"}, 400, 1011),
        ({"fromAddress": ""}, 400, 1011),
        ({"slippage": "some"}, 400, 1011),
    ],
)
def test_lifi_refusals(simulator: SimulatorProcess, change: dict[str, str], status: int, code: int) -> None:
    answer = simulator.http.get("/lifi/v1/quote", params={**LIFI, **change})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert ("errors" in answer.json()) == (status == 404)


def test_relay_quotes_and_health(simulator: SimulatorProcess) -> None:
    question = {
        "user": WALLET, "originChainId": 8453, "destinationChainId": 42161, "originCurrency": NATIVE,
        "destinationCurrency": NATIVE, "amount": str(5 * 10**16), "tradeType": "EXACT_INPUT",
    }  # fmt: skip
    for path in ("/relay/quote/v2", "/relay/quote"):
        quote = simulator.http.post(path, json=question).json()
        assert quote["details"]["currencyOut"]["amount"] == str(5 * 10**16 * 997 // 1000)
        assert quote["steps"][0]["kind"] == "transaction"
        assert {"gas", "relayer"} <= set(quote["fees"])
    for broken in ({}, {**question, "amount": "0"}, {**question, "originChainId": 5}, {**question, "amount": "9"}):
        answer = simulator.http.post("/relay/quote/v2", json=broken)
        assert answer.status_code == 400
        assert answer.json()["errorCode"]
    simulator.turn({"base": {"halted": True}})
    lagging = {row["id"]: row["blockProductionLagging"] for row in simulator.http.get("/relay/chains").json()["chains"]}
    assert [chain_id for chain_id, slow in lagging.items() if slow] == [8453]
    assert simulator.http.get("/relay/chains/health", params={"chainId": 8453}).json() == {"healthy": False}
    assert simulator.http.get("/relay/chains/health", params={"chainId": 1}).json() == {"healthy": True}
