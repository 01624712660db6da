"""From the configuration to what several workers need: the fleet, the processes, the terms of each type of job."""

from __future__ import annotations

import os
import sys

from .adapters.processes import ChildProcess
from .adapters.redis.client import Redis
from .adapters.redis.embedded import socket_path_for
from .adapters.redis.fleet import RedisFleet, fleet_prefix
from .bundle import command
from .config import Config
from .config.jobs import backoff_of
from .jobs import Terms
from .ports import Fleet


def job_terms(config: Config) -> dict[str, Terms]:
    """By type's name."""
    return {
        name: Terms(
            timeout_s=terms.timeout_s,
            attempts=terms.attempts,
            backoff=backoff_of(terms, config.queue.backoff),
            share=terms.share,
        )
        for name, terms in config.jobs.by_type()
    }


def start_worker(config: Config, name: str, number: int) -> ChildProcess:
    """Worker `number` of this daemon as a process: our own command line, and what makes it a worker."""
    more = ["--cluster-worker", str(number)]
    if not config.redis.is_external:
        more += ["--cluster-redis", str(socket_path_for(config.state_dir.absolute()))]
    environ = {**os.environ, "MOONXD_DAEMON__WORKER_NAME": name, "MOONXD_STATE_DIR": str(config.state_dir)}
    return ChildProcess([*command(), *sys.argv[1:], *more], environ)


def cores() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_fleet(redis: Redis, config: Config) -> Fleet:
    """The workers of our queue, wherever they run."""
    return RedisFleet(redis, fleet_prefix(config.redis.key_prefix, config.queue.prefix, config.queue.name))
