"""CoinGecko, DexScreener, Binance and Alchemy's prices: the price sources beside DefiLlama."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from .llama import price_text, token_at
from .reply import Reply, as_json
from .universe import SimToken
from .world import SimChain, World

#: Below it CoinGecko and Binance have never heard of a token; DexScreener lists everything that trades.
_LISTED_FROM = 0.9
_COINGECKO_PLATFORMS = {
    "ethereum": 1,
    "binance-smart-chain": 56,
    "polygon-pos": 137,
    "optimistic-ethereum": 10,
    "arbitrum-one": 42161,
    "base": 8453,
}
_DEXSCREENER_CHAINS = {"ethereum": 1, "bsc": 56, "polygon": 137, "optimism": 10, "arbitrum": 42161, "base": 8453}
_DEXSCREENER_MOST = 30
_ALCHEMY_MOST, _ALCHEMY_NETWORKS = 25, 3


def coingecko(world: World, platform: str, query: dict[str, str], factor: float) -> Reply:
    """GET /simple/token_price/{platform}: keys in lower case, unknown tokens absent."""
    chain = world.by_id.get(_COINGECKO_PLATFORMS.get(platform, 0))
    if chain is None:
        return as_json({"error": f"could not find asset platform with id {platform!r}"}, 404)
    if "contract_addresses" not in query or "usd" not in query.get("vs_currencies", "").split(","):
        return as_json({"status": {"error_code": 422, "error_message": "Missing parameter"}}, 422)
    entries: dict[str, Any] = {}
    for address in query["contract_addresses"].split(","):
        token = token_at(chain, address)
        if token is None or token.confidence < _LISTED_FROM:
            continue
        price = price_text(world, token, factor)
        if price is not None:
            entries[address.lower()] = _coingecko_entry(world, token, price, query)
    return as_json(entries)


def _coingecko_entry(world: World, token: SimToken, price: str, query: dict[str, str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"usd": msgspec.Raw(price.encode())}
    if query.get("include_24hr_vol") == "true":
        entry["usd_24h_vol"] = liquidity(token) * 3
    if query.get("include_last_updated_at") == "true":
        entry["last_updated_at"] = int(world.now()) // 60 * 60
    return entry


def liquidity(token: SimToken) -> int:
    """USD in a token's pool: plenty for listed ones, almost nothing for what few trust."""
    if token.listed:
        return 4_000_000 + token.key[0] * 10_000
    return 60_000 + token.key[0] * 1000 if token.confidence >= _LISTED_FROM else 100 + token.key[0] * 20


def dexscreener(world: World, place: str, addresses: str, factor: float) -> Reply:
    """GET /tokens/v1/{chain}/{addresses}: a bare array of pairs."""
    chain = world.by_id.get(_DEXSCREENER_CHAINS.get(place, 0))
    asked = addresses.split(",")
    if len(asked) > _DEXSCREENER_MOST:
        return as_json({"error": f"at most {_DEXSCREENER_MOST} addresses"}, 400)
    return as_json([] if chain is None else _pairs(world, chain, place, asked, factor))


def dexscreener_anywhere(world: World, addresses: str, factor: float) -> Reply:
    """GET /latest/dex/tokens/{addresses}: pairs of all chains, null when there are none."""
    asked = addresses.split(",")
    places = ((place, world.by_id.get(chain_id)) for place, chain_id in _DEXSCREENER_CHAINS.items())
    found = [
        pair for place, chain in places if chain is not None for pair in _pairs(world, chain, place, asked, factor)
    ]
    return as_json({"schemaVersion": "1.0.0", "pairs": found or None})


def _pairs(world: World, chain: SimChain, place: str, asked: list[str], factor: float) -> list[dict[str, Any]]:
    pairs = []
    for address in asked[:_DEXSCREENER_MOST]:
        token = token_at(chain, address)
        price = None if token is None else price_text(world, token, factor)
        if token is not None and price is not None:
            pairs += [_pair(chain, place, token, price), _inverted(chain, place, token)]
    return pairs


