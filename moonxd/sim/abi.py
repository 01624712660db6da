"""The little of the contract ABI that the simulated contracts speak. Words are 32 bytes."""

from __future__ import annotations

BALANCE_OF = bytes.fromhex("70a08231")
DECIMALS = bytes.fromhex("313ce567")
SYMBOL = bytes.fromhex("95d89b41")
NAME = bytes.fromhex("06fdde03")
TOTAL_SUPPLY = bytes.fromhex("18160ddd")

AGGREGATE3 = bytes.fromhex("82ad56cb")
TRY_AGGREGATE = bytes.fromhex("bce38bd7")
AGGREGATE = bytes.fromhex("252dba42")
TRY_BLOCK_AND_AGGREGATE = bytes.fromhex("399542e9")
GET_ETH_BALANCE = bytes.fromhex("4d2301cc")
GET_BLOCK_NUMBER = bytes.fromhex("42cbb15c")
GET_TIMESTAMP = bytes.fromhex("0f28c97d")
GET_CHAIN_ID = bytes.fromhex("3408e470")
GET_BASEFEE = bytes.fromhex("3e64a696")

ERROR_STRING = bytes.fromhex("08c379a0")


class BadCalldata(Exception):
    """The calldata is not what its selector promises: a contract would revert."""


def word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def padded(data: bytes) -> bytes:
    """`data` filled up with zeros to whole words."""
    return data + bytes(-len(data) % 32)


def text(value: str) -> bytes:
    """The return value of a function that returns one string."""
    data = value.encode()
    return word(32) + word(len(data)) + padded(data)


def bytes32(value: str) -> bytes:
    """A string as the first tokens returned it: cut or filled to one word."""
    return value.encode()[:32].ljust(32, b"\0")


def revert(reason: str) -> bytes:
    """The data of a revert with a reason."""
    return ERROR_STRING + text(reason)


class Calldata:
    """Bounds-checked reading of a call's arguments (the selector is cut off)."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def number(self, at: int) -> int:
        if not 0 <= at <= len(self.data) - 32:
            raise BadCalldata
        return int.from_bytes(self.data[at : at + 32], "big")

    def address(self, at: int) -> bytes:
        if self.number(at) >> 160:
            raise BadCalldata
        return self.data[at + 12 : at + 32]

    def blob(self, at: int) -> bytes:
        """The bytes whose length stands at `at`."""
        size = self.number(at)
        if size > len(self.data) - at - 32:
            raise BadCalldata
        return self.data[at + 32 : at + 32 + size]

    def places(self, at: int) -> list[int]:
        """Where the elements of the array of dynamic tuples lie whose length stands at `at`."""
        count = self.number(at)
        first = at + 32
        if count > (len(self.data) - first) // 32:
            raise BadCalldata
        return [first + self.number(first + 32 * i) for i in range(count)]


#: An address that nobody has, to stand for "the wallet of this call".
ANYONE = b"\xff" * 20
