"""Real EVM nodes for the tests: anvil, one per chain, each with Multicall3 where every chain has it.

`AnvilChain` starts, asks and stops one node; it is synchronous and speaks through the standard library's HTTP client,
so that what is put on a chain does not pass through the code under test. Fixtures: `anvil_chains` (six chains for the
whole run, by chain id: put tokens and wallets of your own there, change nothing else), `start_anvil` (a factory for
tests that break theirs).

multicall3.hex is the runtime code of Multicall3 (github.com/mds1/multicall3, MIT), checked against the hash of the
code deployed on the public chains.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from eth_abi import encode

from moonxd.domain.chain import CHAINS, Chain
from moonxd.domain.keccak import keccak256
from tests.services import NODE_DIR, free_port, have, missing
from tests.services.redis import die_with_parent

MULTICALL3 = "0xca11bde05977b3631167028862be2a173976ca11"
_MULTICALL3_HASH = "d5c15df687b16f2ff992fc8d767b4216323184a2bbc6ee2f9c398c318e770891"
_READY_WITHIN_S = 15.0

#: Runtime codes of contracts that misbehave.
INVALID = "0xfe"
REVERTING = "0x60006000fd"
ENDLESS = "0x5b600056"
EMPTY_ANSWER = "0x00"

_wallets = count(random.SystemRandom().getrandbits(100))


def answering(word: bytes) -> str:
    """Code of a contract that answers every call with these 32 bytes."""
    assert len(word) == 32
    return "0x7f" + word.hex() + "60005260206000f3"


def answering_long(data: bytes) -> str:
    """Code of a contract that answers every call with `data`, whatever its length (copied from behind the code)."""
    size = len(data).to_bytes(4, "big").hex()
    return f"0x63{size}80600e6000396000f3{data.hex()}"


def balance_only(raw: int) -> str:
    """Code of a contract that answers balanceOf and burns all gas on every other question."""
    return "0x60003560e01c6370a0823114601057fe5b" + answering(raw.to_bytes(32, "big"))[2:]


def new_wallet() -> str:
    """An address that no other test uses."""
    return "0x" + (next(_wallets) % 2**100 | 1 << 159).to_bytes(20, "big").hex()


@cache
def multicall3_code() -> str:
    code = "".join(Path(__file__).with_name("multicall3.hex").read_text().split())
    assert keccak256(bytes.fromhex(code)).hex() == _MULTICALL3_HASH
    return "0x" + code


@cache
def _erc20_code() -> bytes:
    path = (
        NODE_DIR
        / "node_modules"
        / "@openzeppelin"
        / "contracts"
        / "build"
        / "contracts"
        / "ERC20PresetFixedSupply.json"
    )
    return bytes.fromhex(json.loads(path.read_text())["bytecode"].removeprefix("0x"))


class AnvilChain:
    """One running node. `chain` is the chain it plays; `url` is its endpoint."""

    def __init__(self, chain: Chain, binary: Path, home: Path, *args: str) -> None:
        self.chain = chain
        self._command = [str(binary), "--host", "127.0.0.1", "--chain-id", str(chain.id), "--silent", *args]
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        self._link: http.client.HTTPConnection | None = None
        self._ids = count(1)
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def launch(self, port: int | None = None) -> None:
        """Start the process, on the main thread: it is to die with us. `await_ready` must follow."""
        self.port = port or free_port()
        self._process = subprocess.Popen(
            [*self._command, "--port", str(self.port)],
            env={**os.environ, "HOME": str(self._home)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )

    def await_ready(self) -> None:
        """Wait until it answers and put Multicall3 there; try other ports when somebody had taken ours."""
        for _ in range(5):
            if self._ready():
                self.rpc("anvil_setCode", MULTICALL3, multicall3_code())
                return
            self.stop()
            self.launch()
        raise RuntimeError(f"anvil for {self.chain.slug} does not start")

    def _ready(self) -> bool:
        assert self._process is not None
        until = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < until and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.005)
            else:
                return int(self.rpc("eth_chainId"), 16) == self.chain.id
        return False

    def stop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def rpc(self, method: str, *params: Any) -> Any:
        """The result of a call. Raises RuntimeError with the node's error."""
        if self._link is None:
            self._link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        body = json.dumps({"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params})
        self._link.request("POST", "/", body, {"Content-Type": "application/json"})
        answer = json.loads(self._link.getresponse().read())
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    @property
    def height(self) -> int:
        return int(self.rpc("eth_blockNumber"), 16)

    def mine(self, blocks: int = 1) -> None:
        self.rpc("anvil_mine", hex(blocks))

    def mine_spaced(self, blocks: int, seconds: int) -> None:
        """Mine blocks that are exactly so many seconds apart, from the last one on, whatever the clock says."""
        self.rpc("anvil_setBlockTimestampInterval", seconds)
        self.mine(blocks)

    def follow_the_clock(self, every_s: int) -> None:
        """From now on mine by itself, with blocks that say what time it is."""
        self.rpc("anvil_removeBlockTimestampInterval")
        self.rpc("anvil_setTime", int(time.time()))
        self.rpc("evm_setIntervalMining", every_s)

    @property
    def head_at(self) -> int:
        """The timestamp of the newest block, unix seconds."""
        return int(self.rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def fund(self, wallet: str, wei: int) -> None:
        """Give `wallet` exactly this much of the native coin."""
        self.rpc("anvil_setBalance", wallet, hex(wei))

    def set_code(self, code: str, address: str | None = None) -> str:
        """Put a contract at `address` (a new one if None); its address."""
        address = address or new_wallet()
        self.rpc("anvil_setCode", address, code)
        return address

    def deploy_erc20(self, symbol: str, name: str, supply: int, owner: str) -> str:
        """Deploy OpenZeppelin's fixed-supply token (18 decimals), all of it owned by `owner`; its address."""
        arguments = encode(["string", "string", "uint256", "address"], [name, symbol, supply, owner])
        account = self.rpc("eth_accounts")[0]
        data = "0x" + (_erc20_code() + arguments).hex()
        transaction = self.rpc("eth_sendTransaction", {"from": account, "data": data, "gas": hex(3_000_000)})
        return str(self._receipt(transaction)["contractAddress"]).lower()

    def transfer(self, token: str, owner: str, to: str, raw: int) -> None:
        """Move tokens as their `owner`, with a real transaction."""
        data = "0xa9059cbb" + encode(["address", "uint256"], [to, raw]).hex()
        self.rpc("anvil_impersonateAccount", owner)
        self.fund(owner, 10**18)
        sent = self.rpc("eth_sendTransaction", {"from": owner, "to": token, "data": data, "gas": hex(200_000)})
        assert self._receipt(sent)["status"] == "0x1"
        self.rpc("anvil_stopImpersonatingAccount", owner)

    def _receipt(self, transaction: str) -> dict[str, Any]:
        until = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < until:
            # Right after the answer to the sender the receipt may not be there yet.
            receipt: dict[str, Any] | None = self.rpc("eth_getTransactionReceipt", transaction)
            if receipt is not None:
                return receipt
        raise RuntimeError(f"no receipt of {transaction}")


def _binary() -> Path:
    binary = NODE_DIR / "node_modules" / "@foundry-rs" / "anvil-linux-amd64" / "bin" / "anvil"
    if not os.access(binary, os.X_OK):
        missing("anvil", "run npm ci in tests/node on linux x86-64: the pinned package carries the binary")
    shown = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=30, check=False)
    if shown.returncode:
        missing("anvil", f"{binary} does not run here: {shown.stderr.strip()[:100]}")
    have("anvil", shown.stdout.split("\n")[0])
    return binary


@pytest.fixture(scope="session")
def _anvil(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AnvilChain]:
    binary = _binary()
    home = tmp_path_factory.mktemp("anvil-home")
    return lambda chain, *args: AnvilChain(chain, binary, home, *args)


@pytest.fixture(scope="session")
def anvil_chains(_anvil: Callable[..., AnvilChain]) -> Iterator[dict[int, AnvilChain]]:
    """The six chains, each an anvil of its own, by chain id."""
    nodes = {chain.id: _anvil(chain) for chain in CHAINS.values()}
    try:
        for node in nodes.values():
            node.launch()
        for node in nodes.values():
            node.await_ready()
        yield nodes
    finally:
        for node in nodes.values():
            node.stop()


@pytest.fixture
def start_anvil(_anvil: Callable[..., AnvilChain]) -> Iterator[Callable[..., AnvilChain]]:
    """Start a node of one's own: `start_anvil(chain, *arguments)`."""
    nodes: list[AnvilChain] = []

    def start(chain: Chain, *args: str) -> AnvilChain:
        node = _anvil(chain, *args)
        nodes.append(node)
        node.launch()
        node.await_ready()
        return node

    yield start
    for node in nodes:
        node.stop()
