"""The job types beside portfolio-sync, as an operator uses them: added, watched, cancelled on a real daemon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moonxd.api import calls
from tests.cli.test_serve import cli
from tests.services.daemon import StartDaemon, until
from tests.services.simulator import SimulatorProcess

pytestmark = pytest.mark.slow

WALLETS = [f"0x{number * 104_729:040x}" for number in range(1, 121)]


def test_a_bulk_job_from_a_file(start_daemon: StartDaemon, simulator: SimulatorProcess, tmp_path: Path) -> None:
    daemon = start_daemon(simulator.env)
    file = tmp_path / "wallets.csv"
    file.write_text("".join(f"user-{number},{wallet}\n" for number, wallet in enumerate(WALLETS)))
    done = cli(daemon, "enqueue", "bulk-sync", "--wallets", str(file), "--chain", "base", "--wait", "--json")
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert (job["result"]["total"], job["result"]["succeeded"]) == (120, 120)
    assert job["progress"] == {"done": 120, "total": 120, "failed": 0, "percent": 100}
    assert {row["status"] for row in job["result"]["results"]} == {"completed"}
    assert [row["userId"] for row in job["result"]["results"]][:2] == ["user-0", "user-1"]
    with daemon.client() as client:
        (portfolio,) = client.call(calls.portfolio(WALLETS[7])).portfolios
    assert portfolio.user_id == "user-7"
    assert portfolio.holdings


def test_a_chain_job_shares_its_requests(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    daemon = start_daemon(simulator.env)
    given = [part for wallet in WALLETS[:100] for part in ("--wallet", wallet)]

    def eth_calls() -> int:
        count: int = simulator.stats()["upstreams"]["polygon"]["methods"].get("eth_call", 0)
        return count

    chain = ("--chain", "polygon", "--user", "u1", "--wait", "--json")
    one_by_one = cli(daemon, "enqueue", "bulk-sync", *given, *chain)
    assert json.loads(one_by_one.stdout)["result"]["succeeded"] == 100, one_by_one.stderr
    alone = eth_calls()
    shared = cli(daemon, "enqueue", "chain-sync", *given, *chain)
    assert json.loads(shared.stdout)["result"]["succeeded"] == 100, shared.stderr
    assert (eth_calls() - alone) * 5 <= alone, f"{eth_calls() - alone} instead of {alone}"


def test_a_running_bulk_job_is_cancelled(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    simulator.turn({"*": {"latency_ms": 8000}})
    daemon = start_daemon(simulator.env)
    given = [part for wallet in WALLETS[:20] for part in ("--wallet", wallet)]
    added = cli(daemon, "enqueue", "bulk-sync", "--user", "u1", *given, "--json")
    job_id = json.loads(added.stdout)["jobId"]
    with daemon.client() as client:
        until(lambda: len(client.call(calls.operations(status="running")).operations) == 5, "half the slots")
        assert client.call(calls.cancel(job_id)).cancelled
        until(lambda: client.call(calls.job(job_id)).state == "failed", "it ends")
        operations = client.call(calls.operations()).operations
    assert {row.status for row in operations} == {"cancelled"}
    simulator.reset()
    assert daemon.wait(daemon.enqueue(WALLETS[0])).state == "completed", "no wallet stays locked"


def test_tokens_are_described_anew(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    token = simulator.deploy(chain="base", address="0x" + "d7" * 20, symbol="OWN", name="My own", decimals=7)
    daemon = start_daemon(simulator.env)
    done = cli(daemon, "enqueue", "token-metadata", "--chain", "base", "--token", token, "--wait", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"]["tokens"] == [
        {"chainId": 8453, "address": token, "symbol": "OWN", "name": "My own", "decimals": 7}
    ]
    refused = cli(daemon, "enqueue", "token-metadata", "--chain", "base", "--token", token, "--force")
    assert refused.returncode == 1
    assert "forceRefresh means nothing for a token-metadata job" in refused.stderr
