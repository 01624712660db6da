"""The states of breakers on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar
from uuid import uuid4

from .rows import time_text

R = TypeVar("R")


class Runner(Protocol):
    """Runs work on the connection, each piece in a transaction of its own."""

    async def read(self, work: Callable[[sqlite3.Connection], R]) -> R: ...

    async def write(self, work: Callable[[sqlite3.Connection], R]) -> R: ...


class SqliteBreakers:
    """A `ports.BreakerStore`. `now` gives unix seconds."""

    def __init__(self, runner: Runner, now: Callable[[], float]) -> None:
        self._runner = runner
        self._now = now

    async def load(self) -> dict[str, str]:
        statement = "SELECT name, state FROM moonxd_breakers WHERE set_aside_at IS NULL"
        return dict(await self._runner.read(lambda db: db.execute(statement).fetchall()))

    async def save(self, states: Mapping[str, str]) -> None:
        at = time_text(self._now())
        rows = [(name, state, at) for name, state in states.items()]
        statement = (
            "INSERT INTO moonxd_breakers (name, state, updated_at) VALUES (?, ?, ?) ON CONFLICT (name) "
            "DO UPDATE SET state = excluded.state, updated_at = excluded.updated_at, set_aside_at = NULL"
        )
        await self._runner.write(lambda db: db.executemany(statement, rows))

    async def set_aside(self, name: str) -> None:
        at, kept = time_text(self._now()), f"{name} set aside {uuid4()}"
        statement = "UPDATE moonxd_breakers SET name = ?, set_aside_at = ? WHERE name = ? AND set_aside_at IS NULL"
        await self._runner.write(lambda db: db.execute(statement, (kept, at, name)))
