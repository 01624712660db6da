"""Heads in the order they were announced: reorganisations, and when a socket that says nothing is given up."""

from __future__ import annotations

import msgspec

from .blocktime import Block

#: Heads remembered of a chain; what reaches back further is not noticed.
_KEPT = 256
_SILENT_S = 30.0
_SILENT_BLOCKS = 10


class HeadsSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What a subscription to new heads has brought since the daemon started. Times are unix seconds."""

    host: str
    is_connected: bool = False
    newest: Block | None = None
    #: When it was announced to us.
    seen_at: float | None = None
    heads: int = 0
    reorgs: int = 0
    #: Blocks that the deepest reorganisation replaced.
    deepest: int = 0
    #: How often the subscription was made.
    subscriptions: int = 0
    #: How often it was made anew because nothing came.
    silences: int = 0
    error: str | None = None


def silent_after_s(block_time_s: float) -> float:
    """A subscription that brings nothing for so long is taken for dead."""
    return max(_SILENT_S, _SILENT_BLOCKS * block_time_s)


class Trail:
    """The last heads of one chain, of one branch only. Bounded."""

    __slots__ = ("_blocks", "deepest", "reorgs")

    def __init__(self) -> None:
        self._blocks: dict[int, Block] = {}
        self.reorgs = 0
        self.deepest = 0

    @property
    def tip(self) -> Block | None:
        return self._blocks[max(self._blocks)] if self._blocks else None

    def __len__(self) -> int:
        return len(self._blocks)

    def add(self, head: Block) -> int:
        """Note a head; how many blocks that we knew it replaces, at least (0: it goes on from them)."""
        if self._is_old_news(head):
            return 0
        replaced = self._drop_from(head.number) if self._contradicts(head) else 0
        below = self._blocks.get(head.number - 1)
        if below is not None and below.hash != head.parent:
            replaced += self._drop_from(below.number)
        self._blocks[head.number] = head
        while len(self._blocks) > _KEPT:
            del self._blocks[min(self._blocks)]
        if replaced:
            self.reorgs += 1
            self.deepest = max(self.deepest, replaced)
        return replaced

    def _is_old_news(self, head: Block) -> bool:
        known = self._blocks.get(head.number)
        if known is not None:
            return known.hash == head.hash
        # Below the tip with a gap above it: nothing links it to what we know, so it says nothing.
        return bool(self._blocks) and head.number < max(self._blocks) and head.number + 1 not in self._blocks

    def _contradicts(self, head: Block) -> bool:
        above = self._blocks.get(head.number + 1)
        return head.number in self._blocks or (above is not None and above.parent != head.hash)

    def _drop_from(self, number: int) -> int:
        gone = [known for known in self._blocks if known >= number]
        for known in gone:
            del self._blocks[known]
        return len(gone)
