"""Block headers as nodes write them."""

from __future__ import annotations

import msgspec

from ...domain.blocktime import Block
from ..rpc.errors import Garbage


class RawBlock(msgspec.Struct, rename="camel"):
    """What is looked at of eth_getBlockByNumber and of a newHeads notification; all else is passed over."""

    number: str
    hash: str
    parent_hash: str
    timestamp: str
    #: BSC: its blocks are faster than whole seconds.
    milli_timestamp: str | None = None


def read_block(raw: RawBlock, host: str) -> Block:
    """Raises Garbage naming `host`."""
    try:
        number, seconds = int(raw.number, 16), int(raw.timestamp, 16)
        at = int(raw.milli_timestamp, 16) / 1000 if raw.milli_timestamp else float(seconds)
    except (ValueError, OverflowError) as error:
        raise Garbage(f"{host}: answered garbage: a block's numbers are not quantities") from error
    if number < 0 or abs(at - seconds) > 1:
        raise Garbage(f"{host}: answered garbage: a block's numbers cannot be")
    return Block(number=number, hash=raw.hash, parent=raw.parent_hash, at=at)
