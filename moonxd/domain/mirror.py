"""Events in the form in which the existing WebSocket service takes them from its one topic.

`portfolio.*` and `sync.*` go as they are; statistics become one message per chain and per provider. The rest (alerts,
activities, collections) is nothing that it shows.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .events.envelope import JSON, SOURCE
from .ledger import StoredEvent
from .message import Message

CHAIN_STATS = "moonx.ws.chain_stats"
BRIDGE_STATS = "moonx.ws.bridge_stats"


class _Rows(msgspec.Struct):
    """Either of the two; numbers are taken as they stand."""

    chains: tuple[dict[str, Any], ...] = ()
    bridges: tuple[dict[str, Any], ...] = ()


class _Metadata(msgspec.Struct):
    timestamp: int


class _Stats(msgspec.Struct):
    metadata: _Metadata
    data: _Rows


_decode = msgspec.json.Decoder(_Stats).decode


def mirrored(stored: StoredEvent, topic: str) -> tuple[Message, ...]:
    """What an event becomes on `topic`: nothing, itself, or a message per chain or provider."""
    event = stored.event
    if event.type.startswith(("portfolio.", "sync.")):
        return (_message(stored, topic, event.key, event.type, event.body),)
    try:
        return _statistics(stored, topic)
    except (msgspec.MsgspecError, KeyError):
        # Nobody's body but ours is asked for here.
        return ()


def _statistics(stored: StoredEvent, topic: str) -> tuple[Message, ...]:
    event = stored.event
    if event.type == "stats.chain_performance_updated":
        said = _decode(event.body)
        return tuple(
            _message(stored, topic, f"chain-{row['chainId']}", CHAIN_STATS, _body(CHAIN_STATS, said, row, chain=True))
            for row in said.data.chains
        )
    if event.type == "stats.bridge_latency_updated":
        said = _decode(event.body)
        return tuple(
            _message(stored, topic, f"bridge-{row['provider']}", BRIDGE_STATS, _body(BRIDGE_STATS, said, row))
            for row in said.data.bridges
        )
    return ()


def _body(kind: str, said: _Stats, row: dict[str, Any], *, chain: bool = False) -> bytes:
    who = {"chainId": row["chainId"], "chainName": row["chainName"]} if chain else {"provider": row["provider"]}
    return JSON.encode({"type": kind, **who, "stats": row, "timestamp": said.metadata.timestamp})


def _message(stored: StoredEvent, topic: str, key: str, kind: str, body: bytes) -> Message:
    return Message(
        topic=topic,
        key=key,
        value=body,
        headers=(
            ("content-type", "application/json"),
            ("event-type", kind),
            ("event-id", str(stored.event.id)),
            ("source", SOURCE),
        ),
    )
