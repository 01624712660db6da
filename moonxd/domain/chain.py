"""The chains moonxd syncs: one line each. A new chain is a line here and its endpoints in the configuration."""

from __future__ import annotations

import msgspec

from .errors import Permanent


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """What never changes about a chain. Endpoints, keys and limits are configuration."""

    id: int
    slug: str
    name: str
    symbol: str
    coin_name: str
    coin_decimals: int = 18
    #: The chain's name in DefiLlama's price and statistics API.
    llama: str
    #: The chain's host prefix at Alchemy.
    alchemy: str
    #: Seconds between blocks as seeded; statistics learn the real value.
    block_time: float


CHAINS: dict[int, Chain] = {
    chain.id: chain
    for chain in (
        Chain(id=1, slug="ethereum", name="Ethereum", symbol="ETH", coin_name="Ether",
              llama="ethereum", alchemy="eth-mainnet", block_time=12.0),
        Chain(id=137, slug="polygon", name="Polygon", symbol="POL", coin_name="Polygon Ecosystem Token",
              llama="polygon", alchemy="polygon-mainnet", block_time=2.0),
        Chain(id=10, slug="optimism", name="Optimism", symbol="ETH", coin_name="Ether",
              llama="optimism", alchemy="opt-mainnet", block_time=2.0),
        Chain(id=42161, slug="arbitrum", name="Arbitrum One", symbol="ETH", coin_name="Ether",
              llama="arbitrum", alchemy="arb-mainnet", block_time=0.25),
        Chain(id=8453, slug="base", name="Base", symbol="ETH", coin_name="Ether",
              llama="base", alchemy="base-mainnet", block_time=2.0),
        Chain(id=56, slug="bsc", name="BNB Smart Chain", symbol="BNB", coin_name="BNB",
              llama="bsc", alchemy="bnb-mainnet", block_time=0.45),
    )
}  # fmt: skip

_BY_NAME = {name: chain for chain in CHAINS.values() for name in (chain.slug, chain.name.lower(), str(chain.id))}


def parse_chain(given: object) -> Chain:
    """A chain from its id (number or digits) or slug, as producers write it. Raises Permanent with the known ones."""
    key = str(given).strip().lower() if isinstance(given, (int, str)) and not isinstance(given, bool) else ""
    chain = _BY_NAME.get(key)
    if chain is None:
        known = ", ".join(f"{c.id} ({c.slug})" for c in CHAINS.values())
        raise Permanent(f"unknown chain {given!r}: use one of {known}")
    return chain
