"""Is this Redis fit to keep jobs?"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from .client import Redis
from .errors import RedisRefused, RedisReplyError

#: LPOS, fractional timeouts of BZPOPMIN and LMOVE came with it.
MINIMUM = (6, 2)


class ServerInfo(msgspec.Struct, frozen=True):
    """`version` as the server states it; `warnings` are sentences for the log and the status board."""

    version: str
    warnings: tuple[str, ...] = ()


async def check_server(redis: Redis) -> ServerInfo:
    """Wait for the connection and look at the server.

    Raises RedisRefused when it cannot be used, RedisUnavailable when it cannot be reached in connect_timeout_s.
    """
    await redis.wait_connected()
    try:
        # Not CONFIG GET: hosted Redis forbids it, and INFO says the same.
        text: bytes = await redis.call("INFO")
    except RedisReplyError as error:
        warning = f"Redis at {redis.settings.where} does not tell its version and memory policy ({error})"
        return ServerInfo("unknown", (warning,))
    return judge(parse_info(text.decode("utf-8", "replace")), redis.settings.where)


def parse_info(text: str) -> dict[str, str]:
    """INFO's `name:value` lines."""
    pairs = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, colon, value in pairs if colon}


def judge(info: Mapping[str, str], where: str) -> ServerInfo:
    """What `info` means for a queue. Raises RedisRefused."""
    version = info.get("redis_version", "unknown")
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    if numbers and numbers < MINIMUM:
        raise RedisRefused(f"Redis at {where} is version {version}; the queue needs 6.2 or newer")
    if info.get("cluster_enabled") == "1":
        raise RedisRefused(f"Redis at {where} is a cluster; the queue needs a single master (or Sentinel)")
    if info.get("role") == "slave":
        raise RedisRefused(f"Redis at {where} is a read-only replica; name its master (or use Sentinel)")
    return ServerInfo(version, tuple(_warnings(info, where)))


def _warnings(info: Mapping[str, str], where: str) -> list[str]:
    warnings = []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        warnings.append(f"Redis at {where} may evict jobs: its maxmemory-policy is {policy}, set it to noeviction")
    return warnings
