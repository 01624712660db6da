"""Statistics in a SQLite file of their own: where they are when there is no MongoDB."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import trio

from ...domain.archive import (
    BRIDGE_VALUES,
    BY_SEVERITY,
    CHAIN_VALUES,
    SEVERITY,
    Keep,
    Sample,
    bridge_sample,
    chain_sample,
    merged,
    step_ms,
)
from ...domain.stats import BridgeStats, ChainStats, Overview, Point
from .database import STATISTICS, Torn, open_file
from .thread import DatabaseThread

log = logging.getLogger("moonxd.stats")
T = TypeVar("T")

#: Old rows removed with each write: more than any write adds, few enough to take no time.
_PRUNED_AT_ONCE = 500


class SqliteArchive:
    """A `ports.StatsArchive`. `now` gives unix seconds; what is too old by it goes with the next write."""

    def __init__(self, thread: DatabaseThread, keep: Keep, now: Callable[[], float]) -> None:
        self._thread = thread
        self._keep = keep
        self._now = now

    async def put_chains(self, rows: Sequence[ChainStats]) -> None:
        await self._thread.write(lambda db: self._put_chains(db, rows))

    async def put_bridges(self, rows: Sequence[BridgeStats]) -> None:
        await self._thread.write(lambda db: self._put_bridges(db, rows))

    async def put_overview(self, overview: Overview) -> None:
        def put(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO overviews VALUES (?, ?)", (overview.at_ms, _text(overview)))
            db.execute("DELETE FROM overviews WHERE at_ms < ?", (self._before(self._keep.overview_ms),))

        await self._thread.write(put)

    async def chains(self) -> tuple[ChainStats, ...]:
        rows = await self._thread.read(lambda db: db.execute("SELECT body FROM chains ORDER BY chain_id").fetchall())
        return tuple(row for (body,) in rows if (row := _row(body, ChainStats)) is not None)

    async def bridges(self) -> tuple[BridgeStats, ...]:
        sql = "SELECT body FROM bridges ORDER BY provider, route"
        rows = await self._thread.read(lambda db: db.execute(sql).fetchall())
        return tuple(row for (body,) in rows if (row := _row(body, BridgeStats)) is not None)

    async def overview(self) -> Overview | None:
        sql = "SELECT body FROM overviews WHERE at_ms >= ? ORDER BY at_ms DESC LIMIT 1"
        since = (self._before(self._keep.overview_ms),)
        row = await self._thread.read(lambda db: db.execute(sql, since).fetchone())
        return _row(row[0], Overview) if row else None

    async def chain_history(self, chain_id: int, *, since_ms: int, until_ms: int, step_s: float) -> tuple[Point, ...]:
        window = (step_ms(step_s), chain_id, self._within(since_ms), until_ms)
        return await self._thread.read(lambda db: _points(db, _CHAIN_STEPS, window, CHAIN_VALUES))

    async def bridge_history(
        self, provider: str, route: str, *, since_ms: int, until_ms: int, step_s: float
    ) -> tuple[Point, ...]:
        window = (step_ms(step_s), provider, route, self._within(since_ms), until_ms)
        return await self._thread.read(lambda db: _points(db, _BRIDGE_STEPS, window, BRIDGE_VALUES))

    # ---- in the thread -------------------------------------------------------------------------------------------

    def _put_chains(self, db: sqlite3.Connection, rows: Sequence[ChainStats]) -> None:
        for row in rows:
            found = db.execute("SELECT body FROM chains WHERE chain_id = ?", (row.chain_id,)).fetchone()
            old = _row(found[0], ChainStats) if found else None
            db.execute("INSERT OR REPLACE INTO chains VALUES (?, ?)", (row.chain_id, _text(merged(old, row))))
            db.execute(_ADD_CHAIN, (row.chain_id, *_cells(chain_sample(row), CHAIN_VALUES)))
        self._prune(db, "chain_history")

    def _put_bridges(self, db: sqlite3.Connection, rows: Sequence[BridgeStats]) -> None:
        for row in rows:
            key = (row.provider, row.route)
            found = db.execute("SELECT body FROM bridges WHERE provider = ? AND route = ?", key).fetchone()
            old = _row(found[0], BridgeStats) if found else None
            db.execute("INSERT OR REPLACE INTO bridges VALUES (?, ?, ?)", (*key, _text(merged(old, row))))
            db.execute(_ADD_BRIDGE, (*key, *_cells(bridge_sample(row), BRIDGE_VALUES)))
        self._prune(db, "bridge_history")

    def _prune(self, db: sqlite3.Connection, table: str) -> None:
        db.execute(
            f"DELETE FROM {table} WHERE rowid IN "
            f"(SELECT rowid FROM {table} WHERE at_ms < ? ORDER BY at_ms LIMIT {_PRUNED_AT_ONCE})",
            (self._before(self._keep.history_ms),),
        )

    def _before(self, keep_ms: int) -> int:
        return int(self._now() * 1000) - keep_ms

    def _within(self, since_ms: int) -> int:
        """What is too old but not removed yet is not shown."""
        return max(since_ms, self._before(self._keep.history_ms))


def _steps(table: str, key: str, values: Sequence[str]) -> str:
    averages = "".join(f", avg({name})" for name in values)
    return (
        f"SELECT at_ms - at_ms % ?1 AS step, count(*), max(severity){averages} FROM {table} WHERE {key} "
        "GROUP BY step ORDER BY step"
    )


def _add(table: str, columns: int) -> str:
    return f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * columns)})"


_CHAIN_STEPS = _steps("chain_history", "chain_id = ?2 AND at_ms >= ?3 AND at_ms < ?4", CHAIN_VALUES)
_BRIDGE_STEPS = _steps("bridge_history", "provider = ?2 AND route = ?3 AND at_ms >= ?4 AND at_ms < ?5", BRIDGE_VALUES)
_ADD_CHAIN = _add("chain_history", 3 + len(CHAIN_VALUES))
_ADD_BRIDGE = _add("bridge_history", 4 + len(BRIDGE_VALUES))


def _text(row: ChainStats | BridgeStats | Overview) -> str:
    return msgspec.json.encode(row).decode()


def _row(body: str, kind: type[T]) -> T | None:
    """None when another version wrote what this one does not understand: the next look replaces it."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError:
        return None