def _pair(chain: SimChain, place: str, token: SimToken, price: str) -> dict[str, Any]:
    pool = liquidity(token)
    return {
        "chainId": place,
        "dexId": "uniswap",
        "url": f"https://dexscreener.com/{place}/{token.address}",
        "pairAddress": "0x" + chain.entropy.digest(b"pool" + token.key)[:20].hex(),
        "baseToken": {"address": token.address, "name": token.name, "symbol": token.symbol},
        "quoteToken": {"address": _quote(chain).address, "name": "USD Coin", "symbol": "USDC"},
        "priceNative": price,
        "priceUsd": price,
        "txns": {"h24": {"buys": 120, "sells": 97}},
        "volume": {"h24": pool * 3},
        "priceChange": {"h24": 1.02},
        "liquidity": {"usd": pool, "base": pool / 2, "quote": pool / 2},
        "fdv": pool * 40,
        "marketCap": pool * 30,
        "pairCreatedAt": 1_700_000_000_000,
    }


def _inverted(chain: SimChain, place: str, token: SimToken) -> dict[str, Any]:
    """A pair in which the token is the quote: its priceUsd is the other token's, a trap for careless readers."""
    straight = _pair(chain, place, token, "0.99981")
    pool = liquidity(token) * 2
    return {
        **straight,
        "pairAddress": "0x" + chain.entropy.digest(b"inverted" + token.key)[:20].hex(),
        "baseToken": straight["quoteToken"],
        "quoteToken": straight["baseToken"],
        "liquidity": {"usd": pool, "base": pool / 2, "quote": pool / 2},
    }


def _quote(chain: SimChain) -> SimToken:
    stable = (token for token in chain.universe.listed if token.symbol in ("USDC", "USDT"))
    return next(stable, chain.universe.coin)


def binance(world: World, query: dict[str, str], factor: float) -> Reply:
    """GET /api/v3/ticker/price: one unknown symbol fails the whole question."""
    try:
        many = msgspec.json.decode(query["symbols"], type=list[str]) if "symbols" in query else [query["symbol"]]
    except (KeyError, msgspec.MsgspecError):
        return as_json({"code": -1102, "msg": "Mandatory parameter 'symbol' was not sent, was empty/null."}, 400)
    books = _books(world)
    if any(symbol not in books for symbol in many):
        return as_json({"code": -1121, "msg": "Invalid symbol."}, 400)
    rows = [{"symbol": symbol, "price": price_text(world, books[symbol], factor)} for symbol in many]
    return as_json(rows if "symbols" in query else rows[0])


def _books(world: World) -> dict[str, SimToken]:
    """Traded symbols: what its family is called, against USDT."""
    tokens = (token for chain in world.chains.values() for token in (chain.universe.coin, *chain.universe.listed))
    return {f"{token.family}USDT": token for token in tokens if token.family not in ("", "USD")}


def alchemy_prices(world: World, body: bytes, factor: float) -> Reply:
    """POST /prices/v1/{key}/tokens/by-address: a miss is a row with an error object, and still HTTP 200."""
    try:
        asked = msgspec.json.decode(body, type=dict[str, list[dict[str, str]]])["addresses"]
        places = [(one["network"], one["address"]) for one in asked]
    except (msgspec.MsgspecError, KeyError):
        return as_json({"error": {"message": "Invalid request"}}, 400)
    if len(places) > _ALCHEMY_MOST or len({network for network, _ in places}) > _ALCHEMY_NETWORKS:
        return as_json({"error": {"message": "Too many addresses or networks"}}, 400)
    return as_json({"data": [_alchemy_row(world, network, address, factor) for network, address in places]})


def _alchemy_row(world: World, network: str, address: str, factor: float) -> dict[str, Any]:
    chain = next((one for one in world.chains.values() if one.chain.alchemy == network), None)
    token = None if chain is None else token_at(chain, address)
    price = None if token is None or token.confidence < _LISTED_FROM else price_text(world, token, factor)
    row: dict[str, Any] = {"network": network, "address": address, "prices": []}
    if price is None:
        return {**row, "error": {"message": "Token not found"}}
    at = datetime.fromtimestamp(int(world.now()) // 60 * 60, UTC).isoformat()
    return {**row, "prices": [{"currency": "usd", "value": price, "lastUpdatedAt": at}]}
