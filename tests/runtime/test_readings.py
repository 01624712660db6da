"""Chains and bridges as Prometheus reads them."""

from __future__ import annotations

import msgspec
from prometheus_client import CollectorRegistry, generate_latest

from moonxd.domain.stats import Round
from moonxd.readings import Readings
from tests.domain.test_stats_change import BRIDGE, CHAIN

AT_MS = 1_800_000_000_000
SEEN = msgspec.structs.replace(CHAIN, at_ms=AT_MS, head_age_s=2.0, reorgs=3)


def test_gauges_of_chains_and_bridges_as_of_the_scrape() -> None:
    registry, ours, now = CollectorRegistry(), [True], [AT_MS / 1000]
    readings = Readings(registry, lambda: ours[0], lambda: now[0])
    assert "moonxd_chain_status{" not in generate_latest(registry).decode(), "nothing was found yet"
    readings.note(Round(chains=(SEEN, msgspec.structs.replace(CHAIN, slug="base", block_time_s=None))))
    readings.note(Round(bridges=(BRIDGE,)))
    now[0] += 10
    text = generate_latest(registry).decode()
    for line in (
        'moonxd_chain_status{chain="ethereum",status="healthy"} 1.0',
        'moonxd_chain_status{chain="ethereum",status="unhealthy"} 0.0',
        'moonxd_chain_block_time_seconds{chain="ethereum"} 12.0',
        'moonxd_chain_head_age_seconds{chain="ethereum"} 12.0',
        'moonxd_chain_reorgs{chain="ethereum"} 3.0',
        'moonxd_bridge_status{provider="LI.FI",route="base:USDC->arbitrum:USDC",status="healthy"} 1.0',
        'moonxd_bridge_latency_seconds{provider="LI.FI",route="base:USDC->arbitrum:USDC"} 1.0',
    ):
        assert line in text.splitlines()
    assert 'moonxd_chain_block_time_seconds{chain="base"}' not in text, "what is not known is absent"
    ours[0] = False
    assert "moonxd_chain_status{" not in generate_latest(registry).decode(), "another one collects: ours is stale"
