"""The whole daemon against six real EVM nodes: what was put on the chains is what the ledger holds."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from moonxd.api import calls
from moonxd.domain.address import NATIVE
from moonxd.domain.chain import CHAINS
from tests.services.anvil import AnvilChain, new_wallet
from tests.services.daemon import StartDaemon
from tests.services.simulator import SimulatorProcess

pytestmark = [pytest.mark.anvil, pytest.mark.slow]

ETHER = 10**18
SUPPLY = 10**27


@pytest.fixture
def token_list(anvil_chains: dict[int, AnvilChain], tmp_path: Path) -> tuple[Path, dict[int, str], str]:
    """A token deployed on every chain, the list that names them, and the owner of all of it."""
    owner = new_wallet()
    tokens = {
        chain_id: node.deploy_erc20("TST", f"Test on {node.chain.name}", SUPPLY, owner)
        for chain_id, node in anvil_chains.items()
    }
    entries = [
        {"chainId": chain_id, "address": address, "symbol": "TST", "name": "Test", "decimals": 18}
        for chain_id, address in tokens.items()
    ]
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps({"name": "test", "version": {"major": 1}, "tokens": entries}))
    return path, tokens, owner


def test_a_wallet_on_six_real_chains(
    start_daemon: StartDaemon,
    simulator: SimulatorProcess,
    anvil_chains: dict[int, AnvilChain],
    token_list: tuple[Path, dict[int, str], str],
) -> None:
    path, tokens, owner = token_list
    wallet = new_wallet()
    for number, (chain_id, node) in enumerate(anvil_chains.items(), 1):
        node.fund(wallet, number * ETHER + 7)
        node.transfer(tokens[chain_id], owner, wallet, number * ETHER // 4)
    endpoints = {f"{CHAINS[chain_id].slug.upper()}_RPC_URL": node.url for chain_id, node in anvil_chains.items()}
    daemon = start_daemon(
        {
            **endpoints,
            "DEFILLAMA_COINS_URL": simulator.env["DEFILLAMA_COINS_URL"],
            "MOONXD_TOKENS__LIST_FILES": str(path),
        }
    )
    result = daemon.wait(daemon.enqueue(wallet, chain_ids=("ethereum", 137, "10", 42161, 8453, 56))).result
    assert (result["chainsSync"], result["chainsFailed"]) == (6, [])

    with daemon.client() as client:
        (portfolio,) = client.call(calls.portfolio(wallet)).portfolios
    held = {(row.chain_id, row.address): row for row in portfolio.holdings}
    expected: dict[tuple[int, str], int] = {}
    for number, chain_id in enumerate(anvil_chains, 1):
        expected[chain_id, NATIVE] = number * ETHER + 7
        expected[chain_id, tokens[chain_id]] = number * ETHER // 4
    assert {key: int(row.balance) for key, row in held.items()} == expected
    assert held[1, NATIVE].amount == Decimal("1.000000000000000007")
    assert held[1, NATIVE].price_usd is not None
    assert held[1, tokens[1]].price_usd is None, "nobody knows a price for a token deployed a second ago"
    assert held[137, NATIVE].symbol == "POL"

    # Everything is sent away: the rows go with it, and the tokens are still remembered.
    for chain_id, node in anvil_chains.items():
        node.transfer(tokens[chain_id], wallet, owner, expected[chain_id, tokens[chain_id]])
        node.fund(wallet, 0)
    result = daemon.wait(daemon.enqueue(wallet, sync_type="full")).result
    assert result["tokensSync"] == 0
    with daemon.client() as client:
        (portfolio,) = client.call(calls.portfolio(wallet)).portfolios
    assert portfolio.holdings == ()
