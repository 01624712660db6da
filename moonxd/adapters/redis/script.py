"""A Lua script that the server knows by its hash."""

from __future__ import annotations

import hashlib

import msgspec


class Script(msgspec.Struct, frozen=True):
    """`name` is for messages, `text` is the Lua source; `sha` is what EVALSHA wants (computed, never given)."""

    name: str
    text: str
    sha: str = ""

    def __post_init__(self) -> None:
        # Kept, because hashing a 40 kB script costs ten times as much as calling it.
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        msgspec.structs.force_setattr(self, "sha", digest)
