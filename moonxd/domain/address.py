"""EVM addresses: stored and compared in lower case, checked by EIP-55 when the sender bothered to write one."""

from __future__ import annotations

import re
from functools import lru_cache

from .errors import Permanent
from .keccak import keccak256

#: How the native coin of a chain is written where a token address is expected.
NATIVE = "0x" + "0" * 40
_HEX = re.compile(r"[0-9a-fA-F]*\Z")


def parse_address(text: object, *, what: str = "walletAddress") -> str:
    """`text` as a lower-case 0x address.

    Raises Permanent with a sentence that says what is wrong: not text, no 0x, not hex, wrong length, wrong checksum.
    """
    if not isinstance(text, str):
        raise Permanent(f"{what} must be text like 0x followed by 40 hex digits, not {type(text).__name__}")
    shown = text if len(text) <= 60 else text[:57] + "..."
    if not text.startswith(("0x", "0X")):
        raise Permanent(f"{what} {shown!r} does not start with 0x: give the 0x form of an EVM address")
    digits = text[2:]
    if not _HEX.match(digits):
        raise Permanent(f"{what} {shown!r} is not hex: after 0x only 0-9 and a-f may stand")
    if len(digits) != 40:
        raise Permanent(f"{what} {shown!r} has {len(digits)} hex digits after 0x, an EVM address has 40")
    lower = "0x" + digits.lower()
    if digits not in (digits.lower(), digits.upper()) and checksum(lower)[2:] != digits:
        raise Permanent(
            f"{what} {shown!r} has a wrong EIP-55 checksum (a letter was mistyped): "
            "copy it again, or write it in lower case to skip the check"
        )
    return lower


@lru_cache(maxsize=4096)
def checksum(address: str) -> str:
    """The EIP-55 mixed-case form of a lower-case address."""
    digits = address[2:].lower()
    mask = keccak256(digits.encode()).hex()
    return "0x" + "".join(c.upper() if int(m, 16) >= 8 else c for c, m in zip(digits, mask, strict=False))
