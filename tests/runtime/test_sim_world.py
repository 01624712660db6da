"""The simulated world without a wire: everything follows from the seed and the clock."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonxd.domain.chain import CHAINS
from moonxd.domain.errors import ConfigError
from moonxd.sim.entropy import Entropy
from moonxd.sim.heads import Head
from moonxd.sim.knobs import Knobs, Upstream, patched
from moonxd.sim.settings import ListedToken, SimSettings, read_token_list
from moonxd.sim.truth import Filter, wallet
from moonxd.sim.universe import Trait
from moonxd.sim.world import World

NOW = 1_800_000_000.0
ETHEREUM = CHAINS[1]


def world(**settings: Any) -> World:
    return World(SimSettings(**settings), now=lambda: NOW)


@given(st.binary(min_size=20, max_size=20))
def test_a_wallet_follows_from_the_seed(key: bytes) -> None:
    address = "0x" + key.hex()
    assert wallet(_A, address, Filter()) == wallet(_B, address, Filter())


@given(st.binary(min_size=20, max_size=20))
def test_a_wallet_holds_up_to_forty_tokens_a_chain_and_never_nothing_of_one(key: bytes) -> None:
    for chain in _A.chains.values():
        raw = chain.wallets.get(key).raw
        assert len(raw) <= 40
        assert all(0 < value < 2**256 for value in raw.values())


def test_other_seeds_give_other_worlds() -> None:
    address = "0x" + "ab" * 20
    assert wallet(_A, address, Filter()) != wallet(world(seed="2"), address, Filter())


def test_wallets_are_as_different_as_people() -> None:
    counts = [len(_A.chains["ethereum"].wallets.get(i.to_bytes(20, "big")).raw) for i in range(500)]
    assert 20 < counts.count(0) < 100
    assert max(counts) > 30
    pages = [len(_A.chains["ethereum"].wallets.get(i.to_bytes(20, "big")).zeros) for i in range(500)]
    assert max(pages) > 100, "somebody must need a second page at Alchemy"


def test_every_kind_of_token_exists_on_every_chain() -> None:
    for chain in _A.chains.values():
        tokens = chain.universe.unlisted
        assert {token.trait for token in tokens} == set(Trait)
        assert any(token.spam for token in tokens)
        assert any(not token.is_priced for token in tokens)
        assert {token.confidence for token in tokens if token.is_priced} >= {0.99, 0.6, 0.15}


def test_a_wrapped_coin_costs_what_its_coin_costs() -> None:
    ethereum, bsc = _A.chains["ethereum"].universe, _A.chains["bsc"].universe
    for universe, symbol in ((ethereum, "WETH"), (bsc, "WBNB")):
        wrapped = next(token for token in universe.listed if token.symbol == symbol)
        assert _A.pricing.usd(wrapped, NOW) == _A.pricing.usd(universe.coin, NOW)


def test_prices_drift_slowly_and_can_be_frozen() -> None:
    coin = _A.chains["ethereum"].universe.coin
    prices = [_A.pricing.usd(coin, NOW + i * 300) for i in range(200)]
    assert len(set(prices)) > 50
    for before, after in pairwise(prices):
        assert before is not None
        assert after is not None
        assert abs(after / before - 1) < Decimal("0.001")
    frozen = world(price_bucket_s=0.0)
    assert frozen.pricing.usd(coin, NOW) == frozen.pricing.usd(coin, NOW + 1e6) == Decimal("3150.42")


def test_a_head_climbs_by_itself_halts_and_goes_on_with_honest_timestamps() -> None:
    head = Head(ETHEREUM)
    height = head.height(NOW)
    assert head.height(NOW + 12) == height + 1
    assert NOW - 12 < head.timestamp(height) <= NOW
    head.follow(halted=True, block_time=None, now=NOW)
    assert head.height(NOW + 500) == height
    assert head.next_at(NOW + 500) is None
    head.follow(halted=False, block_time=0.5, now=NOW + 500)
    assert head.height(NOW + 500.1) == height
    assert head.height(NOW + 500.6) == height + 1
    assert head.timestamp(height + 1) == NOW + 500.5
    assert head.timestamp(height) <= NOW


@given(st.floats(min_value=-1e6, max_value=1e6))
def test_the_block_at_a_time_was_made_by_then(offset: float) -> None:
    head = Head(CHAINS[42161])
    height = head.height_at(NOW + offset, NOW)
    assert head.timestamp(height) <= NOW + offset + 1e-6
    assert height <= head.height(NOW)


def test_the_nth_request_meets_the_same_fate_in_every_run() -> None:
    knobs = Knobs(error_rate=0.3, hang_rate=0.1, latency_ms=50, latency_sigma=0.5, latency_jitter_ms=5)
    fates = []
    for _ in range(2):
        upstream = Upstream("ethereum", "1")
        upstream.turn(knobs)
        fates.append([upstream.fate() for _ in range(200)])
    assert fates[0] == fates[1]
    assert {fate.fault for fate in fates[0]} == {"", "error", "hang"}
    delays = sorted(fate.delay for fate in fates[0])
    assert 0.03 < delays[100] < 0.08
    assert len(set(delays)) > 190


def test_a_fault_budget_runs_out_and_methods_narrow_it() -> None:
    upstream = Upstream("ethereum", "1")
    upstream.turn(Knobs(error_rate=1.0, fault_budget=2, methods=("eth_call",)))
    assert upstream.fate(("eth_blockNumber",)).fault == ""
    assert [upstream.fate(("eth_call",)).fault for _ in range(3)] == ["error", "error", ""]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"error_rate": 2}, "error_rate"),
        ({"error_rat": 1}, "error_rat"),
        ({"halted": "yes"}, "halted"),
        ({"latency_ms": -1}, "latency_ms"),
        ({"malformed_kind": "rude"}, "rude"),
    ],
)
def test_a_bad_knob_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        patched(Knobs(), change)


def test_knobs_change_all_together_or_not_at_all() -> None:
    one = world()
    with pytest.raises(ConfigError, match="polygone"):
        one.turn({"ethereum": {"halted": True}, "polygone": {"halted": True}})
    with pytest.raises(ConfigError, match="0x12"):
        one.turn({"ethereum": {"halted": True, "poison": ["0x12"]}})
    assert not one.upstreams["ethereum"].knobs.halted


def test_after_a_reset_no_block_is_late_because_the_chain_stood_still_before() -> None:
    clock = [NOW]
    one = World(SimSettings(seed="1"), now=lambda: clock[0])
    chain = one.chains["ethereum"]
    one.turn({"ethereum": {"halted": True}})
    clock[0] += 500
    one.turn({"ethereum": {"halted": False}})
    clock[0] += 100
    height = chain.head.height(clock[0])
    assert chain.head.timestamp(height) - chain.head.timestamp(height - 20) > 20 * 12
    one.reset()
    height = chain.head.height(clock[0])
    assert chain.head.timestamp(height) - chain.head.timestamp(height - 20) == 20 * 12


def test_a_token_list_replaces_the_majors(tmp_path: Path) -> None:
    good = {"chainId": 1, "address": "0x" + "AB" * 20, "symbol": "ABC", "decimals": 5, "name": "Abc"}
    forms = {
        "list.json": f'{{"tokens": [{json.dumps(good)}, {{"chainId": 501, "address": "So1111", "symbol": "SOL"}}]}}',
        "bare.json": f"[{json.dumps(good)}]",
        "ours.json": f'{{"1": [["{good["address"]}", "ABC", "Abc", 5]]}}',
    }
    expected = ListedToken(chain_id=1, address="0x" + "ab" * 20, symbol="ABC", decimals=5, name="Abc")
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
        assert read_token_list(tmp_path / name) == (expected,)
    universe = world(tokens=(expected,)).chains["ethereum"].universe
    assert [token.symbol for token in universe.listed] == ["ABC"]


@pytest.mark.parametrize("text", ["", "{}x", '{"tokens": 5}', "7"])
def test_a_broken_token_list_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(ConfigError, match=r"broken\.json"):
        read_token_list(tmp_path / "broken.json")


def test_entropy_streams_are_long_enough_and_stable() -> None:
    entropy = Entropy("1")
    assert len(entropy.stream(b"x", 336)) == 336
    assert entropy.stream(b"x", 100) == entropy.stream(b"x", 336)[:100]


_A, _B = world(), world()
