"""One chain as statistics follow it: what was learnt, what was last good, and what a round of looks makes of that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from statistics import median
from typing import NamedTuple, TypeVar

import msgspec

from . import health
from .blocktime import Block, Usual, blocks_back, change_pct, measured, pace
from .chain import Chain
from .heads import HeadsSeen, silent_after_s
from .health import Seen, Standing, Thresholds
from .looks import Look, Want
from .stats import ChainStats, EndpointStats, Health, Probe

T = TypeVar("T")

#: A head that is older than this is not what the next older block is counted from: the window would become too long.
_NEAR_S = 300.0
#: A block that is further ahead of our clock is believed only when all are: then it is our clock that is wrong.
_AHEAD_S = 60.0


class Market(NamedTuple):
    """What others say about a chain's use, in USD. None: not known."""

    volume_24h_usd: Decimal | None = None
    tvl_usd: Decimal | None = None


class ChainWatch:
    """Bounded memory of one chain between rounds. Times are unix seconds."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.usual = Usual(chain.block_time)
        self.standing = Standing()
        #: The last row, with the last good values.
        self.last = _blank(chain)
        #: Our own block time of 24 h before, as far as it is known.
        self.day_before_s: float | None = None
        self._newest: Block | None = None
        self._began_at: float | None = None
        self._pace_s: float | None = None
        self._endpoints: dict[str, EndpointStats] = {}

    def resume(self, last: ChainStats) -> None:
        """Go on from what was kept before a restart."""
        self.last = last
        self.standing = Standing(last.status, reason=last.reason)

    def want(self, now: float) -> Want:
        """What to ask the endpoints for."""
        usual_s = self.usual.seconds
        back = blocks_back(min(usual_s, self._pace_s or usual_s))
        newest = self._newest
        is_near = newest is not None and now - newest.at < max(_NEAR_S, 2 * back * usual_s)
        older = max(0, newest.number - back) if newest is not None and is_near else None
        return Want(older=older, back=back)

    def thresholds(self) -> Thresholds:
        return health.thresholds(self.chain.id, self.usual.seconds)

    def observe(
        self, looks: Sequence[Look], heads: HeadsSeen | None, market: Market, now: float, *, is_network_up: bool
    ) -> ChainStats:
        """The chain's row after one round. `looks`: of the endpoints that were looked at."""
        self._began_at = now if self._began_at is None else self._began_at
        good = sorted(filter(_is_ok, looks), key=lambda look: look.head.number if look.head else 0, reverse=True)
        self._note_newest(good, heads, now)
        limits = self.thresholds()
        rows = self._rows(looks, limits)
        block_time_s = self._measure(good, now)
        if looks:
            seen = self._seen(looks, rows, heads, block_time_s, now, is_network_up=is_network_up)
            self.standing = health.advance(self.standing, health.judge(seen, limits))
        # Endpoints that were not looked at stand as they were.
        self._endpoints |= {row.host: row for row in rows}
        complaint = _complaint(looks) if looks else self.last.error
        self.last = self._row(good, heads, market, now, block_time_s, complaint)
        return self.last

    # ---- what a round says ---------------------------------------------------------------------------------------

    def _note_newest(self, good: Iterable[Look], heads: HeadsSeen | None, now: float) -> None:
        told = [look.head for look in good if look.head is not None]
        if heads is not None and heads.newest is not None:
            told.append(heads.newest)
        told = [block for block in told if block.at <= now + _AHEAD_S] or told
        newest = max(told, key=lambda block: block.at, default=None)
        if newest and (self._newest is None or newest.at > self._newest.at or self._newest.at > now + _AHEAD_S):
            self._newest = newest

    def _measure(self, good: Iterable[Look], now: float) -> float | None:
        """The block time by the endpoint with the highest head that can tell; what is usual learns from it."""
        for look in good:
            if look.head is None or look.older is None:
                continue
            self._pace_s = pace(look.older, look.head) or self._pace_s
            found = measured(look.older, look.head)
            if found is not None:
                self.usual.note(found, now)
                return found
        return None

    def _rows(self, looks: Sequence[Look], limits: Thresholds) -> tuple[EndpointStats, ...]:
        best = max((look.head.number for look in looks if _is_ok(look) and look.head is not None), default=0)
        return tuple(_endpoint(look, best, limits) for look in looks)

    def _seen(
        self,
        looks: Sequence[Look],
        rows: Sequence[EndpointStats],
        heads: HeadsSeen | None,
        block_time_s: float | None,
        now: float,
        *,
        is_network_up: bool,
    ) -> Seen:
        laggard = max(rows, key=lambda row: row.lag or 0, default=None)
        return Seen(
            outcomes=tuple(look.outcome for look in looks),
            is_network_up=is_network_up,
            is_announced=self.is_announced(heads, now),
            head_age_s=self._head_age(now) if self._newest else now - (self._began_at or now),
            block_time_s=block_time_s,
            p50_s=min((row.p50_s for row in rows if row.p50_s is not None), default=None),
            lag=(laggard.lag or 0) if laggard else 0,
            laggard=laggard.host if laggard else "",
        )

    def is_announced(self, heads: HeadsSeen | None, now: float) -> bool:
        """Whether the subscription brought a head lately."""
        if heads is None or heads.seen_at is None:
            return False
        return heads.is_connected and now - heads.seen_at <= silent_after_s(self.usual.seconds)

    def _head_age(self, now: float) -> float | None:
        return max(0.0, now - self._newest.at) if self._newest else None

    # ---- the row -------------------------------------------------------------------------------------------------

    def _row(
        self,
        good: Sequence[Look],
        heads: HeadsSeen | None,
        market: Market,
        now: float,
        block_time_s: float | None,
        complaint: str | None,
    ) -> ChainStats:
        last, at_ms = self.last, round(now * 1000)
        gas = next((look.gas_price_wei for look in good if look.gas_price_wei is not None), None)
        change = change_pct(block_time_s, self.day_before_s) if block_time_s else last.block_time_change_pct
        return msgspec.structs.replace(
            last,
            at_ms=at_ms,
            measured_at_ms=at_ms if good else last.measured_at_ms,
            status=self.standing.status,
            reason=self.standing.reason,
            error=complaint,
            block_time_s=_first(block_time_s, last.block_time_s),
            block_time_change_pct=change,
            usual_block_time_s=self.usual.seconds,
            head=self._newest.number if self._newest else last.head,
            head_age_s=_first(self._head_age(now), _aged(last, at_ms)),
            finality_lag=_first(_behind(good), last.finality_lag),
            gas_price_wei=_first(gas, last.gas_price_wei),
            endpoints=tuple(self._endpoints.values()),
            reorgs=heads.reorgs if heads else 0,
            deepest_reorg=heads.deepest if heads else 0,
            volume_24h_usd=_first(market.volume_24h_usd, last.volume_24h_usd),
            tvl_usd=_first(market.tvl_usd, last.tvl_usd),
        )


