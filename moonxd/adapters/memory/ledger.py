"""A ledger that lives in memory and answers without leaving the loop: fit for trio's autojump clock.

It runs the embedded ledger's own statements on an in-memory database, so it cannot drift from it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

import trio

from ...ports import Clock
from ..sqlite.database import open_memory
from ..sqlite.ledger import SqliteLedger
from ..sqlite.publication import MemoryLock

R = TypeVar("R")


class _Inline:
    """Runs each piece of work at once, between two checkpoints: a cancelled caller finds nothing written."""

    def __init__(self) -> None:
        self._connection = open_memory()

    def __del__(self) -> None:
        self._connection.close()

    async def read(self, work: Callable[[sqlite3.Connection], R]) -> R:
        await trio.lowlevel.checkpoint()
        return work(self._connection)

    async def write(self, work: Callable[[sqlite3.Connection], R]) -> R:
        await trio.lowlevel.checkpoint()
        with self._connection:
            self._connection.execute("BEGIN")
            return work(self._connection)


class MemoryLedger(SqliteLedger):
    """Ledger, DeadLetters and Outbox in memory; gone with the object."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(_Inline(), clock.now, MemoryLock())
