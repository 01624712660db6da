"""What statistics cost on a metered key: stated for each chain, and within the budget."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from moonxd.adapters.chains import UNITS_PER_HEAD, is_metered, look_units
from moonxd.adapters.rpc import Transport, open_transport
from moonxd.config import Config, load_config
from moonxd.domain.chain import CHAINS
from moonxd.domain.chaincost import budget_per_day, costs, heads_cost, statement
from moonxd.wiring.chainstats import chain_heads, cost_statement, metered_costs

FREE_PLAN = 30_000_000
KEY = "0123456789abcdef0123"


def config(**variables: str) -> Config:
    return load_config(None, {"HOME": "/nonexistent", **variables}).config


def test_six_chains_on_the_free_plan_stay_within_a_twentieth() -> None:
    budget = budget_per_day(FREE_PLAN, 0.05)
    found = costs({chain.slug: look_units(chain) for chain in CHAINS.values()}, {}, budget=budget, tick_s=60.0)
    spent = sum(cost.units_per_day for cost in found)
    assert 0.9 * budget < spent <= budget
    assert 31 * spent <= 0.05 * FREE_PLAN
    # Each minute would be another thing.
    assert 31 * 1440 * sum(cost.units_per_look for cost in found) > 0.5 * FREE_PLAN


def test_it_is_said_for_each_chain() -> None:
    found = costs({"ethereum": 60, "base": 60}, {}, budget=12_000, tick_s=60.0)
    assert statement(found, budget=12_000) == (
        "ethereum: 6000 compute units a day, a look of 60 every 864 s",
        "base: 6000 compute units a day, a look of 60 every 864 s",
        "all chains: 12000 of the 12000 compute units a day that statistics may spend",
    )


def test_a_budget_of_nothing_means_no_looks() -> None:
    (cost,) = costs({"ethereum": 60}, {}, budget=0, tick_s=60.0)
    assert cost.every_s == math.inf
    assert statement((cost,), budget=0)[0] == "ethereum: no looks, the budget does not allow one a day"


def test_a_large_plan_does_not_make_us_look_more_than_once_a_tick() -> None:
    (cost,) = costs({"ethereum": 60}, {}, budget=10**9, tick_s=60.0)
    assert (cost.every_s, cost.units_per_day) == (60.0, 86_400)


@given(
    st.dictionaries(st.sampled_from([chain.slug for chain in CHAINS.values()]), st.integers(1, 500), min_size=1),
    st.integers(0, 10**7),
    st.floats(1.0, 3600.0),
)
def test_the_budget_is_never_exceeded(units: dict[str, int], budget: int, tick_s: float) -> None:
    found = costs(units, {}, budget=budget, tick_s=tick_s)
    assert sum(cost.units_per_day for cost in found) <= budget
    assert all(cost.every_s >= tick_s for cost in found)


# ---- of a configuration ---------------------------------------------------------------------------------------------


def test_by_default_statistics_spend_nothing_even_where_there_is_a_key() -> None:
    assert metered_costs(config(ALCHEMY_API_KEY=KEY)) == ()
    assert cost_statement(config(ALCHEMY_API_KEY=KEY)) == ()


def test_on_a_key_the_cost_is_stated_and_the_key_is_not() -> None:
    lines = cost_statement(config(ALCHEMY_API_KEY=KEY, MOONXD_STATS__USE_ALCHEMY="true"))
    assert len(lines) == 7
    assert "ethereum: " in lines[0]
    assert not [line for line in lines if KEY in line]


def test_an_endpoint_of_alchemy_among_the_urls_is_metered_too() -> None:
    (cost,) = metered_costs(config(ETHEREUM_RPC_URL=f"https://eth-mainnet.g.alchemy.com/v2/{KEY}"))
    assert cost.slug == "ethereum"
    assert not is_metered("https://alchemy.com.example/v2")


async def test_heads_are_subscribed_to_where_blocks_are_slow_and_the_price_is_right() -> None:
    async with open_transport() as transport:
        _check_heads(transport)


def _check_heads(transport: Transport) -> None:
    sockets = {f"{chain.slug.upper()}_WS_URL": f"wss://{chain.slug}.example" for chain in CHAINS.values()}
    assert set(chain_heads(config(**sockets), transport)) == {1, 137, 10, 8453}
    metered = {"ETHEREUM_WS_URL": f"wss://eth-mainnet.g.alchemy.com/v2/{KEY}"}
    assert chain_heads(config(**metered), transport) == {}
    assert heads_cost(CHAINS[1], UNITS_PER_HEAD) == 288_000
    rich = {**metered, "MOONXD_ALCHEMY__PLAN_UNITS_PER_MONTH": "3000000000"}
    assert set(chain_heads(config(**rich), transport)) == {1}
    (cost,) = metered_costs(config(**rich))
    assert cost.heads_per_day == 288_000
