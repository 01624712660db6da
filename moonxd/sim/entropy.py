"""Where the simulator's chance comes from: keyed hashes of names. A seed and a name give the same bytes anywhere."""

from __future__ import annotations

from hashlib import blake2b


class Entropy:
    """A source of reproducible bytes."""

    __slots__ = ("_key",)

    def __init__(self, seed: str) -> None:
        self._key = blake2b(seed.encode(), digest_size=32).digest()

    def digest(self, name: bytes) -> bytes:
        """64 bytes that belong to `name`."""
        return blake2b(name, key=self._key).digest()

    def stream(self, name: bytes, length: int) -> bytes:
        """`length` bytes that belong to `name`."""
        blocks = (self.digest(b"%b/%d" % (name, i)) for i in range(-(-length // 64)))
        return b"".join(blocks)[:length]

    def number(self, name: str) -> int:
        """A 64-bit number that belongs to `name`."""
        return int.from_bytes(self.digest(name.encode())[:8], "big")
