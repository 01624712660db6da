"""Statistics of chains and bridges as the API answers them, and the calls for them.

Times are epoch milliseconds, durations seconds; None means not known. After a failed look the values are the last good
ones (`measuredAtMs` says of when), with `status` and `error` of the look beside them.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from .calls import Call
from .messages import Message

#: Steps that a history may have.
MAX_POINTS = 2000


class EndpointView(Message, frozen=True, kw_only=True):
    """One RPC endpoint, by its host. `outcome`: ok, rate_limited, server_error, refused, timeout, network."""

    host: str
    outcome: str
    p50_s: float | None
    p95_s: float | None
    head: int | None
    lag: int | None


class ChainView(Message, frozen=True, kw_only=True):
    """`status`: healthy, degraded, unhealthy, unknown; `reason` says why it is not healthy."""

    chain_id: int
    name: str
    slug: str
    at_ms: int
    measured_at_ms: int | None
    status: str
    reason: str | None
    error: str | None
    block_time_s: float | None
    block_time_change_pct: float | None
    head: int | None
    head_age_s: float | None
    finality_lag: int | None
    gas_price_wei: int | None
    endpoints: tuple[EndpointView, ...]
    reorgs: int
    volume_24h_usd: Decimal | None = msgspec.field(name="volume24hUsd")
    tvl_usd: Decimal | None
    #: What is usual for the chain, as learned over a week.
    usual_block_time_s: float | None = None


class BridgeView(Message, frozen=True, kw_only=True):
    """`outcome`: as an endpoint's, or no_route. `quotedS` is how long the provider says that the transfer takes."""

    provider: str
    route: str
    from_chain: int
    to_chain: int
    at_ms: int
    measured_at_ms: int | None
    status: str
    outcome: str
    latency_s: float | None
    p50_s: float | None
    p95_s: float | None
    quoted_s: float | None
    reason: str | None
    error: str | None


class PointView(Message, frozen=True, kw_only=True):
    """Means of one step; `status` is the worst within it."""

    at_ms: int
    samples: int
    values: dict[str, float]
    status: str


class Series(Message, frozen=True, kw_only=True):
    """A history; `key` is a chain's slug, or provider and route of a bridge with a blank between them."""

    key: str
    points: tuple[PointView, ...]


class ChainsReply(Message, frozen=True, kw_only=True):
    chains: tuple[ChainView, ...]
    history: tuple[Series, ...] = ()


class BridgesReply(Message, frozen=True, kw_only=True):
    bridges: tuple[BridgeView, ...]
    history: tuple[Series, ...] = ()


class CollectorView(Message, frozen=True, kw_only=True):
    """Rounds of one collector in this process. Times are unix seconds. `isOurs` False: another daemon collects."""

    name: str
    is_ours: bool = False
    is_running: bool = False
    rounds: int = 0
    #: Instants without a round of their own.
    missed: int = 0
    #: ok | partial | failed | timeout, None before the first.
    outcome: str | None = None
    error: str | None = None
    took_s: float | None = None
    last_at: float | None = None
    #: The latest round that was not a failed one.
    good_at: float | None = None
    next_at: float | None = None


class OverviewReply(Message, frozen=True, kw_only=True):
    """`atMs` None: no overview was built yet. `costs`: sentences about units a day at metered endpoints."""

    at_ms: int | None
    status: str
    chains: tuple[ChainView, ...]
    bridges: tuple[BridgeView, ...]
    collectors: tuple[CollectorView, ...]
    costs: tuple[str, ...] = ()


def chains(*, since: str | float | None = None, step: float | None = None) -> Call[ChainsReply]:
    """With `since` (ISO 8601 or epoch seconds) the history too, in steps of `step` seconds."""
    return Call(method="GET", path="/v1/stats/chains", params={"since": since, "step": step}, answer=ChainsReply)


def bridges(*, since: str | float | None = None, step: float | None = None) -> Call[BridgesReply]:
    return Call(method="GET", path="/v1/stats/bridges", params={"since": since, "step": step}, answer=BridgesReply)


def overview() -> Call[OverviewReply]:
    return Call(method="GET", path="/v1/stats/overview", answer=OverviewReply)
