"""Request lists in memory, for tests: any number of owners share one set of lists."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable

import trio

from moonxd.domain.core_service import Source, Taken, Verdict, dead_key


class MemoryLists:
    """The lists themselves. The newest entry is on the left, as after LPUSH. `now` gives seconds."""

    def __init__(self, now: Callable[[], float] = trio.current_time) -> None:
        self.now = now
        self.lists: dict[str, deque[bytes]] = defaultdict(deque)
        self.leases: dict[MemoryRequests, float] = {}
        self.news = trio.Event()

    def push(self, key: str, body: bytes) -> None:
        self.lists[key].appendleft(body)
        self.tell()

    def tell(self) -> None:
        self.news.set()
        self.news = trio.Event()

    def owner(self, *, lease_s: float = 15.0, dead_max: int = 1000) -> MemoryRequests:
        return MemoryRequests(self, lease_s, dead_max)


class MemoryRequests:
    """Implements ports.Requests. Replies never expire."""

    def __init__(self, lists: MemoryLists, lease_s: float, dead_max: int) -> None:
        self._lists = lists
        self._lease_s = lease_s
        self._dead_max = dead_max
        self._held: list[Taken] = []
        self._strays: list[Taken] = []

    async def beat(self) -> int:
        """See ports.Requests."""
        await trio.lowlevel.checkpoint()
        lists = self._lists
        lists.leases[self] = lists.now() + self._lease_s
        dead = [owner for owner, until in lists.leases.items() if until <= lists.now()]
        return sum(owner._put_back() for owner in dead)

    async def leave(self) -> None:
        """See ports.Requests."""
        self._put_back()
        await trio.lowlevel.checkpoint()

    async def take(self, source: Source, timeout: float) -> Taken | None:
        """See ports.Requests."""
        await trio.lowlevel.checkpoint()
        taken = self._next(source)
        with trio.move_on_after(timeout):
            while taken is None:
                await self._lists.news.wait()
                taken = self._next(source)
        return taken

    def _next(self, source: Source) -> Taken | None:
        for stray in self._strays:
            if stray.source == source:
                self._strays.remove(stray)
                return stray
        waiting = self._lists.lists[source.key]
        if not waiting:
            return None
        taken = Taken(source, waiting.pop())
        self._held.append(taken)
        return taken

    async def finish(self, taken: Taken, verdict: Verdict) -> bool:
        """See ports.Requests."""
        await trio.lowlevel.checkpoint()
        if taken not in self._held:
            return False
        self._held.remove(taken)
        if verdict.reply_key is not None:
            self._lists.push(verdict.reply_key, verdict.reply)
        if verdict.parked is not None:
            dead = self._lists.lists[dead_key(taken.source.prefix)]
            dead.appendleft(verdict.parked)
            while len(dead) > self._dead_max:
                dead.pop()
        return True

    def let_go(self, taken: Taken) -> None:
        """See ports.Requests."""
        if taken in self._held:
            self._strays.append(taken)
            self._lists.tell()

    def _put_back(self) -> int:
        held, self._held, self._strays = self._held, [], []
        for taken in reversed(held):
            self._lists.lists[taken.source.key].append(taken.body)
        self._lists.tell()
        return len(held)
