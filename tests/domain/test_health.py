"""Judging a chain: what one look says by the thresholds, and what it takes to change the verdict that holds."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonxd.domain.chain import CHAINS
from moonxd.domain.health import Seen, Standing, Verdict, advance, is_network_up, judge, thresholds
from moonxd.domain.stats import Health, Probe

H, D, U, N = Health.HEALTHY, Health.DEGRADED, Health.UNHEALTHY, Health.UNKNOWN
BASE = thresholds(8453, 2.0)


def look(**changes: Any) -> Seen:
    given: dict[str, Any] = {"outcomes": (Probe.OK,), "is_network_up": True, "head_age_s": 1.0, "block_time_s": 2.0}
    return Seen(**(given | changes))


def run(levels: list[Health], start: Standing | None = None) -> list[Health]:
    standing, held = start or Standing(), []
    for level in levels:
        standing = advance(standing, Verdict(level))
        held.append(standing.status)
    return held


# ---- one look -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slug", "slow_s", "dead_s"),
    [("ethereum", 72, 240), ("polygon", 15, 40), ("optimism", 15, 40), ("base", 15, 40), ("bsc", 15, 30),
     ("arbitrum", 300, 600)],
)  # fmt: skip
def test_the_thresholds_of_each_chain(slug: str, slow_s: float, dead_s: float) -> None:
    chain = next(chain for chain in CHAINS.values() if chain.slug == slug)
    limits = thresholds(chain.id, chain.block_time)
    assert (limits.slow_head_s, limits.dead_head_s) == (slow_s, dead_s)


@pytest.mark.parametrize(
    ("seen", "level", "why"),
    [
        (look(), H, None),
        (look(head_age_s=14.0), H, None),
        (look(head_age_s=16.0), D, "no new block for 16 s"),
        (look(head_age_s=41.0), U, "no new block for 41 s"),
        (look(block_time_s=2.9), H, None),
        (look(block_time_s=3.1), D, "blocks take 3.1 s, usually 2 s"),
        (look(block_time_s=None), H, None),
        (look(p50_s=1.9), H, None),
        (look(p50_s=2.1), D, "its fastest endpoint takes 2.1 s to answer"),
        (look(lag=10, laggard="a.example"), H, None),
        (look(lag=11, laggard="a.example"), D, "a.example is 11 blocks behind"),
        (look(outcomes=(Probe.OK, Probe.WRONG_CHAIN)), H, None),
        (look(outcomes=(Probe.OK, Probe.TIMEOUT)), H, None),
        (look(outcomes=(Probe.WRONG_CHAIN,)), U, "every endpoint serves another chain"),
        (look(outcomes=(Probe.RATE_LIMITED, Probe.REFUSED)), N, "no endpoint lets us look (rate_limited, refused)"),
        (look(outcomes=(Probe.TIMEOUT, Probe.REFUSED)), D, "no endpoint answers (refused, timeout)"),
        (look(outcomes=(Probe.SERVER_ERROR,), head_age_s=60.0), U, "no endpoint answers (server_error)"),
        (look(outcomes=(Probe.NETWORK,), is_network_up=False, head_age_s=900.0), N, "our own network is down"),
        (look(outcomes=(Probe.TIMEOUT,), is_announced=True), D, "new heads come, but no endpoint answers (timeout)"),
        (look(outcomes=()), N, "no endpoint was looked at"),
    ],
)  # fmt: skip
def test_what_one_look_says(seen: Seen, level: Health, why: str | None) -> None:
    verdict = judge(seen, BASE)
    assert verdict.level is level
    assert verdict.reason == why if why is None else why in str(verdict.reason)


def test_a_chain_that_makes_blocks_on_demand_is_judged_by_its_head_after_five_minutes_only() -> None:
    limits = thresholds(42161, 0.25)
    assert judge(look(head_age_s=299.0, block_time_s=5.0), limits).level is H
    assert judge(look(head_age_s=301.0), limits).level is D
    assert judge(look(head_age_s=601.0), limits).level is U


def test_heads_of_fast_chains_may_differ_by_what_passes_between_two_looks() -> None:
    assert thresholds(42161, 0.25).lag_blocks == 40
    assert thresholds(1, 12.0).lag_blocks == 10


def test_our_own_network_is_down_only_when_nothing_at_all_answers() -> None:
    assert not is_network_up([Probe.NETWORK, Probe.TIMEOUT])
    assert not is_network_up([])
    for answered in (Probe.OK, Probe.RATE_LIMITED, Probe.REFUSED, Probe.SERVER_ERROR, Probe.WRONG_CHAIN):
        assert is_network_up([Probe.NETWORK, answered])


def test_volume_is_nothing_that_a_look_knows() -> None:
    assert not [name for name in Seen.__struct_fields__ if "volume" in name or "tvl" in name]


# ---- many looks -----------------------------------------------------------------------------------------------------


def test_a_chain_that_dies_is_degraded_then_unhealthy_and_recovers() -> None:
    assert run([H, U, U, U, U, H, H, H]) == [H, H, D, U, U, U, U, H]


def test_a_chain_that_slowly_dies() -> None:
    assert run([H, D, D, D, U, U, D, D, D, H, H, H]) == [H, H, D, D, D, U, U, U, D, D, D, H]


def test_not_being_able_to_look_once_changes_nothing_twice_is_unknown() -> None:
    assert run([H, N, H, N, N, N, H, H]) == [H, H, H, H, N, N, N, H]


def test_the_first_look_of_all_counts_but_never_says_dead() -> None:
    assert run([H]) == [H]
    assert run([U, U, U]) == [D, U, U]


@pytest.mark.parametrize("kept", [H, D, U])
def test_a_restart_goes_on_from_the_status_that_was_kept(kept: Health) -> None:
    assert run([kept] * 4, Standing(kept)) == [kept] * 4
    # One look that differs does not overrule it.
    assert {run([other], Standing(kept))[0] for other in (H, D, U, N)} == {kept}


def test_the_reason_stays_until_the_chain_is_healthy_again() -> None:
    standing = Standing(H)
    for level, said in ((U, "dead"), (U, "dead"), (H, None), (H, None)):
        standing = advance(standing, Verdict(level, said))
        assert standing.status is H or standing.reason == "dead"
    assert advance(standing, Verdict(H)).reason is None


LEVELS = st.lists(st.sampled_from([H, D, U, N]), max_size=60)
KNOWN = st.lists(st.sampled_from([H, D, U]), max_size=60)
STEPS = {H: 0, D: 1, U: 2}


@given(LEVELS, st.sampled_from([H, D, U, N]))
def test_transitions_are_legal(levels: list[Health], kept: Health) -> None:
    legal = {(H, D), (D, U), (D, H), (U, D), (U, H), (H, N), (D, N), (U, N), (N, H), (N, D)}
    held = [kept, *run(levels, Standing(kept))]
    assert {(a, b) for a, b in pairwise(held) if a is not b} <= legal


@given(LEVELS, st.sampled_from([H, D, U]), st.sampled_from([H, D, U, N]))
def test_one_odd_look_changes_nothing(levels: list[Health], settled: Health, odd: Health) -> None:
    standing = Standing()
    for level in [*levels, *[settled] * 4]:
        standing = advance(standing, Verdict(level))
    assert standing.status is settled
    assert set(run([odd, settled, settled, settled], standing)) == {settled}


@given(KNOWN)
def test_a_change_of_direction_takes_at_least_two_looks(levels: list[Health]) -> None:
    held = run(levels)
    turns = [(at, STEPS[b] > STEPS[a]) for at, (a, b) in enumerate(pairwise(held)) if a is not b]
    assert all(later - at >= 2 for (at, was_worse), (later, is_worse) in pairwise(turns) if was_worse is not is_worse)


@given(LEVELS, st.sampled_from([H, D, U, N]))
def test_four_equal_looks_settle_it(levels: list[Health], level: Health) -> None:
    assert run([*levels, *[level] * 4])[-1] is level


@given(st.sampled_from([(H, D), (H, U), (D, U), (H, N), (D, N)]), st.integers(4, 40))
def test_looks_that_alternate_do_not_make_the_verdict_flap(pair: tuple[Health, Health], count: int) -> None:
    held = run([*[pair[0]] * 4, *(pair[at % 2] for at in range(count))])
    assert len({*held[3:]}) == 1


@given(LEVELS)
def test_the_memory_is_bounded(levels: list[Health]) -> None:
    standing = Standing()
    for level in levels:
        standing = advance(standing, Verdict(level))
        assert len(standing.recent) <= 3
