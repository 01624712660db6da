"""Offices of this process: candidates share the dict."""

from __future__ import annotations

import trio


class MemoryElection:
    """A `ports.Election`; time is trio's monotonic clock. Candidates of one election are given one `offices`."""

    def __init__(self, name: str, offices: dict[str, tuple[str, float]] | None = None) -> None:
        self._name = name
        self._offices = {} if offices is None else offices

    async def hold(self, office: str, ttl_s: float) -> bool:
        """See ports.Election."""
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        holder, until = self._offices.get(office, ("", now))
        if holder != self._name and until > now:
            return False
        self._offices[office] = (self._name, now + ttl_s)
        return True

    async def leave(self, office: str) -> None:
        """See ports.Election."""
        await trio.lowlevel.checkpoint()
        if self._offices.get(office, ("", 0.0))[0] == self._name:
            del self._offices[office]
