"""The archive of statistics."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..adapters.sqlite.archive import open_sqlite_archive
from ..config import Config
from ..ports import StatsArchive


@asynccontextmanager
async def open_archive(config: Config) -> AsyncIterator[StatsArchive]:
    """MongoDB where it is configured, else a SQLite file in the state directory."""
    async with open_sqlite_archive(config.state_dir / "statistics.db") as archive:
        yield archive
