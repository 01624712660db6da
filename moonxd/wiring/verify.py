"""Opens every store for `moonxd verify`, beside the daemon or without one. Nothing is migrated, made or claimed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from ..adapters.bullmq.queue import BullQueue
from ..adapters.redis.client import Redis, RedisSettings, open_redis
from ..adapters.redis.embedded import InUse, embedded_redis, socket_path_for
from ..adapters.redis.fleet import RedisFleet, fleet_prefix
from ..adapters.scratch import open_scratch
from ..api.schema import Daemon as Identity
from ..config import Config
from ..domain.errors import ConfigError
from ..domain.verify import Claim, Report
from ..ports import Records
from ..verifying import Plan, Stores, verify
from .ledger import ledger_name, postgres_dsn
from .policies import job_defaults, retention
from .redis import redis_settings

#: Files that the facts are spread over: a look holds one of them in memory.
SHARES = 256
#: How long Redis may take to be reached.
REACH_S = 15.0
#: The daemon gives an operation up after this many lock durations and stalled checks (daemon.py), and then looks.
_ORPHAN_FACTOR = 3


async def run_verify(
    config: Config,
    *,
    with_topics: bool,
    since: float | None,
    claims: Callable[[], Iterable[Claim]] | None,
) -> Report:
    """Raises ConfigError when something configured is not there, Transient when it cannot be reached."""
    worker = config.worker
    async with AsyncExitStack() as opened:
        settings = await opened.enter_async_context(_redis(config))
        redis = await opened.enter_async_context(open_redis(settings))
        await redis.wait_connected(REACH_S)
        stores = await _stores(config, opened, redis, with_topics=with_topics)
        fleet = RedisFleet(redis, fleet_prefix(config.redis.key_prefix, config.queue.prefix, config.queue.name))
        where = settings.where if config.redis.is_external else f"embedded in {config.state_dir}"
        places = {
            "queue": f"{config.queue.name} on Redis {where}",
            "ledger": ledger_name(config) if config.database.is_external else str(config.sqlite_path),
            "topics": ", ".join(stores.topics) if stores.open_topic is not None else "not looked at",
        }
        plan = Plan(
            queue=config.queue.name,
            keep=retention(config),
            places=places,
            claims=claims,
            since=since,
            is_live=bool(await fleet.heartbeats()),
            grace_s=_ORPHAN_FACTOR * (worker.lock_s + worker.stalled_interval_s) + 2 * worker.janitor_interval_s,
        )
        return await verify(stores, plan)


def assert_same(config: Config, daemon: Identity) -> None:
    """Raises ConfigError when the daemon that answers here works with other stores than `config` names."""
    ledger, redis = ledger_name(config), redis_settings(config).where if config.redis.is_external else "embedded"
    if (daemon.database, daemon.redis) != (ledger, redis):
        raise ConfigError(
            f"the daemon here works with the ledger {daemon.database} and Redis {daemon.redis}, this configuration "
            f"with {ledger} and {redis}: give verify the daemon's own configuration"
        )


@asynccontextmanager
async def _redis(config: Config) -> AsyncIterator[RedisSettings]:
    """The daemon's own server while it runs; else one that we run on its data for as long as we look."""
    if config.redis.is_external:
        yield redis_settings(config)
        return
    if not (config.state_dir / "redis").is_dir():
        raise ConfigError(
            f"there is no queue in {config.state_dir}: name the daemon's state directory, or its REDIS_URL"
        )
    binary = str(config.redis.server) if config.redis.server else None
    async with AsyncExitStack() as running:
        try:
            server = await running.enter_async_context(embedded_redis(config.state_dir, binary=binary))
        except InUse:
            yield RedisSettings(unix_path=str(socket_path_for(config.state_dir.absolute())))
        else:
            yield server.settings


async def _stores(config: Config, opened: AsyncExitStack, redis: Redis, *, with_topics: bool) -> Stores:
    queue = BullQueue(
        redis, config.queue.name, prefix=config.queue.prefix, worker_name="verify", defaults=job_defaults(config)
    )
    stores = partial(
        Stores,
        queue=queue,
        records=await _records(config, opened),
        scratch=await opened.enter_async_context(open_scratch(SHARES)),
    )
    if not with_topics or not config.kafka.is_external:
        return stores()
    # aiokafka is loaded only where it is used.
    from ..adapters.island.loop import open_island
    from .events import open_topic

    island = await opened.enter_async_context(open_island())
    names = config.kafka.topics
    topics = (
        names.sync_events,
        names.portfolio_updates,
        names.system_alerts,
        names.user_activities,
        names.stats_events,
    )
    return stores(
        topics=tuple(dict.fromkeys(topics)),
        open_topic=lambda name, since: open_topic(config, island, name, since=since),
    )


async def _records(config: Config, opened: AsyncExitStack) -> Records:
    database = config.database
    if not database.is_external:
        from ..adapters.sqlite.records import open_sqlite_records

        return await opened.enter_async_context(open_sqlite_records(config.sqlite_path))
    from ..adapters.postgres.ledger import open_postgres_ledger

    ledger = await opened.enter_async_context(
        open_postgres_ledger(postgres_dsn(config), min_size=1, max_size=2, connect_timeout_s=database.connect_timeout_s)
    )
    return ledger.records()
