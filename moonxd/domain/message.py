"""What is handed to a broker, and what one hands out."""

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


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """One record as the broker keeps it. Nothing about its content is checked."""

    topic: str
    partition: int
    offset: int
    #: When it was written, in seconds since the epoch.
    timestamp: float
    key: str | None
    #: None marks a deleted key.
    value: bytes | None
    headers: tuple[tuple[str, str], ...] = ()
