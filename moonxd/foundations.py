"""What a daemon stands on: Redis, its own or somebody else's, and the ledger; each reached before anything is built."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import AsyncExitStack

import msgspec
import trio

from . import wiring
from .adapters.redis.client import Redis, RedisSettings
from .adapters.redis.embedded import AppendFsync, embedded_redis
from .adapters.redis.server import check_server
from .config import Config
from .domain.errors import Transient
from .supervisor import Child, Supervisor
from .wiring import Database

log = logging.getLogger("moonxd.daemon")

#: Seconds that Redis and the ledger may take to be reached at start; whoever supervises us tries again after that.
REACH_S = 60.0


class Foundations:
    """Of one start of a daemon; `stop` is set when it is to end."""

    def __init__(self, config: Config, stop: trio.Event) -> None:
        self._config = config
        self._stop = stop
        self._redis_settings: RedisSettings | None = None

    async def redis(self, supervisor: Supervisor) -> RedisSettings | None:
        if self._config.redis.is_external:
            return wiring.redis_settings(self._config)
        await supervisor.start(Child(name="redis-server", body=self._run_redis_server, start_s=math.inf))
        return self._redis_settings

    async def _run_redis_server(self, ready: Callable[[], None]) -> None:
        redis = self._config.redis
        binary = str(redis.server) if redis.server else None
        appendfsync: AppendFsync = "always" if redis.appendfsync == "always" else "everysec"
        async with embedded_redis(self._config.state_dir, appendfsync=appendfsync, binary=binary) as server:
            connections = wiring.connections(self._config)
            self._redis_settings = msgspec.structs.replace(server.settings, connections=connections)
            ready()
            code = await server.wait_dead()
        raise Transient(f"redis-server ended with code {code}: its log is {self._config.state_dir / 'redis.log'}")

    async def ledger(self, resources: AsyncExitStack) -> Database | None:
        """Raises Transient when the database stays away for REACH_S."""
        deadline, pause = trio.current_time() + REACH_S, 0.5
        while not self._stop.is_set():
            try:
                return await resources.enter_async_context(wiring.open_ledger(self._config))
            except Transient as error:
                if trio.current_time() + pause > deadline:
                    raise
                log.warning("the ledger is not there yet: %s", error)
            await trio.sleep(pause)
            pause = min(pause * 2, 5.0)
        return None


async def reach_redis(redis: Redis) -> None:
    await redis.wait_connected(REACH_S)
    for warning in (await check_server(redis)).warnings:
        log.warning("Redis: %s", warning)
