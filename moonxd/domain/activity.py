"""Signs that a user is there, as other programs publish them (user.activity)."""

from __future__ import annotations

from typing import Any

import msgspec

from .address import parse_address
from .errors import Permanent
from .message import Received

TYPE = "user.activity"


class Sign(msgspec.Struct, frozen=True, kw_only=True):
    """`wallet` None: the user did something, with whatever wallet. `at` is unix seconds."""

    user_id: str
    wallet: str | None
    at: float


class _Metadata(msgspec.Struct, frozen=True, rename="camel"):
    source: Any = None
    user_id: Any = None
    event_type: Any = None
    timestamp: Any = None


class _Said(msgspec.Struct, frozen=True, rename="camel"):
    metadata: _Metadata = _Metadata()
    type: Any = None
    user_id: Any = None
    wallet_address: Any = None
    data: Any = None


_decode = msgspec.json.Decoder(_Said).decode


def sign_of(message: Received, ours: str) -> Sign | None:
    """What a message says, None where that is nothing to us: our own word, or an event of another type (all topics
    may be one). Raises Permanent for what nobody can read."""
    if message.value is None or ("source", ours) in message.headers:
        return None
    try:
        said = _decode(message.value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Permanent(f"it is no event: {error}") from error
    data = said.data if isinstance(said.data, dict) else {}
    kind = said.type or said.metadata.event_type
    if said.metadata.source == ours or kind not in (None, TYPE):
        return None
    return Sign(
        user_id=_user(said.user_id or said.metadata.user_id or data.get("userId")),
        wallet=_wallet(said.wallet_address or data.get("walletAddress")),
        at=_seconds(said.metadata.timestamp, message.timestamp),
    )


def _user(given: Any) -> str:
    if isinstance(given, bool) or not isinstance(given, (str, int)) or given == "":
        raise Permanent("it names no user")
    user = str(given)
    if len(user) > 255 or "\0" in user:
        raise Permanent("its userId has more than 255 characters, or a NUL")
    return user


def _wallet(given: Any) -> str | None:
    """A wallet that is none is no reason to doubt the user."""
    try:
        return None if given in (None, "") else parse_address(given)
    except Permanent:
        return None


def _seconds(given: Any, otherwise: float) -> float:
    """Epoch milliseconds as the contract has them."""
    if isinstance(given, (int, float)) and not isinstance(given, bool) and 0 < given < 10**14:
        return float(given) / 1000
    return otherwise
