"""Offices that one daemon of the fleet holds."""

from __future__ import annotations

from ..adapters.redis.client import Redis
from ..adapters.redis.election import RedisElection
from ..config import Config
from ..ports import Election


def election(config: Config, redis: Redis, worker: str) -> Election:
    """`worker` stands for it."""
    return RedisElection(redis, worker, prefix=f"{config.redis.key_prefix}office:{config.queue.name}:")
