"""Offices that one of the fleet holds: a key each, with the holder's name, that dies with the holder."""

from __future__ import annotations

import trio

from ...domain.errors import Transient
from .client import Redis, RedisReplyError, RedisUnavailable, Script

#: KEYS: the office. ARGV: our name, the time to live in ms.
_HOLD = Script(
    "moonxd-hold",
    """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
""",
)
_LEAVE = Script(
    "moonxd-leave",
    """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
""",
)


class RedisElection:
    """A `ports.Election`. `name` must be no other candidate's."""

    def __init__(self, redis: Redis, name: str, *, prefix: str = "moonxd:office:", timeout_s: float = 2.0) -> None:
        self._redis = redis
        self._name = name
        self._prefix = prefix
        self._timeout_s = timeout_s

    async def hold(self, office: str, ttl_s: float) -> bool:
        """See ports.Election."""
        return await self._run(_HOLD, office, [self._name, round(ttl_s * 1000)]) == 1

    async def leave(self, office: str) -> None:
        """See ports.Election."""
        await self._run(_LEAVE, office, [self._name])

    async def _run(self, script: Script, office: str, arguments: list[str | int]) -> int:
        try:
            with trio.fail_after(self._timeout_s):
                held: int = await self._redis.script(script, [self._prefix + office], arguments)
        except (RedisUnavailable, RedisReplyError) as error:
            raise Transient(f"who holds {office} is not known: {error}") from error
        except trio.TooSlowError as error:
            raise Transient(f"who holds {office} is not known: no answer within {self._timeout_s:g} s") from error
        return held
