"""A cache in this process: the whole cache of tests and of the simplest set-ups, and the front of the shared one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import trio


class MemoryCache:
    """Least recently used entries go first once there are more than `size`. Time is trio's monotonic clock."""

    def __init__(self, size: int = 10_000) -> None:
        self._size = size
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        await trio.lowlevel.checkpoint()
        return self.look_up(keys)

    async def put_many(self, entries: Mapping[str, bytes], ttl_s: float) -> None:
        await trio.lowlevel.checkpoint()
        self.keep(entries, ttl_s)

    def look_up(self, keys: Sequence[str]) -> dict[str, bytes]:
        """get_many without a checkpoint."""
        now, found = trio.current_time(), {}
        for key in keys:
            entry = self._entries.get(key)
            if entry is None:
                continue
            if entry[0] <= now:
                del self._entries[key]
            else:
                self._entries.move_to_end(key)
                found[key] = entry[1]
        return found

    def keep(self, entries: Mapping[str, bytes], ttl_s: float) -> None:
        """put_many without a checkpoint."""
        until = trio.current_time() + ttl_s
        for key, value in entries.items():
            self._entries[key] = (until, value)
            self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)
