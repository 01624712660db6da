"""What surrounds every event: who it is about, what it is, and how it becomes bytes."""

from __future__ import annotations

import re
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from ..ledger import storable_value

SOURCE = "moonxd"
EVENT_VERSION = "1.0"
#: Key of events that are about no user.
SYSTEM = "system"

#: Values in USD are JSON numbers for the programs that read them; balances are strings.
JSON = msgspec.json.Encoder(decimal_format="number")

D = TypeVar("D")


class Data(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of what events say. Times are epoch milliseconds, durations milliseconds unless a name says otherwise."""


class Metadata(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """`sequence` and `partition` are the relay's to add: only it knows the order of publication."""

    #: The same however often the event is sent.
    event_id: UUID
    event_type: str
    event_version: str
    #: The sync operation; for what belongs to none, an id of its own.
    correlation_id: UUID
    causation_id: UUID | UnsetType = UNSET
    timestamp: int
    source: str
    source_version: str
    #: "system" where the event is about no user.
    user_id: str
    data_classification: str
    sequence: int | UnsetType = UNSET
    partition: int | UnsetType | None = UNSET


class Envelope(msgspec.Struct, Generic[D], frozen=True, kw_only=True, rename="camel"):
    """The whole value of a Kafka message."""

    metadata: Metadata
    user_id: str
    #: Empty where the event is about no wallet.
    wallet_address: str
    type: str
    data: D


def encode(envelope: Envelope[Any]) -> bytes:
    """The body as every store and every reader takes it: no lone surrogates, no URLs."""
    try:
        body = JSON.encode(envelope)
    except UnicodeEncodeError:
        body = JSON.encode(storable_value(msgspec.to_builtins(envelope, builtin_types=(msgspec.Raw,))))
    return without_urls(body) if b"://" in body else body


# A URL as it stands inside a JSON string: up to a blank, a quote or an escape.
_URL = re.compile(rb'[A-Za-z][A-Za-z0-9+.-]*://([^\s"\\]*)')
_HOST = re.compile(rb"[A-Za-z0-9._:\[\]-]*")


def without_urls(body: bytes) -> bytes:
    """`body` with every URL reduced to its host: providers write keys into paths, queries and user names."""
    return _URL.sub(_host, body)


def _host(url: re.Match[bytes]) -> bytes:
    rest = url[1]
    # Nobody can tell where a password that contains a slash ends.
    found = None if b"@" in rest else _HOST.match(rest)
    return found[0].rstrip(b".:") if found and found[0] else b"(address removed)"
