"""The same as a process: `moonxd serve` on its own redis-server and SQLite file, against simulated chains.

What it finds is compared with what the simulator knows to be there.
"""

from __future__ import annotations

from decimal import Decimal

import pytest

from moonxd.api import calls
from moonxd.domain.chain import CHAINS
from tests.services.daemon import StartDaemon
from tests.services.simulator import SimulatorProcess

WALLET = "0x00000000219ab540356cbb839cbe05303d7705fa"


@pytest.mark.slow
def test_what_is_synced_is_what_is_there(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    daemon = start_daemon(simulator.env)

    job = daemon.wait(daemon.enqueue(WALLET, "alice"))
    assert job.state == "completed", job.reason
    assert job.result["chainsFailed"] == []

    truth = simulator.wallet(WALLET, listed=1)
    expected = {
        (chain["chainId"], token["address"]): (token["raw"], token["priceUsd"])
        for chain in truth["chains"].values()
        for token in chain["tokens"]
        if token["listed"] and token["readable"] and int(token["raw"])
    }
    with daemon.client() as client:
        (portfolio,) = client.call(calls.portfolio(WALLET, "alice")).portfolios
    found = {(row.chain_id, row.address): row for row in portfolio.holdings}
    assert set(found) == set(expected)
    assert {chain_id for chain_id, _ in found} == set(CHAINS)
    for token, (raw, usd) in expected.items():
        assert found[token].balance == raw
        if found[token].price_usd is not None:
            assert found[token].price_usd == Decimal(usd)
    assert portfolio.total_value_usd == Decimal(truth["totalValueUsd"])

    assert daemon.terminate() == 0
    assert not daemon.socket.exists(), "a daemon that ended in order leaves no socket behind"