def _blank(chain: Chain) -> ChainStats:
    """A chain that nobody looked at yet."""
    return ChainStats(
        chain_id=chain.id,
        name=chain.name,
        slug=chain.slug,
        llama=chain.llama,
        at_ms=0,
        measured_at_ms=None,
        status=Health.UNKNOWN,
    )


def _is_ok(look: Look) -> bool:
    return look.outcome is Probe.OK


def _first(now: T | None, before: T | None) -> T | None:
    """The last good value stands until there is another one."""
    return before if now is None else now


def _behind(good: Iterable[Look]) -> int | None:
    """Blocks between head and finalized block, of the endpoint with the highest head that knows."""
    known = (look.head.number - look.finalized for look in good if look.head and look.finalized is not None)
    return max(0, behind) if (behind := next(known, None)) is not None else None


def _aged(last: ChainStats, at_ms: int) -> float | None:
    """How old the head is now that was kept before a restart."""
    if last.head_age_s is None:
        return None
    return last.head_age_s + max(0, at_ms - last.at_ms) / 1000


def _endpoint(look: Look, best: int, limits: Thresholds) -> EndpointStats:
    if not _is_ok(look):
        is_turned_away = look.outcome in (Probe.RATE_LIMITED, Probe.REFUSED)
        status = Health.UNKNOWN if is_turned_away else Health.UNHEALTHY
        return EndpointStats(host=look.host, outcome=look.outcome, status=status, error=look.error)
    ordered = sorted(look.latencies)
    p50_s = median(ordered) if ordered else None
    lag = max(0, best - look.head.number) if look.head else None
    is_poor = (lag or 0) > limits.lag_blocks or (p50_s or 0.0) > limits.latency_s
    return EndpointStats(
        host=look.host,
        outcome=look.outcome,
        p50_s=p50_s,
        # Of a handful the p95 is the slowest one.
        p95_s=ordered[-1] if ordered else None,
        head=look.head.number if look.head else None,
        lag=lag,
        status=Health.DEGRADED if is_poor else Health.HEALTHY,
    )


def _complaint(looks: Sequence[Look]) -> str | None:
    """What went wrong this time, where."""
    return "; ".join(look.error or f"{look.host}: {look.outcome}" for look in looks if not _is_ok(look)) or None
