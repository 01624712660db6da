"""Where statistics are kept, as the configuration says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..adapters.island.loop import Island
from ..adapters.island.shared import SharedIsland
from ..config import Config
from ..domain.archive import DAY_MS, HOUR_MS, Keep
from ..ports import StatsArchive

__all__ = ["SharedIsland", "WithArchive", "shared_island", "with_archive"]

Work = Callable[[StatsArchive], Awaitable[None]]
#: Runs work that needs the archive.
WithArchive = Callable[[Work], Awaitable[None]]


def shared_island(config: Config) -> SharedIsland | None:
    """What asyncio is needed for: Kafka and MongoDB. None when this process speaks to neither."""
    speaks_kafka = config.kafka.is_external and (config.kafka.publish or config.events.consume_activity)
    is_needed = speaks_kafka or (config.stats.enabled and config.mongodb.is_external)
    return SharedIsland() if is_needed else None


def with_archive(config: Config, island: SharedIsland | None) -> WithArchive:
    """MongoDB on `island` where it is configured, else a SQLite file in the state directory.

    A server that is away shows at the first call, not here. The work raises ConfigError when the URI or the file
    cannot be used, and Transient in the midst of it when the island dies.
    """

    async def run(work: Work) -> None:
        if config.mongodb.is_external and island is not None:
            await island.alongside(lambda current: _on_mongo(config, current, work))
        else:
            await _in_file(config, work)

    return run


async def _on_mongo(config: Config, island: Island, work: Work) -> None:
    # pymongo is loaded only where it is used.
    from ..adapters.island.mongo import open_mongo_archive

    mongodb = config.mongodb
    server = open_mongo_archive(
        island,
        mongodb.uri.reveal(),
        database=mongodb.database,
        pool_max=mongodb.pool_max,
        pool_min=mongodb.pool_min,
        keep=_keep(config),
    )
    async with server as archive:
        await work(archive)


async def _in_file(config: Config, work: Work) -> None:
    from ..adapters.sqlite.archive import open_sqlite_archive

    async with open_sqlite_archive(config.state_dir / "statistics.db", keep=_keep(config)) as archive:
        await work(archive)


def _keep(config: Config) -> Keep:
    stats = config.stats
    return Keep(history_ms=int(stats.history_days * DAY_MS), overview_ms=int(stats.overview_hours * HOUR_MS))
