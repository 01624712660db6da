"""Block headers, as far as a reader of balances and statistics looks at them."""

from __future__ import annotations

from typing import Any

from .world import SimChain

_ZERO_ROOT = "0x" + "0" * 64
_BLOOM = "0x" + "0" * 512
_GWEI = 10**9
#: The chains' usual base fees in wei; BSC's is zero.
_BASE_FEES = {1: 2 * _GWEI, 137: 30 * _GWEI, 10: 1_200_000, 42161: 10_000_000, 8453: 2_500_000, 56: 0}
#: How many blocks the tags lag behind the newest one.
_TAGS = {"latest": 0, "pending": 0, "safe": 32, "finalized": 64}


def base_fee(chain: SimChain, height: int) -> int:
    """Wei per gas; wavers by a tenth."""
    usual = _BASE_FEES.get(chain.chain.id, _GWEI)
    return usual + usual * (height * 7 % 21 - 10) // 100


def block_hash(chain: SimChain, height: int) -> str:
    return "0x" + chain.entropy.digest(b"block/%d/%d" % (chain.chain.id, height))[:32].hex()


def header(chain: SimChain, height: int) -> dict[str, Any]:
    """The fields of a newHeads notification."""
    when = chain.head.timestamp(height)
    fields = {
        "number": hex(height),
        "hash": block_hash(chain, height),
        "parentHash": block_hash(chain, height - 1),
        "nonce": "0x0000000000000000",
        "sha3Uncles": "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347",
        "logsBloom": _BLOOM,
        "transactionsRoot": _ZERO_ROOT,
        "stateRoot": _ZERO_ROOT,
        "receiptsRoot": _ZERO_ROOT,
        "miner": "0x" + "0" * 40,
        "difficulty": "0x0",
        "extraData": "0x",
        "gasLimit": hex(36_000_000),
        "gasUsed": hex(18_000_000),
        "timestamp": hex(int(when)),
        "mixHash": _ZERO_ROOT,
        "baseFeePerGas": hex(base_fee(chain, height)),
    }
    if chain.chain.id == 56:
        # Whole seconds repeat at BSC's pace, so its headers carry milliseconds too.
        fields["milliTimestamp"] = hex(int(when * 1000))
    return fields


def block(chain: SimChain, height: int) -> dict[str, Any]:
    """The answer of eth_getBlockByNumber; the simulated blocks hold no transactions."""
    return {**header(chain, height), "size": "0x220", "totalDifficulty": "0x0", "transactions": [], "uncles": []}


def resolve(tag: object, newest: int) -> int | None:
    """The height a block parameter means, None when it is neither a tag nor a hex number."""
    if isinstance(tag, dict):
        tag = tag.get("blockNumber")
    if not isinstance(tag, str):
        return None
    if tag in _TAGS:
        return newest - _TAGS[tag]
    if tag == "earliest":
        return 0
    try:
        return int(tag, 16) if tag.startswith("0x") else None
    except ValueError:
        return None
