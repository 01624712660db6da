"""Alchemy's token methods, as its reference and recorded answers show them."""

from __future__ import annotations

from typing import Any

import msgspec

from .holdings import ZERO_WORD
from .reply import Reply
from .rpc import NODE_METHODS, Endpoint, Method, RpcError, wallet_bytes
from .universe import COIN, SimToken, Trait

_PAGE = 100
#: Keys that the simulated Alchemy refuses, to see how a reader takes it.
INVALID_KEY = "invalid"
SPENT_KEY = "over-quota"


def refusal(key: str) -> Reply | None:
    """The answer to a key that may not ask; None for every other one."""
    if key == INVALID_KEY:
        return _refused(401, "Must be authenticated!")
    if key == SPENT_KEY:
        return _refused(403, "Monthly capacity limit exceeded.")
    return None


def _refused(status: int, message: str) -> Reply:
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": message}}
    return Reply(msgspec.json.encode(error), status)


def token_balances(node: Endpoint, params: list[Any]) -> dict[str, Any]:
    address, spec = params[0], params[1] if len(params) > 1 else "erc20"
    options = params[2] if len(params) > 2 else {}
    keys = _asked(node, wallet_bytes(address), spec)
    size = min(_PAGE, int(options.get("maxCount", _PAGE)))
    start = int(options.get("pageKey", "0"), 16)
    if size < 1 or not 0 <= start <= len(keys):
        raise RpcError(-32602, "Invalid pageKey or maxCount", status=400)
    words = node.chain.wallets.get(wallet_bytes(address)).words
    page = keys[start : start + size]
    result = {"address": address, "tokenBalances": [_entry(node, key, words.get(key, ZERO_WORD)) for key in page]}
    more = start + size
    return {**result, "pageKey": f"0x{more:08x}"} if more < len(keys) else result


def _asked(node: Endpoint, wallet: bytes, spec: object) -> list[bytes]:
    if isinstance(spec, list):
        return [wallet_bytes(address) for address in spec]
    if spec == "DEFAULT_TOKENS":
        return [token.key for token in node.chain.universe.listed][:_PAGE]
    if spec != "erc20":
        raise RpcError(-32602, "Invalid token specification", status=400)
    holdings = node.chain.wallets.get(wallet)
    return [key for key in (*holdings.raw, *holdings.zeros) if key != COIN]


def _entry(node: Endpoint, key: bytes, word: str) -> dict[str, Any]:
    token = node.chain.universe.get(key)
    address = "0x" + key.hex()
    if token is None or is_unreadable(node, token):
        return {"contractAddress": address, "tokenBalance": None, "error": "execution reverted"}
    return {"contractAddress": address, "tokenBalance": "0x" + word}


def is_unreadable(node: Endpoint, token: SimToken) -> bool:
    contracts = node.chain.contracts
    return token.trait in (Trait.REVERTING, Trait.POISON) or token.key in {*contracts.poison, *contracts.reverting}


def token_metadata(node: Endpoint, params: list[Any]) -> dict[str, Any]:
    token = node.chain.universe.get(wallet_bytes(params[0]))
    if token is None or token.key == COIN:
        return {"name": None, "symbol": None, "decimals": None, "logo": None}
    logo = f"https://logos.example/{token.symbol.lower()}.png" if token.listed else None
    return {"name": token.name, "symbol": token.symbol, "decimals": token.known_decimals, "logo": logo}


ALCHEMY_METHODS: dict[str, Method] = {
    **NODE_METHODS,
    "alchemy_getTokenBalances": token_balances,
    "alchemy_getTokenMetadata": token_metadata,
}
