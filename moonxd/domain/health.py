"""When a chain is healthy: thresholds, what one look says, and how many looks it takes to change the verdict.

Volume never comes in here: what a chain is used for says nothing about whether it works.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from .stats import Health, Probe

#: No new head for so long and something is wrong, whatever the pace; after what operators of nodes alert at.
_NO_NEW_HEADS_S = {1: 180.0, 10: 40.0, 56: 30.0, 137: 30.0, 8453: 40.0}
_NO_NEW_HEADS_OTHERWISE_S = 180.0
#: Chains that make blocks on demand: only a head older than this says anything, and their pace nothing at all.
_ON_DEMAND_S = {42161: 300.0}
_DEAD_BLOCKS, _SLOW_BLOCKS = 20, 6
_SLOW_HEAD_S = 15.0
_PACE = 1.5
_SLOW_ANSWER_S = 2.0
#: Endpoints are not asked at the same instant: their heads may differ by what a chain makes in this time.
_LAG_BLOCKS, _LAG_S = 10, 10.0
#: Outcomes that our own network could be to blame for.
_NETWORK = frozenset((Probe.NETWORK, Probe.TIMEOUT))
#: Outcomes that say something about the chain's endpoints, and not about what they grant us.
_FAILING = _NETWORK | {Probe.SERVER_ERROR}

#: Looks in a row that it takes to get worse by a step, to get better, and to say that we do not know.
WORSE_AFTER, BETTER_AFTER, UNKNOWN_AFTER = 2, 3, 2
_STEPS = (Health.HEALTHY, Health.DEGRADED, Health.UNHEALTHY)


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """Above these a chain is degraded; above `dead_head_s` unhealthy. Seconds."""

    slow_head_s: float
    dead_head_s: float
    #: None: the pace of this chain says nothing.
    block_time_s: float | None
    latency_s: float
    lag_blocks: int


def thresholds(chain_id: int, usual_s: float) -> Thresholds:
    """Of one chain whose blocks usually take `usual_s`."""
    quiet_s = _ON_DEMAND_S.get(chain_id)
    no_heads_s = _NO_NEW_HEADS_S.get(chain_id, _NO_NEW_HEADS_OTHERWISE_S)
    return Thresholds(
        slow_head_s=quiet_s or max(_SLOW_BLOCKS * usual_s, _SLOW_HEAD_S),
        dead_head_s=2 * quiet_s if quiet_s else max(_DEAD_BLOCKS * usual_s, no_heads_s),
        block_time_s=None if quiet_s else _PACE * usual_s,
        latency_s=_SLOW_ANSWER_S,
        lag_blocks=max(_LAG_BLOCKS, math.ceil(_LAG_S / usual_s)),
    )


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a chain. None: not known."""

    #: Of the endpoints that were looked at.
    outcomes: tuple[Probe, ...]
    #: Whether anything at all answered, of any chain.
    is_network_up: bool
    #: A subscription brought a head lately: the chain goes on even where no endpoint answers.
    is_announced: bool = False
    #: Of the newest head that anybody told us of; without one the time since we began to look.
    head_age_s: float | None = None
    block_time_s: float | None = None
    #: Of the endpoint that answers fastest.
    p50_s: float | None = None
    #: How many blocks the endpoint that is furthest behind is behind the first, and its host.
    lag: int = 0
    laggard: str = ""


class Verdict(NamedTuple):
    """What one look says, and why for people; None when there is nothing to complain of."""

    level: Health
    reason: str | None = None


def is_network_up(outcomes: Iterable[Probe]) -> bool:
    """Whether the outcomes of everything we asked, of every chain, show that our own network works."""
    return any(outcome not in _NETWORK for outcome in outcomes)


def judge(seen: Seen, limits: Thresholds) -> Verdict:
    """What this look says by itself."""
    if Probe.OK not in seen.outcomes:
        return _without_answer(seen, limits)
    return next((verdict for rule in _RULES if (verdict := rule(seen, limits))), Verdict(Health.HEALTHY))


