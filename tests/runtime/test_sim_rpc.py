"""The simulated nodes: shapes read by strict decoders, calls read by an ABI library, balances equal to the truth."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from eth_abi import decode, encode  # type: ignore[attr-defined]

from moonxd.domain.chain import CHAINS
from tests.services.simulator import SimulatorProcess

MULTICALL3 = "0xcA11bde05977b3631167028862bE2a173976CA11"
WALLET = "0x" + "a1" * 20
STRANGER = "0x" + "b2" * 20
USDC = "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48"
MKR = "0x9f8f72aa9304c8b593d555f12ef6589cc3a579a2"
NATIVE = "0x" + "0" * 40

Hex = str


class Block(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    number: Hex
    hash: Hex
    parent_hash: Hex
    nonce: Hex
    sha3_uncles: Hex
    logs_bloom: Hex
    transactions_root: Hex
    state_root: Hex
    receipts_root: Hex
    miner: Hex
    difficulty: Hex
    extra_data: Hex
    gas_limit: Hex
    gas_used: Hex
    timestamp: Hex
    mix_hash: Hex
    base_fee_per_gas: Hex
    size: Hex
    total_difficulty: Hex
    transactions: list[Hex]
    uncles: list[Hex]
    milli_timestamp: Hex | None = None


class FeeHistory(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    oldest_block: Hex
    base_fee_per_gas: list[Hex]
    gas_used_ratio: list[float]
    reward: list[list[Hex]]


class Answer(msgspec.Struct, forbid_unknown_fields=True):
    jsonrpc: str
    id: Any
    result: Any


class TokenEntry(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    contract_address: Hex
    token_balance: Hex | None
    error: str | None = None


class TokenPage(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    address: Hex
    token_balances: list[TokenEntry]
    page_key: str | None = None


class TokenMetadata(msgspec.Struct, forbid_unknown_fields=True):
    name: str | None
    symbol: str | None
    decimals: int | None
    logo: str | None


def result(answer: Any, kind: Any = Any) -> Any:
    return msgspec.convert(msgspec.convert(answer, Answer).result, kind)


def balance_of(wallet: str) -> bytes:
    return bytes.fromhex("70a08231") + encode(["address"], [wallet])


def aggregate3(calls: list[tuple[str, bool, bytes]]) -> dict[str, str]:
    data = bytes.fromhex("82ad56cb") + encode(["(address,bool,bytes)[]"], [calls])
    return {"to": MULTICALL3, "data": "0x" + data.hex()}


def results(answer: Any) -> list[tuple[bool, bytes]]:
    (rows,) = decode(["(bool,bytes)[]"], bytes.fromhex(result(answer)[2:]), strict=True)
    return list(rows)


def test_every_chain_has_its_id_and_its_blocks(simulator: SimulatorProcess) -> None:
    for chain in CHAINS.values():
        for name in (chain.slug, str(chain.id)):
            assert int(result(simulator.rpc(name, "eth_chainId")), 16) == chain.id
        assert result(simulator.rpc(chain.slug, "net_version")) == str(chain.id)
        block = result(simulator.rpc(chain.slug, "eth_getBlockByNumber", "latest", False), Block)
        again = result(simulator.rpc(chain.slug, "eth_getBlockByNumber", block.number, False), Block)
        assert again == block
        before = hex(int(block.number, 16) - 1)
        assert result(simulator.rpc(chain.slug, "eth_getBlockByNumber", before, False), Block).hash == block.parent_hash
        assert (block.milli_timestamp is not None) == (chain.id == 56)
        fees = result(simulator.rpc(chain.slug, "eth_feeHistory", "0x5", "latest", [50]), FeeHistory)
        assert (len(fees.base_fee_per_gas), len(fees.gas_used_ratio), len(fees.reward)) == (6, 5, 5)
        assert int(result(simulator.rpc(chain.slug, "eth_gasPrice")), 16) > 0
    assert result(simulator.rpc("base", "eth_getBlockByNumber", "0xffffffffff", False)) is None


def test_multicall_answers_equal_the_truth(simulator: SimulatorProcess) -> None:
    for slug, truth in simulator.wallet(WALLET)["chains"].items():
        rows = [row for row in truth["tokens"] if row["address"] != NATIVE and row["trait"] != "poison"]
        coin = sum(int(row["raw"]) for row in truth["tokens"] if row["address"] == NATIVE)
        calls = [(MULTICALL3, True, bytes.fromhex("4d2301cc") + encode(["address"], [WALLET]))]
        calls += [(row["address"], True, balance_of(WALLET)) for row in rows]
        (native, *balances) = results(simulator.rpc(slug, "eth_call", aggregate3(calls), "latest"))
        assert native == (True, encode(["uint256"], [coin]))
        for row, balance in zip(rows, balances, strict=True):
            expected = (True, encode(["uint256"], [int(row["raw"])])) if row["readable"] else (False, b"")
            assert balance == expected, row
        assert int(result(simulator.rpc(slug, "eth_getBalance", WALLET, "latest")), 16) == coin


def test_one_call_may_ask_about_several_wallets(simulator: SimulatorProcess) -> None:
    simulator.put_wallet(WALLET, {"ethereum": {USDC: "5"}})
    simulator.put_wallet(STRANGER, {"ethereum": {USDC: "7"}})
    asks = [(USDC, True, balance_of(wallet)) for wallet in (WALLET, STRANGER, WALLET)]
    answers = results(simulator.rpc("ethereum", "eth_call", aggregate3(asks), "latest"))
    assert [int.from_bytes(data, "big") for _, data in answers] == [5, 7, 5]


@pytest.mark.parametrize("wallet", [NATIVE, "0x" + "0" * 39 + "1", USDC, "0x" + "f" * 40])
def test_odd_wallets_do_not_confuse_the_call(simulator: SimulatorProcess, wallet: str) -> None:
    simulator.put_wallet(wallet, {"ethereum": {USDC: "11", MKR: "12", "native": "13"}})
    native = bytes.fromhex("4d2301cc") + encode(["address"], [wallet])
    calls = [(USDC, True, balance_of(wallet)), (MKR, False, balance_of(wallet)), (MULTICALL3, True, native)]
    answers = results(simulator.rpc("ethereum", "eth_call", aggregate3(calls), "latest"))
    assert [(ok, int.from_bytes(data, "big")) for ok, data in answers] == [(True, 11), (True, 12), (True, 13)]


def test_facts_of_the_block_come_from_multicall(simulator: SimulatorProcess) -> None:
    block = result(simulator.rpc("base", "eth_getBlockByNumber", "latest", False), Block)
    selectors = ("42cbb15c", "0f28c97d", "3408e470")
    calls = [(MULTICALL3, True, bytes.fromhex(selector)) for selector in selectors]
    answers = results(simulator.rpc("base", "eth_call", aggregate3(calls), block.number))
    expected = [int(block.number, 16), int(block.timestamp, 16), 8453]
    assert [int.from_bytes(data, "big") for _, data in answers] == expected


def test_metadata_in_both_encodings(simulator: SimulatorProcess) -> None:
    def ask(token: str, selector: str) -> bytes:
        answer = simulator.rpc("ethereum", "eth_call", {"to": token, "data": "0x" + selector}, "latest")
        return bytes.fromhex(result(answer)[2:])

    assert decode(["string"], ask(USDC, "95d89b41")) == ("USDC",)
    assert decode(["uint8"], ask(USDC, "313ce567")) == (6,)
    assert ask(MKR, "95d89b41") == b"MKR".ljust(32, b"\0")
    assert ask("0x" + "77" * 20, "95d89b41") == b"", "no contract answers with nothing, and successfully"
    assert result(simulator.rpc("ethereum", "eth_getCode", USDC, "latest")) != "0x"
    assert result(simulator.rpc("ethereum", "eth_getCode", WALLET, "latest")) == "0x"


def test_older_aggregate_functions_answer_too(simulator: SimulatorProcess) -> None:
    simulator.put_wallet(WALLET, {"ethereum": {USDC: "5"}})
    calls = [(USDC, balance_of(WALLET))]

    def ask(selector: str, kinds: list[str], values: list[Any], answer: list[str]) -> Any:
        data = "0x" + selector + encode(kinds, values).hex()
        raw = simulator.rpc("ethereum", "eth_call", {"to": MULTICALL3, "data": data}, "latest")
        return decode(answer, bytes.fromhex(result(raw)[2:]), strict=True)

    five = encode(["uint256"], [5])
    assert ask("bce38bd7", ["bool", "(address,bytes)[]"], [False, calls], ["(bool,bytes)[]"]) == (((True, five),),)
    height, data = ask("252dba42", ["(address,bytes)[]"], [calls], ["uint256", "bytes[]"])
    assert height > 0
    assert data == (five,)
    pinned = ask("399542e9", ["bool", "(address,bytes)[]"], [True, calls], ["uint256", "bytes32", "(bool,bytes)[]"])
    assert pinned[0] >= height
    assert pinned[2] == ((True, five),)


def test_one_poisonous_token_is_survived_two_take_the_whole_call_down(simulator: SimulatorProcess) -> None:
    first, second = (
        simulator.deploy(chain="base", address="0x" + digit * 40, symbol="P", decimals=18, trait="poison")
        for digit in "89"
    )
    usdc = "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913"
    many = [(usdc, True, balance_of(WALLET))] * 100
    one = simulator.rpc("base", "eth_call", aggregate3([(first, True, balance_of(WALLET)), *many]), "latest")
    assert [ok for ok, _ in results(one)] == [False] + [True] * 100
    both = [(first, True, balance_of(WALLET)), (second, True, balance_of(WALLET)), *many]
    dead = simulator.rpc("base", "eth_call", aggregate3(both), "latest")
    assert dead["error"] == {"code": -32000, "message": "out of gas"}
    alone = simulator.rpc("base", "eth_call", {"to": first, "data": "0x" + balance_of(WALLET).hex()}, "latest")
    assert "invalid opcode" in alone["error"]["message"]


def test_a_call_that_must_not_fail_reverts_everything(simulator: SimulatorProcess) -> None:
    simulator.turn({"ethereum": {"reverting": [USDC]}})
    answer = simulator.rpc("ethereum", "eth_call", aggregate3([(USDC, False, balance_of(WALLET))]), "latest")
    assert answer["error"]["code"] == 3
    assert bytes.fromhex(answer["error"]["data"][2:])[:4].hex() == "08c379a0"
    assert results(simulator.rpc("ethereum", "eth_call", aggregate3([(USDC, True, balance_of(WALLET))]), "latest")) == [
        (False, b"")
    ]


@pytest.mark.parametrize(
    "data",
    ["0x82ad56cb", "0x82ad56cb" + "ff" * 64, "0x82ad56cb" + "00" * 31 + "20" + "ff" * 32, "0x12345678", "0x"],
)
def test_nonsense_calldata_reverts(simulator: SimulatorProcess, data: str) -> None:
    answer = simulator.rpc("ethereum", "eth_call", {"to": MULTICALL3, "data": data}, "latest")
    assert answer["error"] == {"code": -32000, "message": "execution reverted"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b"\xff\xfe", -32700),
        (b'{"id":1,"method":"\xd1"}', -32700),
        (b'{"id":1,"method":"eth_call","params":' + b"[" * 100_000, -32700),
        (b"5", -32600),
        (b"[]", -32600),
        (b"[5]", -32600),
        (b'{"id":1}', -32600),
        (b'{"id":1,"method":"eth_nothing"}', -32601),
        (b'{"id":1,"method":"eth_call"}', -32602),
        (b'{"id":1,"method":"eth_call","params":{}}', -32602),
        (b'{"id":1,"method":"eth_call","params":[{"to":"0x12"},"latest"]}', -32602),
        (b'{"id":1,"method":"eth_call","params":[{"to":null}]}', -32602),
        (b'{"id":1,"method":"eth_getBalance","params":["0xzz"]}', -32602),
        (b'{"id":1,"method":"eth_getBlockByNumber","params":["newest",false]}', -32602),
        (b'{"id":1,"method":"eth_getBalance","params":["0x%b","0xffffffffff"]}' % (b"a" * 40), -32000),
    ],
)
def test_bad_questions_get_the_usual_errors(simulator: SimulatorProcess, body: bytes, code: int) -> None:
    answer = simulator.http.post("/rpc/ethereum", content=body)
    assert answer.status_code == 200
    assert answer.json()["error"]["code"] == code
    assert simulator.http.post("/alchemy/eth-mainnet/v2/key", content=body).json()["error"]["code"] == code


def test_a_batch_is_answered_by_id(simulator: SimulatorProcess) -> None:
    names = ["eth_chainId", "eth_nothing", "web3_clientVersion"]
    batch = [{"jsonrpc": "2.0", "id": f"n{i}", "method": name, "params": []} for i, name in enumerate(names)]
    answers = {one["id"]: one for one in simulator.http.post("/rpc/bsc", json=batch).json()}
    assert answers["n0"]["result"] == "0x38"
    assert answers["n1"]["error"]["code"] == -32601
    assert simulator.stats()["upstreams"]["bsc"]["requests"] == 1


def test_alchemy_lists_balances_zeros_and_errors_page_by_page(simulator: SimulatorProcess) -> None:
    path = "alchemy/eth-mainnet/v2"
    for number in range(60):
        wallet = f"0x{number:040x}"
        truth = {row["address"]: row for row in simulator.wallet(wallet)["chains"]["ethereum"]["tokens"]}
        truth.pop(NATIVE, None)
        entries: list[TokenEntry] = []
        options: dict[str, Any] = {}
        while True:
            page = result(
                simulator.rpc("key", "alchemy_getTokenBalances", wallet, "erc20", options, path=path), TokenPage
            )
            assert len(page.token_balances) <= 100
            entries += page.token_balances
            if page.page_key is None:
                break
            options = {"pageKey": page.page_key}
        found = {entry.contract_address: entry for entry in entries}
        assert len(found) == len(entries)
        for address, row in truth.items():
            entry = found.pop(address)
            if row["readable"]:
                assert entry.token_balance is not None
                assert int(entry.token_balance, 16) == int(row["raw"])
                assert len(entry.token_balance) == 66
            else:
                assert (entry.token_balance, entry.error) == (None, "execution reverted")
        assert all(entry.error or entry.token_balance == "0x" + "0" * 64 for entry in found.values())


def test_alchemy_small_pages_and_named_tokens(simulator: SimulatorProcess) -> None:
    path = "alchemy/eth-mainnet/v2"
    simulator.put_wallet(WALLET, {"ethereum": {USDC: "5", MKR: "6", "native": "7"}}, replace=True)
    page = result(
        simulator.rpc("k", "alchemy_getTokenBalances", WALLET, "erc20", {"maxCount": 1}, path=path), TokenPage
    )
    assert [entry.contract_address for entry in page.token_balances] == [USDC]
    options = {"maxCount": 1, "pageKey": page.page_key}
    page = result(simulator.rpc("k", "alchemy_getTokenBalances", WALLET, "erc20", options, path=path), TokenPage)
    assert ([entry.contract_address for entry in page.token_balances], page.page_key) == ([MKR], None)
    named = result(simulator.rpc("k", "alchemy_getTokenBalances", WALLET, [MKR], path=path), TokenPage)
    assert [entry.contract_address for entry in named.token_balances] == [MKR]


def test_alchemy_metadata_keys_and_batches(simulator: SimulatorProcess) -> None:
    path = "alchemy/eth-mainnet/v2"
    known = result(simulator.rpc("k", "alchemy_getTokenMetadata", USDC, path=path), TokenMetadata)
    assert (known.symbol, known.decimals) == ("USDC", 6)
    unknown = result(simulator.rpc("k", "alchemy_getTokenMetadata", WALLET, path=path), TokenMetadata)
    assert unknown == TokenMetadata(None, None, None, None)
    mute = simulator.deploy(chain=1, address="0x" + "5" * 40, symbol="M", decimals=18, trait="mute")
    assert result(simulator.rpc("k", "alchemy_getTokenMetadata", mute, path=path), TokenMetadata).decimals is None
    one = {"jsonrpc": "2.0", "id": 1, "method": "alchemy_getTokenMetadata", "params": [USDC]}
    batched = simulator.http.post(f"/{path}/k", json=[one]).json()
    assert batched[0]["error"]["code"] == -32600
    assert simulator.rpc("ethereum", "alchemy_getTokenMetadata", USDC)["error"]["code"] == -32601
    for key, status in (("invalid", 401), ("over-quota", 403)):
        refused = simulator.http.post(f"/{path}/{key}", json=one)
        assert refused.status_code == status
        assert refused.json()["error"]["code"] == -32600
