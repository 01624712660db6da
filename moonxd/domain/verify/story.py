"""One operation's events in the order of the outbox: whether they can have happened so, and what they add up to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from ..events.envelope import without_urls
from ..rebuild import COLUMNS, Rebuilt, rebuild
from .facts import Row, Told

#: What an operation may be when an event comes, and what it is then. None: it began before the first event we have.
_LEGAL: dict[str, tuple[frozenset[str], str]] = {
    "sync.queued": (frozenset({""}), "queued"),
    # A redelivery starts again, a requeued job lives again.
    "sync.started": (frozenset({"queued", "running", "pending", "failed", "cancelled"}), "running"),
    "sync.retrying": (frozenset({"running"}), "pending"),
    "sync.completed": (frozenset({"running"}), "completed"),
    "sync.failed": (frozenset({"queued", "running", "pending", "failed", "cancelled"}), "failed"),
    "sync.cancelled": (frozenset({"queued", "running", "pending", "failed", "cancelled"}), "cancelled"),
    "sync.rejected": (frozenset({"queued", "running", "pending", "failed", "cancelled"}), "cancelled"),
}


def breach(story: Sequence[Told]) -> str | None:
    """The first event that cannot come where it stands. A story whose beginning was removed may begin anywhere."""
    is_whole = any(one.type == "sync.queued" for one in story)
    state = "" if is_whole else None
    for one in story:
        if one.type not in _LEGAL:
            continue
        allowed, after = _LEGAL[one.type]
        if state is not None and state not in allowed:
            before = "before everything else" if state == "" else f"when it was {state}"
            return f"{one.type} at position {one.position} comes {before}"
        state = after
    return None


def differences(operation: UUID, row: Row, bodies: Sequence[bytes]) -> str:
    """Columns in which the story and the row disagree, with both values; empty when they agree."""
    try:
        found = rebuild(bodies).get(operation)
    except (msgspec.MsgspecError, KeyError) as error:
        return f"its events cannot be read: {error}"
    if found is None:
        return f"the table says {row.status}, the events only that it was queued"
    told = [(name, _shown(found, name), _shown(row, name)) for name in COLUMNS if name != "id"]
    return "; ".join(f"{name} is {there!r}, the events say {said!r}" for name, said, there in told if said != there)


def _shown(one: Rebuilt | Row, name: str) -> Any:
    value = getattr(one, name)
    # An event has no URL, a row's error may.
    if name == "error_message" and value is not None:
        return msgspec.json.decode(without_urls(msgspec.json.encode(value)))
    return value
