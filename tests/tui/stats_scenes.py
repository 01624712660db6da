"""Statistics for the live view's tests: fixed, with everything in them that can be said."""

from __future__ import annotations

import math
from decimal import Decimal

import msgspec

from moonxd.api.stats import (
    BridgesReply,
    BridgeView,
    ChainsReply,
    ChainView,
    CollectorView,
    EndpointView,
    PointView,
    Series,
)
from tests.tui.scenes import NOW
from tui.feed import Statistics

NOW_MS = int(NOW * 1000)
MINUTE_MS = 60_000
THIS_MINUTE_MS = NOW_MS // MINUTE_MS * MINUTE_MS
CHAINS = (
    # name, id, block time, change, head, gas, endpoint
    ("ethereum", 1, 12.05, 0.4, 22_345_678, 1_230_000_000, "ethereum-rpc.example"),
    ("optimism", 10, 2.0, 0.0, 134_567_890, 1_000_252, "optimism.example"),
    ("bsc", 56, 0.75, -50.1, 48_012_345, 100_000_000, "bsc-dataseed.example"),
    ("polygon", 137, 2.61, 21.4, 71_234_567, 31_400_000_000, "polygon-bor.example"),
    ("base", 8453, 2.0, -0.1, 28_901_234, 4_500_000, "base-rpc.example"),
    ("arbitrum", 42161, 0.25, 1.9, 321_098_765, 10_000_000, "arbitrum-one.example"),
)
ROUTES = ("ethereum-base USDC", "arbitrum-optimism ETH", "polygon-bsc USDT")


def _chain(number: int) -> ChainView:
    name, chain_id, block, change, head, gas, host = CHAINS[number]
    endpoints = (
        EndpointView(host=host, outcome="ok", p50_s=0.084 + 0.05 * number, p95_s=0.31, head=head, lag=0),
        EndpointView(host=f"spare.{host}", outcome="rate_limited", p50_s=None, p95_s=None, head=None, lag=None),
    )
    return ChainView(
        chain_id=chain_id,
        name=name.capitalize(),
        slug=name,
        at_ms=NOW_MS - 21_000,
        measured_at_ms=NOW_MS - 21_000,
        status="healthy",
        reason=None,
        error=None,
        block_time_s=block,
        block_time_change_pct=change,
        head=head,
        head_age_s=block * 0.6,
        finality_lag=(64, 730, 12, 5, 700, 2_400)[number],
        gas_price_wei=gas,
        endpoints=endpoints,
        reorgs=2 if name == "polygon" else 0,
        volume_24h_usd=Decimal("2345678901.5") / (number + 1),
        tvl_usd=Decimal("61234567890") / (number + 1) ** 2,
        usual_block_time_s=block * 0.97,
    )


#: One of each trouble.
_TROUBLED = {
    3: {"status": "degraded", "reason": "blocks take 2.61 s, a fifth more than the 2.15 s that are usual"},
    4: {
        "status": "unhealthy",
        "reason": "no endpoint has answered for three rounds",
        "error": "base-rpc.example: timed out after 10.0 s; spare.base-rpc.example: HTTP 429, asked to wait 30 s",
        "measured_at_ms": NOW_MS - 251_000,
        "head_age_s": None,
    },
    5: {"status": "unknown", "reason": "our own network is down", "measured_at_ms": None, "block_time_s": None}
    | dict.fromkeys(("block_time_change_pct", "head", "head_age_s", "finality_lag", "gas_price_wei"))
    | dict.fromkeys(("volume_24h_usd", "tvl_usd", "usual_block_time_s"))
    | {"endpoints": ()},
}


def _bridge(provider: str, route: str, number: int) -> BridgeView:
    return BridgeView(
        provider=provider,
        route=route,
        from_chain=1,
        to_chain=8453,
        at_ms=NOW_MS - 64_000,
        measured_at_ms=NOW_MS - 64_000,
        status="healthy",
        outcome="ok",
        latency_s=0.38 + 0.4 * number,
        p50_s=0.41 + 0.4 * number,
        p95_s=1.2 + 0.9 * number,
        quoted_s=35.0 * (number + 1),
        reason=None,
        error=None,
    )