def _cells(sample: Sample, names: Sequence[str]) -> tuple[float | None, ...]:
    return (sample.at_ms, SEVERITY[sample.status], *(sample.values.get(name) for name in names))


def _points(db: sqlite3.Connection, sql: str, window: tuple[int | str, ...], names: Sequence[str]) -> tuple[Point, ...]:
    return tuple(_point(row, names) for row in db.execute(sql, window))


def _point(row: Sequence[Any], names: Sequence[str]) -> Point:
    at_ms, samples, severity, *averages = row
    values = {name: value for name, value in zip(names, averages, strict=True) if value is not None}
    return Point(at_ms=at_ms, samples=samples, values=values, status=BY_SEVERITY[severity])


@asynccontextmanager
async def open_sqlite_archive(
    path: Path, *, keep: Keep | None = None, now: Callable[[], float] = time.time
) -> AsyncIterator[SqliteArchive]:
    """The statistics in the file at `path`, created (mode 0600) and migrated if needed. A torn one is set aside: what
    it held is worth less than a daemon that starts. Raises ConfigError when it is another program's or newer."""
    thread = DatabaseThread(lambda: _open(path), str(path))
    await thread.start()
    try:
        yield SqliteArchive(thread, keep or Keep(), now)
    finally:
        with trio.CancelScope(shield=True):
            await thread.stop()


def _open(path: Path) -> sqlite3.Connection:
    try:
        return open_file(path, STATISTICS)
    except Torn as error:
        aside = path.with_name(f"{path.name}.torn")
        log.error("statistics start afresh, the file is set aside as %s: %s", aside, error)
        for suffix in ("", "-wal", "-shm"):
            file = path.with_name(path.name + suffix)
            if file.exists():
                file.replace(aside.with_name(aside.name + suffix))
        return open_file(path, STATISTICS)
