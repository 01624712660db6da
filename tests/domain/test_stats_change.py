"""Which statistics are news."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonxd.domain.stats import BridgeStats, ChainStats, Health, Overview, PartHealth, Probe, Round, ServiceHealth
from moonxd.domain.stats_change import Thresholds, Told, after, differs, due, told_before

RULE = Thresholds()
CHAIN = ChainStats(
    chain_id=1, name="Ethereum", slug="ethereum", llama="ethereum", at_ms=1, measured_at_ms=1, status=Health.HEALTHY,
    block_time_s=12.0, volume_24h_usd=Decimal(1_000_000), tvl_usd=Decimal(5_000_000),
)  # fmt: skip
BRIDGE = BridgeStats(
    provider="LI.FI", route="base:USDC->arbitrum:USDC", from_chain=8453, to_chain=42161, at_ms=1, measured_at_ms=1,
    status=Health.HEALTHY, outcome=Probe.OK, latency_s=1.0,
)  # fmt: skip
WHOLE = Overview(at_ms=1, status=Health.HEALTHY, chains=(CHAIN,), bridges=(BRIDGE,))
TOLD = told_before([CHAIN], [BRIDGE], WHOLE)
change = msgspec.structs.replace


def test_the_same_again_is_no_news() -> None:
    assert not due(TOLD, Round(chains=(CHAIN,), bridges=(BRIDGE,), overview=WHOLE), RULE)
    assert not due(TOLD, Round(), RULE)


def test_what_was_never_told_is_news() -> None:
    news = due(Told(), Round(chains=(CHAIN,), bridges=(BRIDGE,), overview=WHOLE), RULE)
    assert (news.chains, news.bridges, news.overview) == ((CHAIN,), (BRIDGE,), WHOLE)


@pytest.mark.parametrize(
    ("changes", "is_news"),
    [
        ({"status": Health.DEGRADED}, True),
        ({"block_time_s": 13.3}, True),
        ({"block_time_s": 13.1}, False),
        ({"block_time_s": None}, True),
        ({"volume_24h_usd": Decimal(1_060_000)}, True),
        ({"volume_24h_usd": Decimal(1_040_000)}, False),
        ({"volume_24h_usd": None}, True),
        ({"tvl_usd": Decimal(1)}, True),
        ({"head": 99, "at_ms": 2, "gas_price_wei": 7, "reason": "x", "error": "y"}, False),
    ],
)
def test_chains(changes: dict[str, Any], is_news: bool) -> None:
    new = change(CHAIN, **changes)
    assert bool(due(TOLD, Round(chains=(new,)), RULE)) == is_news
    whole = change(WHOLE, at_ms=2, chains=(new,))
    assert bool(due(TOLD, Round(overview=whole), RULE)) == is_news


@pytest.mark.parametrize(
    ("changes", "is_news"),
    [
        ({"status": Health.UNHEALTHY}, True),
        ({"latency_s": 1.25}, True),
        ({"latency_s": 1.2}, False),
        ({"outcome": Probe.TIMEOUT, "error": "late", "at_ms": 9}, False),
    ],
)
def test_bridges(changes: dict[str, Any], is_news: bool) -> None:
    assert bool(due(TOLD, Round(bridges=(change(BRIDGE, **changes),)), RULE)) == is_news


def test_fast_answers_may_vary() -> None:
    told = told_before([], [change(BRIDGE, latency_s=0.02)], None)
    assert not due(told, Round(bridges=(change(BRIDGE, latency_s=0.15),)), RULE)
    assert due(told, Round(bridges=(change(BRIDGE, latency_s=0.3),)), RULE)


def test_an_overview_of_other_things_is_news() -> None:
    assert due(TOLD, Round(overview=change(WHOLE, bridges=())), RULE)
    assert due(TOLD, Round(overview=change(WHOLE, status=Health.UNKNOWN)), RULE)


def test_service_health_is_told_when_a_part_changes() -> None:
    well = ServiceHealth(
        at_ms=1, status=Health.HEALTHY, parts=(PartHealth(name="a", status=Health.HEALTHY, critical=True),)
    )
    ill = ServiceHealth(
        at_ms=2, status=Health.HEALTHY, parts=(PartHealth(name="a", status=Health.DEGRADED, critical=True),)
    )
    told = after(TOLD, due(TOLD, Round(service=well), RULE))
    assert told.service == well
    assert not due(told, Round(service=change(well, at_ms=9)), RULE)
    assert due(told, Round(service=ill), RULE).service == ill


@given(st.floats(0.01, 1e6), st.floats(0.001, 0.9), st.integers(2, 200))
def test_a_slow_drift_is_told_in_the_end(start: float, share: float, steps: int) -> None:
    """Each step is small, but what counts is the distance from what was told."""
    told, now, news = told_before([change(CHAIN, block_time_s=start)], [], None), start, 0
    rule = Thresholds(block_time=share)
    for _ in range(steps):
        now *= 1 + share / 3
        found = due(told, Round(chains=(change(CHAIN, block_time_s=now),)), rule)
        told, news = after(told, found), news + bool(found)
    assert abs(told.chains[1].block_time_s - now) <= share * told.chains[1].block_time_s * 1.001  # type: ignore[operator]
    assert news >= steps // 3 - 1


@given(st.lists(st.floats(0.5, 60), max_size=30), st.integers(0, 29))
def test_a_restart_tells_at_most_what_changed_since(values: list[float], cut: int) -> None:
    """Who starts takes the archive's latest for told: at the same value nothing is told twice."""
    told = Told()
    for value in values[: cut + 1]:
        row = change(CHAIN, block_time_s=value)
        told = after(told, due(told, Round(chains=(row,)), RULE))
    if values:
        latest = change(CHAIN, block_time_s=values[: cut + 1][-1])
        assert not due(told_before([latest], [], None), Round(chains=(latest,)), RULE)


def test_nothing_is_as_different_as_a_number_from_none() -> None:
    assert differs(None, 0.0, 0.5)
    assert differs(Decimal(0), None, 0.5)
    assert not differs(None, None, 0.5)
    assert differs(0.0, 0.1, 0.5)
    assert not differs(0.0, 0.0, 0.5)
