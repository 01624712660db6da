"""DefiLlama: prices by address, blocks by time, and the statistics of chains."""

from __future__ import annotations

import msgspec

from moonxd.domain.address import NATIVE

from .pricing import plain
from .reply import Reply, as_json
from .universe import SimToken
from .world import SimChain, World

#: Longer lists ran into 413 and 414 at the real one.
_MOST_COINS = 260
_COIN_IDS = {
    "ethereum": "ETH",
    "binancecoin": "BNB",
    "polygon-ecosystem-token": "POL",
    "matic-network": "POL",
}


def prices(world: World, coins: str, factor: float) -> Reply:
    """GET /prices/current/{coins}: unknown coins are absent, keys keep the case of the question."""
    asked = [coin for coin in coins.split(",") if coin]
    if len(asked) > _MOST_COINS:
        return as_json({"message": "URI Too Long"}, 414)
    entries = (f"{_quoted(coin)}:{entry}" for coin in asked if (entry := _entry(world, coin, factor)) is not None)
    return Reply(('{"coins":{' + ",".join(dict.fromkeys(entries)) + "}}").encode())


def _quoted(name: str) -> str:
    return msgspec.json.encode(name).decode()


def _entry(world: World, coin: str, factor: float) -> str | None:
    place, _, address = coin.partition(":")
    token = _coin_by_id(world, address) if place == "coingecko" else _token(world, place, address)
    price = None if token is None else price_text(world, token, factor)
    if token is None or price is None:
        return None
    # The real one observes about once a minute.
    at = int(world.now()) // 60 * 60
    scale = "" if place == "coingecko" else f'"decimals":{token.decimals},'
    symbol = _quoted(token.symbol)
    return f'{{{scale}"symbol":{symbol},"price":{price},"timestamp":{at},"confidence":{token.confidence}}}'


def price_text(world: World, token: SimToken, factor: float) -> str | None:
    """A token's price as a JSON number; `factor` is the source's knob."""
    price = world.pricing.usd(token, world.now())
    if price is None:
        return None
    if factor != 1.0:
        return repr(float(price) * factor)
    return plain(price)


def _coin_by_id(world: World, name: str) -> SimToken | None:
    symbol = _COIN_IDS.get(name)
    return next((chain.universe.coin for chain in world.chains.values() if chain.chain.symbol == symbol), None)


def _token(world: World, place: str, address: str) -> SimToken | None:
    chain = chain_named(world, place)
    return None if chain is None else token_at(chain, address)


def chain_named(world: World, name: str) -> SimChain | None:
    """A chain by DefiLlama's name for it."""
    return next((chain for chain in world.chains.values() if chain.chain.llama == name), None)


def token_at(chain: SimChain, address: str) -> SimToken | None:
    """The token at an address in any case; the zero address is the coin. None for anything else."""
    try:
        key = bytes.fromhex(address[2:])
    except ValueError:
        return None
    return chain.universe.get(key) if len(address) == len(NATIVE) else None


def block_at(world: World, name: str, when: str) -> Reply:
    """GET /block/{chain}/{timestamp}."""
    chain = chain_named(world, name)
    if chain is None or not when.isdecimal():
        return as_json({"message": "Chain or timestamp not found"}, 400)
    height = chain.head.height_at(float(when), world.now())
    return as_json({"height": height, "timestamp": int(chain.head.timestamp(height))})


def chains(world: World) -> Reply:
    """GET /v2/chains: more chains than ours, and one without an id."""
    rows = [
        {
            "gecko_id": None,
            "tvl": _tvl(chain),
            "tokenSymbol": chain.chain.symbol,
            "cmcId": None,
            "name": "OP Mainnet" if chain.chain.id == 10 else chain.chain.name,
            "chainId": chain.chain.id,
        }
        for chain in world.chains.values()
    ]
    other = {
        "gecko_id": "bitcoin",
        "tvl": 5.4e9,
        "tokenSymbol": "BTC",
        "cmcId": "1",
        "name": "Bitcoin",
        "chainId": None,
    }
    return as_json([*rows, other])


def dex_overview(world: World, name: str) -> Reply:
    """GET /overview/dexs/{chain}: the totals that stand at the top, without the breakdown."""
    lower = name.lower()
    known = {n.lower(): c for c in world.chains.values() for n in (c.chain.llama, c.chain.name, c.chain.slug)}
    chain = known.get(lower) or (known.get("optimism") if lower == "op mainnet" else None)
    if chain is None:
        return as_json({"message": "Chain not found"}, 404)
    day = _tvl(chain) // 20
    before = day * 97 // 100
    totals = {"total24h": day, "total48hto24h": before, "total7d": 7 * day, "total30d": 30 * day, "change_1d": 3.09}
    return as_json({"chain": chain.chain.name, "allChains": [], "protocols": [], "totalDataChart": [], **totals})


def _tvl(chain: SimChain) -> int:
    return 10**9 + chain.entropy.number(f"tvl/{chain.chain.id}") % (50 * 10**9)
