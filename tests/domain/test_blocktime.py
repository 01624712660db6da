"""Block times: from two blocks, against what is usual; reorganisations in a sequence of heads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonxd.domain.blocktime import SPAN_S, Block, Usual, blocks_back, change_pct, measured, pace
from moonxd.domain.chain import CHAINS, Chain
from moonxd.domain.heads import Trail, silent_after_s

DAY_S = 86400.0


def block(number: int, at: float = 0.0, *, branch: str = "a", parent: str | None = None) -> Block:
    return Block(number=number, hash=f"{branch}{number}", parent=parent or f"{branch}{number - 1}", at=at)


@pytest.mark.parametrize("chain", CHAINS.values(), ids=lambda chain: chain.slug)
def test_the_window_is_long_enough_and_whole_seconds_err_by_less_than_a_percent(chain: Chain) -> None:
    usual_s = chain.block_time
    span_s = blocks_back(usual_s) * usual_s
    assert span_s >= SPAN_S
    assert 1 / span_s < 0.01
    # Even when the chain has become twice as fast as we think.
    assert span_s / 2 >= SPAN_S


@given(st.floats(0.1, 60.0), st.integers(1, 2000))
def test_a_pace_is_what_was_put_in(block_time_s: float, blocks: int) -> None:
    old, new = block(100, 1000.0), block(100 + blocks, 1000.0 + blocks * block_time_s)
    assert pace(old, new) == pytest.approx(block_time_s)
    assert (measured(old, new) is None) == (new.at - old.at < SPAN_S)


@pytest.mark.parametrize("new", [block(100, 90.0), block(99, 120.0), block(100, 120.0), block(101, 100.0)])
def test_blocks_that_do_not_follow_each_other_have_no_pace(new: Block) -> None:
    assert pace(block(100, 100.0), new) is None


def test_the_change_is_in_percent_and_unknown_without_a_sample() -> None:
    assert change_pct(2.2, 2.0) == pytest.approx(10.0)
    assert change_pct(None, 2.0) is None
    assert change_pct(2.0, None) is None
    assert change_pct(2.0, 0.0) is None


def test_a_bad_hour_does_not_become_usual_and_a_new_pace_does_within_a_day() -> None:
    usual = Usual(2.0)
    for minute in range(60):
        usual.note(30.0, minute * 60.0)
    assert usual.seconds == 2.0
    for minute in range(24 * 60):
        usual.note(1.5, DAY_S + minute * 60.0)
    assert usual.seconds == 1.5


@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0, 365 * DAY_S)), max_size=400))
def test_what_is_usual_lies_among_what_was_measured_and_its_memory_is_bounded(notes: list[tuple[float, float]]) -> None:
    usual = Usual(2.0)
    for seconds, at in notes:
        usual.note(seconds, at)
    seen = [2.0, *(seconds for seconds, _ in notes)]
    assert min(seen) - 1e-9 <= usual.seconds <= max(seen) + 1e-9
    assert len(usual._hours) <= 7 * 24


# ---- heads ----------------------------------------------------------------------------------------------------------


def test_heads_that_go_on_are_no_reorganisation() -> None:
    trail = Trail()
    assert [trail.add(block(number)) for number in (1, 2, 3, 3, 2, 7, 8)] == [0] * 7
    assert trail.reorgs == 0
    assert trail.tip == block(8)


def test_a_replaced_tip_and_a_deep_reorganisation_are_counted_once_each() -> None:
    trail = Trail()
    for number in range(1, 6):
        trail.add(block(number))
    # Another 5 on the same 4; then a branch that leaves after 2.
    assert trail.add(block(5, branch="b", parent="a4")) == 1
    assert trail.add(block(3, branch="c", parent="a2")) == 3
    assert [trail.add(block(number, branch="c")) for number in (4, 5, 6)] == [0, 0, 0]
    assert (trail.reorgs, trail.deepest) == (2, 3)
    assert trail.tip == block(6, branch="c")


def test_a_head_on_an_unknown_parent_tells_of_a_reorganisation_too() -> None:
    trail = Trail()
    trail.add(block(1))
    trail.add(block(2))
    assert trail.add(block(3, branch="b")) == 1
    assert trail.add(block(4, branch="b")) == 0


def test_a_chain_that_was_set_back_is_followed() -> None:
    trail = Trail()
    for number in range(1, 11):
        trail.add(block(number))
    assert trail.add(block(6, branch="b", parent="a5")) == 5
    assert trail.tip == block(6, branch="b", parent="a5")


@given(st.integers(2, 60), st.lists(st.tuples(st.integers(1, 6), st.integers(1, 8)), max_size=20))
def test_every_reorganisation_of_a_node_that_tells_all_heads_is_counted_at_its_depth(
    start: int, forks: list[tuple[int, int]]
) -> None:
    trail = Trail()
    branch = [block(number) for number in range(start)]
    for head in branch:
        trail.add(head)
    expected = []
    for turn, (depth, length) in enumerate(forks):
        depth = min(depth, len(branch) - 1)
        if depth == 0:
            continue
        expected.append(depth)
        del branch[-depth:]
        for _ in range(length):
            tip = branch[-1]
            branch.append(block(tip.number + 1, branch=f"f{turn}-", parent=tip.hash))
            trail.add(branch[-1])
    assert trail.reorgs == len(expected)
    assert trail.deepest == max(expected, default=0)


def test_the_memory_of_heads_is_bounded() -> None:
    trail = Trail()
    for number in range(5000):
        trail.add(block(number))
    assert len(trail) == 256
    assert trail.reorgs == 0


def test_fast_chains_get_half_a_minute_and_slow_ones_ten_blocks_before_a_socket_counts_as_silent() -> None:
    assert silent_after_s(0.45) == 30.0
    assert silent_after_s(12.0) == 120.0
