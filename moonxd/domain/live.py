"""The live feed for browsers, as decisions: which room an event belongs to, what it is called there, who may enter."""

from __future__ import annotations

import msgspec

from .ledger import StoredEvent

STATS = "stats"
SYSTEM = "system"
USER_PREFIX = "user:"
#: A user id longer than the ledger's column is nobody's.
_USER_ID_MAX = 255
#: Event types by the names that browsers know; the other sync.* events are called sync_*.
_NAMES = {
    "portfolio.updated": "portfolio_update",
    "system.alert": "system_alert",
    "stats.chain_performance_updated": "chain_stats_update",
    "stats.bridge_latency_updated": "bridge_stats_update",
    "stats.overview_updated": "stats_overview_update",
}
_OF_ONE_USER = ("portfolio.", "sync.")
#: What an event says of our machines is nothing for browsers.
_OURS = ("queue", "workerId", "workerVersion")


class TokenRefused(Exception):
    """`code` is for programs; the text never quotes the token."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What a token says about its bearer, once its signature and times were checked."""

    user_id: str
    may_see_system: bool
    #: Unix seconds, the clocks' tolerated difference included.
    expires_at: float


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """An event as its room hears it."""

    position: int
    room: str
    type: str
    #: The whole message as JSON.
    body: bytes
    #: Unix seconds of the commit.
    at: float


class _About(msgspec.Struct, rename="camel"):
    event_id: str
    timestamp: int


class _Envelope(msgspec.Struct, rename="camel"):
    metadata: _About
    data: dict[str, msgspec.Raw]
    user_id: str = ""
    wallet_address: str = ""


class _Message(msgspec.Struct, rename="camel", omit_defaults=True):
    type: str
    id: int
    room: str
    event_id: str
    timestamp: int
    data: dict[str, msgspec.Raw]
    user_id: str = ""
    wallet_address: str = ""


_ENVELOPES = msgspec.json.Decoder(_Envelope)
_MESSAGES = msgspec.json.Encoder()


def is_room(room: str) -> bool:
    if room in (STATS, SYSTEM):
        return True
    return room.startswith(USER_PREFIX) and 0 < len(room) - len(USER_PREFIX) <= _USER_ID_MAX


def may_enter(room: str, identity: Identity | None, *, public_stats: bool) -> bool:
    """`identity` None: no token was shown. Rooms of users are for that very user."""
    if room == STATS and public_stats:
        return True
    if identity is None:
        return False
    if room == SYSTEM:
        return identity.may_see_system
    return room in (STATS, USER_PREFIX + identity.user_id)


def room_of(event_type: str, key: str) -> str | None:
    """Where an event of this type is told; None when browsers do not hear of it."""
    if event_type.startswith(_OF_ONE_USER):
        return USER_PREFIX + key
    if event_type not in _NAMES:
        return None
    return SYSTEM if event_type == "system.alert" else STATS


def update_of(stored: StoredEvent) -> Update | None:
    """None when browsers do not hear of it. Raises msgspec.MsgspecError when its body is no event of ours."""
    event = stored.event
    room = room_of(event.type, event.key)
    if room is None:
        return None
    envelope = _ENVELOPES.decode(event.body)
    name = _NAMES.get(event.type) or event.type.replace(".", "_")
    for field in _OURS:
        envelope.data.pop(field, None)
    body = _MESSAGES.encode(
        _Message(
            type=name,
            id=stored.position,
            room=room,
            event_id=envelope.metadata.event_id,
            timestamp=envelope.metadata.timestamp,
            user_id=envelope.user_id,
            wallet_address=envelope.wallet_address,
            data=envelope.data,
        )
    )
    return Update(position=stored.position, room=room, type=name, body=body, at=stored.created_at.timestamp())
