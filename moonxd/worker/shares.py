"""How many slots the jobs of one type may hold at a time, so that bulk work never keeps single wallets waiting."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import Any

import trio

from ..jobs import Terms

#: Seconds until a job whose type has used up its share is looked at again, per job that waits before it.
LOOK_AGAIN_S = 1.0
LONGEST_S = 30.0


class Shares:
    """One per worker. A job over its type's share is put off, the longer the more of them wait."""

    def __init__(self, slots: int, terms: Callable[[], Mapping[str, Terms]]) -> None:
        self._slots = slots
        self._terms = terms
        self._running: dict[str, int] = {}
        #: Jobs put off and not back yet, with the trio time at which they are due.
        self._put_off: dict[str, dict[str, float]] = {}

    def most(self, name: str) -> int:
        """Slots that jobs of this type may hold: at least one."""
        share = self._terms().get(name, Terms()).share
        return max(1, min(self._slots, math.ceil(self._slots * share)))

    def running(self, name: str) -> int:
        return self._running.get(name, 0)

    def delay(self, name: str, job_id: str) -> float | None:
        """None when there is room for one more job, else the seconds to put this one off."""
        most = self.most(name)
        waiting = self._put_off.setdefault(name, {})
        waiting.pop(job_id, None)
        if self.running(name) < most:
            return None
        now = trio.current_time()
        for gone in [other for other, due in waiting.items() if due < now - LONGEST_S]:
            del waiting[gone]  # another worker took it
        seconds = min(LONGEST_S, LOOK_AGAIN_S * (1 + len(waiting) // most))
        waiting[job_id] = now + seconds
        return seconds

    @contextmanager
    def held(self, name: str) -> Any:
        """One slot is used by this type while the block runs."""
        self._running[name] = self.running(name) + 1
        try:
            yield
        finally:
            self._running[name] -= 1
