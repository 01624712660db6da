"""What is handed to a broker."""

from __future__ import annotations

import msgspec


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One record. Equal keys go to one partition, in order."""

    topic: str
    key: str
    value: bytes
    #: Name and value, both text on the wire.
    headers: tuple[tuple[str, str], ...] = ()
    #: Where the key belongs; None lets the broker's client choose.
    partition: int | None = None
