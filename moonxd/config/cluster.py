"""From the configuration of a daemon with several worker processes to that of one of its workers."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from ..domain.errors import ConfigError
from .outlets import Cluster
from .tree import Config

#: The kernel's limit for the path of a unix socket, without the final NUL.
_SOCKET_PATH_MAX = 107


def worker_config(config: Config, number: int, redis_socket: Path | None) -> Config:
    """Worker `number` (from 1): it shares the ledger and Redis (the embedded one at `redis_socket`), and answers on a
    socket of its own below the daemon's state directory. Raises ConfigError when that path is too long."""
    home = config.state_dir / "workers"
    socket = home / f"{number}.sock"
    if len(str(socket).encode()) > _SOCKET_PATH_MAX:
        raise ConfigError(
            f"daemon.state_dir: {socket} is too long for a unix socket (at most {_SOCKET_PATH_MAX} bytes): "
            "choose a shorter one to run several workers"
        )
    redis = config.redis
    if redis_socket is not None:
        redis = replace(
            redis, mode="external", url=None, socket=redis_socket, db=0, username=None, password=None, tls=False,
            sentinels=(), service=None,
        )  # fmt: skip
    return replace(
        config,
        daemon=replace(config.daemon, state_dir=home / str(number), socket=socket),
        http=replace(config.http, listen=None),
        # Browsers come to the supervising process: it sees what all workers commit.
        live=replace(config.live, enabled=False),
        redis=redis,
        database=replace(config.database, sqlite_path=config.sqlite_path),
        cluster=Cluster(mode="single"),
        # What has to happen once for all happens in the supervising process.
        scheduler=replace(config.scheduler, enabled=False),
        kafka=replace(config.kafka, publish=False),
        core_service=replace(config.core_service, enabled=False),
        events=replace(config.events, consume_activity=False),
        stats=replace(config.stats, enabled=False),
    )
