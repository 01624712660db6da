"""Who this daemon is, and where it keeps its things."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from ..api.schema import Daemon as Identity
from ..config import Config
from ..domain.errors import ConfigError
from ..version import VERSION
from .ledger import ledger_name


class WallClock:
    """Wall time as ports.Clock."""

    def now(self) -> float:
        return time.time()


def worker_name(config: Config) -> str:
    return config.daemon.worker_name or f"{socket.gethostname()}:{os.getpid()}"


def make_state_dir(path: Path) -> None:
    """Open to the group, as the control socket in it is. What is private in it has modes of its own."""
    try:
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"daemon.state_dir {path} cannot be made: {error.strerror}; choose another") from error


def identity(config: Config, worker: str, redis: str, started_at: float) -> Identity:
    """Who this daemon is, for the live view; what changes in it is filled in per sample."""
    return Identity(
        version=VERSION,
        pid=os.getpid(),
        worker=worker,
        host=socket.gethostname(),
        state="starting",
        started_at=started_at,
        slots=0,
        slots_busy=0,
        is_paused=False,
        rss_bytes=0,
        cpu=0.0,
        loop_lag=0.0,
        redis=redis if config.redis.is_external else "embedded",
        database=ledger_name(config),
    )
