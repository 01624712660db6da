"""Where statistics are kept, as the configuration says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..config import Config
from ..domain.archive import DAY_MS, HOUR_MS, Keep
from ..ports import StatsArchive


@asynccontextmanager
async def open_archive(config: Config) -> AsyncIterator[StatsArchive]:
    """MongoDB where it is configured, else a SQLite file in the state directory.

    A server that is away shows at the first call, not here. Raises ConfigError when the URI or the file cannot be
    used, and Transient in the midst of it when the thread that MongoDB lives on dies.
    """
    from ..adapters.sqlite.archive import open_sqlite_archive

    stats, mongodb = config.stats, config.mongodb
    keep = Keep(history_ms=int(stats.history_days * DAY_MS), overview_ms=int(stats.overview_hours * HOUR_MS))
    if not mongodb.is_external:
        async with open_sqlite_archive(config.state_dir / "statistics.db", keep=keep) as file:
            yield file
        return
    from ..adapters.island.mongo import open_mongo_archive

    async with living_island() as island:
        server = open_mongo_archive(
            island,
            mongodb.uri.reveal(),
            database=mongodb.database,
            pool_max=mongodb.pool_max,
            pool_min=mongodb.pool_min,
            keep=keep,
        )
        async with server as archive:
            yield archive
