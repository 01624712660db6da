"""Where statistics are kept, as the configuration says."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from ..adapters.island.loop import Island
from ..config import Config
from ..domain.archive import DAY_MS, Keep
from ..ports import StatsArchive


def needs_island(config: Config) -> bool:
    """Whether the archive lives on the asyncio island."""
    return config.stats.enabled and config.mongodb.is_external


def open_archive(config: Config, island: Island | None) -> AbstractAsyncContextManager[StatsArchive]:
    """MongoDB on `island` when it is configured, else a SQLite file in the state directory.

    A MongoDB that is away shows at the first call, not here. Raises ConfigError when the URI or the file cannot be
    used.
    """
    keep = Keep(
        history_ms=int(config.stats.history_days * DAY_MS), overview_ms=int(config.stats.overview_hours * 3_600_000)
    )
    if not config.mongodb.is_external:
        from ..adapters.sqlite.archive import open_sqlite_archive

        return open_sqlite_archive(config.state_dir / "stats.db", keep=keep)
    assert island is not None, "MongoDB needs the island: see needs_island"
    from ..adapters.island.mongo import open_mongo_archive

    mongodb = config.mongodb
    return open_mongo_archive(
        island,
        mongodb.uri.reveal(),
        database=mongodb.database,
        pool_max=mongodb.pool_max,
        pool_min=mongodb.pool_min,
        keep=keep,
    )