def _without_answer(seen: Seen, limits: Thresholds) -> Verdict:
    if not seen.outcomes:
        return Verdict(Health.UNKNOWN, "no endpoint was looked at")
    what = ", ".join(sorted(set(seen.outcomes)))
    if seen.is_announced:
        return Verdict(Health.DEGRADED, f"new heads come, but no endpoint answers ({what})")
    if not seen.is_network_up:
        return Verdict(Health.UNKNOWN, "nothing answers, of any chain: our own network is down")
    if set(seen.outcomes) == {Probe.WRONG_CHAIN}:
        return Verdict(Health.UNHEALTHY, "every endpoint serves another chain")
    if not _FAILING.intersection(seen.outcomes):
        return Verdict(Health.UNKNOWN, f"no endpoint lets us look ({what})")
    is_dead = seen.head_age_s is not None and seen.head_age_s > limits.dead_head_s
    return Verdict(Health.UNHEALTHY if is_dead else Health.DEGRADED, f"no endpoint answers ({what})")


def _dead(seen: Seen, limits: Thresholds) -> Verdict | None:
    if seen.head_age_s is None or seen.head_age_s <= limits.dead_head_s:
        return None
    return Verdict(Health.UNHEALTHY, f"no new block for {seen.head_age_s:.0f} s")


def _old_head(seen: Seen, limits: Thresholds) -> Verdict | None:
    if seen.head_age_s is None or seen.head_age_s <= limits.slow_head_s:
        return None
    return Verdict(Health.DEGRADED, f"no new block for {seen.head_age_s:.0f} s")


def _slow_blocks(seen: Seen, limits: Thresholds) -> Verdict | None:
    if seen.block_time_s is None or limits.block_time_s is None or seen.block_time_s <= limits.block_time_s:
        return None
    usual_s = limits.block_time_s / _PACE
    return Verdict(Health.DEGRADED, f"blocks take {seen.block_time_s:.3g} s, usually {usual_s:.3g} s")


def _slow_answers(seen: Seen, limits: Thresholds) -> Verdict | None:
    if seen.p50_s is None or seen.p50_s <= limits.latency_s:
        return None
    return Verdict(Health.DEGRADED, f"its fastest endpoint takes {seen.p50_s:.1f} s to answer")


def _lagging(seen: Seen, limits: Thresholds) -> Verdict | None:
    if seen.lag <= limits.lag_blocks:
        return None
    return Verdict(Health.DEGRADED, f"{seen.laggard} is {seen.lag} blocks behind")


#: The first that has something to say decides: the worst comes first.
_RULES: tuple[Callable[[Seen, Thresholds], Verdict | None], ...] = (
    _dead,
    _old_head,
    _slow_blocks,
    _slow_answers,
    _lagging,
)


class Standing(msgspec.Struct, frozen=True):
    """A verdict that holds, and the looks that may change it. `Standing(status)` takes up a status that was kept."""

    status: Health = Health.UNKNOWN
    #: Levels of the last looks that said something, oldest first.
    recent: tuple[Health, ...] = ()
    #: Looks in a row that said nothing.
    blind: int = 0
    reason: str | None = None


def advance(standing: Standing, verdict: Verdict) -> Standing:
    """The standing after one more look.

    It gets worse by one step after WORSE_AFTER looks that are all worse, better after BETTER_AFTER that are all better,
    unknown after UNKNOWN_AFTER that said nothing; and then two looks are enough to know again (the first look of all
    is: something is better than nothing).
    """
    if verdict.level is Health.UNKNOWN:
        blind = standing.blind + 1
        if blind < UNKNOWN_AFTER and standing.status is not Health.UNKNOWN:
            return msgspec.structs.replace(standing, blind=blind)
        return Standing(Health.UNKNOWN, (), blind, verdict.reason)
    recent = (*standing.recent, verdict.level)[-BETTER_AFTER:]
    status = _next(standing, recent)
    # What was complained of last stays the reason until the status is healthy again.
    reason = None if status is Health.HEALTHY else verdict.reason or standing.reason
    # Being blind is forgotten only with the unknown: until then it takes a second look to believe the first.
    blind = standing.blind if status is Health.UNKNOWN else 0
    return Standing(status, recent, blind, reason)


def _next(standing: Standing, recent: tuple[Health, ...]) -> Health:
    grades = [_STEPS.index(level) for level in recent]
    if standing.status is Health.UNKNOWN:
        if standing.blind and len(recent) < WORSE_AFTER:
            return Health.UNKNOWN
        # One look or two are not enough to be told that a chain is down.
        return _STEPS[min(1, *grades)]
    now = _STEPS.index(standing.status)
    if len(grades) >= WORSE_AFTER and min(grades[-WORSE_AFTER:]) > now:
        return _STEPS[now + 1]
    if len(grades) == BETTER_AFTER and max(grades) < now:
        return _STEPS[max(grades)]
    return standing.status
