"""The payload of a wallet sync, as existing producers write it. Unknown fields are kept, not refused."""

from __future__ import annotations

from typing import Any

import msgspec

from .address import parse_address
from .chain import parse_chain
from .errors import Permanent

MAX_PAYLOAD_BYTES = 1_000_000
SYNC_TYPES = ("portfolio", "trades", "full", "metadata")
PRIORITY_NAMES = ("high", "medium", "low")
_KNOWN = frozenset(
    ("userId", "walletAddress", "jobId", "priority", "syncType", "forceRefresh", "chainIds",
     "triggeredAt", "metadata", "requestId", "responseQueue")
)  # fmt: skip


class WalletSync(msgspec.Struct, frozen=True, kw_only=True):
    """One wallet of one user to refresh. `chain_ids` empty means every enabled chain."""

    user_id: str
    #: Lower-case 0x address.
    wallet: str
    sync_type: str = "portfolio"
    priority: str = "medium"
    chain_ids: tuple[int, ...] = ()
    force_refresh: bool = False
    request_id: str | None = None
    response_queue: str | None = None
    #: What the producer wrote beside the fields above (jobId, triggeredAt, metadata and unknown ones), for the audit.
    extra: dict[str, Any] = msgspec.field(default_factory=dict)


def parse_wallet_sync(data: bytes) -> WalletSync:
    """Raises Permanent with a sentence that names the field, what it holds and what is allowed."""
    fields = decode_object(data)
    return WalletSync(
        user_id=parse_user_id(fields.get("userId")),
        wallet=parse_address(_required(fields, "walletAddress")),
        sync_type=_choice(fields, "syncType", SYNC_TYPES, "portfolio"),
        priority=_choice(fields, "priority", PRIORITY_NAMES, "medium"),
        chain_ids=_chain_ids(fields.get("chainIds")),
        force_refresh=_flag(fields, "forceRefresh"),
        request_id=_text_or_none(fields, "requestId"),
        response_queue=_text_or_none(fields, "responseQueue"),
        extra={k: v for k, v in fields.items() if k not in _KNOWN or k in ("jobId", "triggeredAt", "metadata")},
    )


def decode_object(data: bytes) -> dict[str, Any]:
    """`data` as a JSON object. Raises Permanent when it is too large, no JSON, or no object."""
    if len(data) > MAX_PAYLOAD_BYTES:
        raise Permanent(f"the payload has {len(data)} bytes, at most {MAX_PAYLOAD_BYTES} are accepted")
    try:
        decoded = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Permanent(f"the payload is not JSON: {error}") from error
    except RecursionError:
        raise Permanent("the payload is nested too deeply") from None
    if not isinstance(decoded, dict):
        raise Permanent(f"the payload must be a JSON object with userId and walletAddress, not {_kind(decoded)}")
    return decoded


def user_in(data: bytes) -> str | None:
    """Whose job it is, also when the payload is otherwise of no use; None when it does not say."""
    try:
        fields = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    user = fields.get("userId") if isinstance(fields, dict) else None
    return str(user)[:255] if isinstance(user, (str, int)) and not isinstance(user, bool) else None


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "text", bool: "true/false", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _required(fields: dict[str, Any], name: str) -> Any:
    if fields.get(name) is None:
        raise Permanent(f"the payload has no {name}: it is required")
    return fields[name]


def parse_user_id(given: object) -> str:
    if given is None or given == "":
        raise Permanent("the payload has no userId: it is required")
    if isinstance(given, bool) or not isinstance(given, (str, int)):
        raise Permanent(f"userId must be text, not {_kind(given)}")
    text = str(given)
    if len(text) > 255 or "\0" in text:
        raise Permanent("userId must have at most 255 characters and no NUL")
    return text


def _choice(fields: dict[str, Any], name: str, allowed: tuple[str, ...], default: str) -> str:
    given = fields.get(name)
    if given is None:
        return default
    if given not in allowed:
        raise Permanent(f"{name} is {given!r:.80}, it must be one of {', '.join(allowed)}")
    return str(given)


def _flag(fields: dict[str, Any], name: str) -> bool:
    given = fields.get(name)
    if given is None:
        return False
    if not isinstance(given, bool):
        raise Permanent(f"{name} must be true or false, not {given!r:.80}")
    return given


def _text_or_none(fields: dict[str, Any], name: str) -> str | None:
    given = fields.get(name)
    if given is not None and not isinstance(given, str):
        raise Permanent(f"{name} must be text, not {_kind(given)}")
    return given


def _chain_ids(given: object) -> tuple[int, ...]:
    if given is None:
        return ()
    if not isinstance(given, list):
        raise Permanent(f"chainIds must be a list of chain ids, not {_kind(given)}")
    return tuple(dict.fromkeys(parse_chain(one).id for one in given))