def _bridges() -> tuple[BridgeView, ...]:
    slow = {"status": "degraded", "reason": "half of the quotes take longer than 3 s"}
    gone = {
        "status": "unhealthy",
        "outcome": "rate_limited",
        "error": "api.1inch.dev: HTTP 429, asked to wait 60 s: 余额查询失败",
        "measured_at_ms": NOW_MS - 1_804_000,
    }
    return (
        _bridge("LI.FI", ROUTES[0], 0),
        msgspec.structs.replace(_bridge("Relay", ROUTES[0], 7), **slow),
        msgspec.structs.replace(_bridge("1inch", ROUTES[1], 1), **gone),
        msgspec.structs.replace(_bridge("Across", "以太坊-多边形 USD₮0 (a wide token)", 3), outcome="no_route"),
    )


def _past(
    key: str, every: int, names: tuple[str, ...], around: tuple[float, ...], gap: range, status: str = "healthy"
) -> Series:
    """An hour of points: a wave, a gap without any, looks that failed, and a spell that was not healthy."""
    points = []
    for minute in range(60, -1, -every):
        if minute in gap:
            continue
        failed = minute in range(gap.stop, gap.stop + 3 * every)
        wave = 1 + 0.2 * math.sin(minute / 6) + (0.9 if minute in range(8, 14) else 0.0)
        values = {} if failed else {name: level * wave for name, level in zip(names, around, strict=True)}
        spell = "unhealthy" if failed else status if minute in range(6, 16) else "healthy"
        points.append(PointView(at_ms=THIS_MINUTE_MS - minute * MINUTE_MS, samples=1, values=values, status=spell))
    return Series(key=key, points=tuple(points))


COLLECTORS = tuple(
    CollectorView(
        name=name,
        is_ours=True,
        is_running=False,
        rounds=rounds,
        missed=missed,
        outcome=outcome,
        error=error,
        took_s=0.9,
        last_at=NOW - ago,
        good_at=NOW - ago,
        next_at=NOW + ahead,
    )
    for name, rounds, missed, outcome, error, ago, ahead in (
        ("chain_performance", 1_204, 0, "ok", None, 21, 39),
        ("bridge_latency", 602, 3, "partial", "1inch: api.1inch.dev: HTTP 429", 64, 56),
        ("overview", 240, 0, "ok", None, 140, 160),
        ("service_health", 2_408, 0, "ok", None, 9, 21),
    )
)


def measured() -> Statistics:
    """Six chains and four bridges, in every state of health."""
    chains = tuple(msgspec.structs.replace(_chain(n), **_TROUBLED.get(n, {})) for n in range(len(CHAINS)))
    bridges = _bridges()
    names = ("block_time_s", "rpc_p50_s", "head_age_s")
    past = tuple(
        _past(row.slug, 1, names, (row.block_time_s, 0.12, 1.0), range(30, 37), "degraded")
        for row in chains
        if row.block_time_s is not None
    )
    quotes = tuple(
        _past(f"{row.provider} {row.route}", 2, ("latency_s", "quoted_s"), (0.4, 35.0), range(20, 27))
        for row in bridges
    )
    return Statistics(
        ChainsReply(chains=chains, history=past), BridgesReply(bridges=bridges, history=quotes), COLLECTORS
    )


#: A daemon that has just started, and whose lease another one has.
UNMEASURED = Statistics(
    ChainsReply(chains=()),
    BridgesReply(bridges=()),
    (
        CollectorView(
            name="chain_performance",
            is_ours=False,
            is_running=False,
            rounds=0,
            missed=0,
            outcome=None,
            error=None,
            took_s=None,
            last_at=None,
            good_at=None,
            next_at=None,
        ),
    ),
)
