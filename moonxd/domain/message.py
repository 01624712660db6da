"""What is handed to a broker, and what one hands out."""

from __future__ import annotations

from typing import Any

import msgspec

from .errors import Permanent
from .ledger import StoredEvent


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


class _Metadata(msgspec.Struct, rename="camel"):
    correlation_id: str = ""
    source: str = ""


class _Envelope(msgspec.Struct):
    metadata: _Metadata


_decode = msgspec.json.Decoder(_Envelope).decode
_OPENING = b'{"metadata":{'


def message_of(stored: StoredEvent, topic: str, partition: int | None) -> Message:
    """The record of a committed event, the same at every resend.

    `sequence` is its position in the outbox, where numbers have no gaps; one that is missing on the topics is a loss.
    Raises Permanent when the event's body is no envelope.
    """
    event = stored.event
    try:
        metadata = _decode(event.body).metadata
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Permanent(f"event {event.id} at position {stored.position} is no envelope: {error}") from error
    return Message(
        topic=topic,
        key=event.key,
        value=_numbered(event.body, stored.position, partition),
        headers=(
            ("content-type", "application/json"),
            ("event-type", event.type),
            ("event-id", str(event.id)),
            ("correlation-id", metadata.correlation_id),
            ("source", metadata.source),
        ),
        partition=partition,
    )


def _numbered(body: bytes, sequence: int, partition: int | None) -> bytes:
    """`body` with sequence and partition in its metadata."""
    numbers = b'"sequence":%d,"partition":%s' % (sequence, b"null" if partition is None else b"%d" % partition)
    # Bodies that our own encoder wrote are not taken apart: this is done for every event.
    if body.startswith(_OPENING) and not body.startswith(_OPENING + b"}"):
        return _OPENING + numbers + b"," + body[len(_OPENING) :]
    whole: dict[str, Any] = msgspec.json.decode(body)
    whole["metadata"] |= {"sequence": sequence, "partition": partition}
    return msgspec.json.encode(whole)
