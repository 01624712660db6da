"""The cache that all workers share, with a small one of this process in front."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import trio

from moonxd.adapters.memory.cache import MemoryCache

from .client import Redis, RedisReplyError, RedisUnavailable

_log = logging.getLogger("moonxd.redis")
#: Keys per command, so that one look-up never holds up the queue's commands on the same connection.
_BATCH = 500
#: Seconds between two log lines about a failing cache.
_QUIET_S = 60.0


class RedisCache:
    """ports.Cache on Redis. A cache that fails or dawdles is a miss: it never raises and never delays a job for long.

    `local_ttl_s` bounds how long this process may go on with a value that another worker has replaced meanwhile;
    `timeout_s` is what a look-up in Redis may take.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        prefix: str = "moonxd:cache:",
        local_size: int = 5_000,
        local_ttl_s: float = 30.0,
        timeout_s: float = 1.0,
    ) -> None:
        self._redis = redis
        self._prefix = prefix
        self._local = MemoryCache(local_size)
        self._local_ttl_s = local_ttl_s
        self._timeout_s = timeout_s
        self._quiet_until = float("-inf")
        self._failures = 0

    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        found = self._local.look_up(keys)
        lacking = [key for key in dict.fromkeys(keys) if key not in found]
        if not lacking:
            await trio.lowlevel.checkpoint()
            return found
        shared = await self._read(lacking)
        self._local.keep(shared, self._local_ttl_s)
        return found | shared

    async def _read(self, keys: Sequence[str]) -> dict[str, bytes]:
        batches = [keys[start : start + _BATCH] for start in range(0, len(keys), _BATCH)]
        replies = await self._ask([("MGET", *(self._prefix + key for key in batch)) for batch in batches])
        found: dict[str, bytes] = {}
        for batch, values in zip(batches, replies, strict=False):  # no replies at all when Redis is away
            if not isinstance(values, RedisReplyError):
                found.update((key, value) for key, value in zip(batch, values, strict=True) if value is not None)
        return found

    async def put_many(self, entries: Mapping[str, bytes], ttl_s: float) -> None:
        self._local.keep(entries, min(ttl_s, self._local_ttl_s))
        ttl_ms, left = int(ttl_s * 1000), iter(entries.items())
        while ttl_ms > 0 and (batch := list(islice(left, _BATCH))):
            if not await self._ask([("SET", self._prefix + key, value, "PX", ttl_ms) for key, value in batch]):
                break  # Redis is away: the other batches would only cost time
        await trio.lowlevel.checkpoint()

    async def _ask(self, commands: Sequence[Sequence[str | bytes | int]]) -> list[Any]:
        """The replies, or none when Redis is away or too slow."""
        if self._redis.state != "connected":
            self._complain(self._redis.last_error or "not connected")
            await trio.lowlevel.checkpoint()
            return []
        replies: list[Any] = []
        try:
            with trio.move_on_after(self._timeout_s) as scope:
                replies = await self._redis.many(commands)
        except RedisUnavailable as error:
            self._complain(error)
        if scope.cancelled_caught:
            self._complain(f"no answer within {self._timeout_s:g} s")
        refusal = next((reply for reply in replies if isinstance(reply, RedisReplyError)), None)
        if refusal is not None:
            self._complain(refusal)
        return replies

    def _complain(self, why: object) -> None:
        self._failures += 1
        now = trio.current_time()
        if now < self._quiet_until:
            return
        _log.warning("The shared cache does not work: %s", why, extra={"failures": self._failures})
        self._quiet_until, self._failures = now + _QUIET_S, 0
