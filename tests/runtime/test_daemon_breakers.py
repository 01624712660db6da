"""The whole daemon: its endpoints' breakers are seen, overruled, counted, kept over a restart, and never in its way."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import httpx
import pytest

from moonxd.api import calls
from moonxd.api.messages import BreakerRequest
from tests.services.daemon import DaemonProcess, StartDaemon, until
from tests.services.simulator import SimulatorProcess

pytestmark = pytest.mark.slow

WALLET = "0x" + "5a" * 20


def modes(daemon: DaemonProcess) -> dict[str, str]:
    with daemon.client() as client:
        return {one.name: one.state for one in client.call(calls.breakers()).breakers}


def metrics(daemon: DaemonProcess) -> str:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(daemon.socket)), base_url="http://moonxd") as http:
        return http.get("/v1/metrics").text


def test_breakers_are_there_and_outlive_a_restart(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    daemon = start_daemon(simulator.env)
    assert daemon.wait(daemon.enqueue(WALLET)).state == "completed"
    found = modes(daemon)
    assert set(found.values()) == {"closed"}
    (base,) = (name for name in found if name.startswith("base/127.0.0.1:"))
    assert {"prices/defillama", "prices/coingecko", "prices/dexscreener", "prices/binance"} <= found.keys()
    snapshot = daemon.snapshot()
    assert snapshot is not None
    assert snapshot.breakers is not None
    assert {one.name: one.state for one in snapshot.breakers} == found
    with daemon.client() as client:
        client.call(calls.change_breaker(base, "cordon", BreakerRequest(reason="maintenance")))
    assert f'circuit_breaker_open_total{{breaker="{base}"}} 1.0' in metrics(daemon)
    detail = daemon.wait(daemon.enqueue(WALLET))
    assert [failed["chainId"] for failed in detail.result["chainsFailed"]] == [8453]
    daemon.kill()
    again = start_daemon(simulator.env, state=daemon.state)
    assert modes(again)[base] == "cordoned"
    assert "state_recovery_duration_seconds" in metrics(again)
    with again.client() as client:
        client.call(calls.change_breaker(base, "uncordon", BreakerRequest()))
    assert again.wait(again.enqueue(WALLET)).result["chainsFailed"] == []


def alerts(daemon: DaemonProcess, kind: str) -> str:
    """The system.alert events of a kind, as one text."""
    with daemon.client() as client:
        told = client.call(calls.events(limit=1000)).events
    bodies = (bytes(one.body).decode() for one in told if one.type == "system.alert")
    return "\n".join(body for body in bodies if kind in body)


def test_an_unreadable_row_does_not_stop_the_start(start_daemon: StartDaemon, simulator: SimulatorProcess) -> None:
    daemon = start_daemon(simulator.env)
    (base,) = (name for name in modes(daemon) if name.startswith("base/"))
    assert daemon.terminate() == 0
    with closing(sqlite3.connect(daemon.state / "moonxd.db")) as database, database:
        changed = database.execute("UPDATE moonxd_breakers SET state = '{torn' WHERE name = ?", (base,))
        assert changed.rowcount == 1, "a clean stop keeps every breaker"
    again = start_daemon(simulator.env, state=daemon.state)
    assert modes(again)[base] == "closed"
    until(lambda: f"breaker {base} starts afresh, its row is set aside" in alerts(again, "breaker_state_lost"), "alert")


def test_an_endpoint_that_is_down_is_left_alone_and_found_again(
    start_daemon: StartDaemon, simulator: SimulatorProcess
) -> None:
    environ = {"MOONXD_PROVIDERS__OPEN_S": "1", "MOONXD_ALCHEMY__RETRIES": "0", "MOONXD_QUEUE__ATTEMPTS": "1"}
    daemon = start_daemon({**simulator.env, **environ})
    (base,) = (name for name in modes(daemon) if name.startswith("base/"))
    simulator.http.patch("/sim/knobs", json={"base": {"error_rate": 1.0}}).raise_for_status()
    for _ in range(5):
        assert len(daemon.wait(daemon.enqueue(WALLET)).result["chainsFailed"]) == 1
    assert modes(daemon)[base] in ("open", "half-open")
    until(lambda: f"breaker {base} is open" in alerts(daemon, "breaker_open"), "alert")
    simulator.http.patch("/sim/knobs", json={"base": {"error_rate": 0.0}}).raise_for_status()

    def is_well() -> bool:
        return (
            bool(daemon.wait(daemon.enqueue(WALLET)).result["chainsFailed"] == []) and modes(daemon)[base] == "closed"
        )

    until(is_well, "the breaker closes again", explain=daemon.log)
