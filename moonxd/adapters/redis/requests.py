"""Request lists of another program in Redis, taken by moving each request to a list of its owner.

Beside each prefix's lists lie `sync:owners`, a sorted set of owners by the end of their lease (Redis's clock, ms), and
`sync:processing:<list>:<owner>`, what each owner has taken. An owner stays in the set for a while after its lease has
ended: a move that Redis had accepted from it may still come, and must be found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import trio

from moonxd.domain.core_service import LISTS, Source, Taken, Verdict, dead_key
from moonxd.domain.errors import Transient

from .client import Redis, RedisReplyError
from .script import Script

#: Seconds after its lease that an owner is forgotten.
_FORGET_S = 3600
#: Seconds between two looks for requests that reached us without our knowing.
_LOOK_S = 5.0
#: Replies that one list may hold: a client that never reads its own must not fill Redis.
_MOST_REPLIES = 10_000

#: KEYS: owners. ARGV: prefix with "sync:", owner, lease in ms (0: it leaves), forget after ms, names of lists.
_BEAT = Script(
    "requestsBeat",
    """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[2])
local moved = 0
for _, owner in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  for i = 5, #ARGV do
    local held = ARGV[1] .. 'processing:' .. ARGV[i] .. ':' .. owner
    -- The newest first, so that the oldest is the next to be taken.
    while redis.call('LMOVE', held, ARGV[1] .. ARGV[i], 'LEFT', 'RIGHT') do
      moved = moved + 1
    end
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[4])
return moved
""",
)
#: KEYS: processing list, reply list, dead list. ARGV: request, has a reply, reply, its life in ms, most replies, entry
#: for the dead list, most of these.
_FINISH = Script(
    "requestsFinish",
    """
local function is_list(key)
  local kind = redis.call('TYPE', key).ok
  return kind == 'list' or kind == 'none'
end
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then
  return 0
end
if ARGV[2] == '1' and is_list(KEYS[2]) then
  redis.call('LPUSH', KEYS[2], ARGV[3])
  redis.call('LTRIM', KEYS[2], 0, ARGV[5] - 1)
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
if ARGV[6] ~= '' and is_list(KEYS[3]) then
  redis.call('LPUSH', KEYS[3], ARGV[6])
  redis.call('LTRIM', KEYS[3], 0, ARGV[7] - 1)
end
return 1
""",
)


class RedisRequests:
    """Implements ports.Requests. `owner` must be a name that nobody ever had before."""

    def __init__(
        self,
        redis: Redis,
        prefixes: Sequence[str],
        *,
        owner: str,
        lease_s: float,
        reply_ttl_s: float,
        dead_max: int,
    ) -> None:
        self._redis = redis
        self._prefixes = tuple(prefixes)
        self._owner = owner
        self._lease_ms = max(1, int(lease_s * 1000))
        self._reply_ms = max(1, int(reply_ttl_s * 1000))
        self._dead_max = dead_max
        #: What we are working on, by list; a body may be there twice.
        self._held: dict[Source, Counter[bytes]] = {}
        #: What lies in our processing list without our having been told.
        self._strays: dict[Source, list[bytes]] = {}
        self._look_at: dict[Source, float] = {}

    async def beat(self) -> int:
        """See ports.Requests."""
        return await self._say(self._lease_ms)

    async def leave(self) -> None:
        """See ports.Requests."""
        self._held.clear()
        self._strays.clear()
        self._look_at.clear()
        await self._say(0)

    async def take(self, source: Source, timeout: float) -> Taken | None:
        """See ports.Requests."""
        if trio.current_time() >= self._look_at.get(source, 0.0):
            await self._look(source)
        strays = self._strays.get(source)
        body = strays.pop() if strays else await self._next(source, timeout)
        if body is None:
            return None
        self._held.setdefault(source, Counter())[body] += 1
        return Taken(source, body)

    async def finish(self, taken: Taken, verdict: Verdict) -> bool:
        """See ports.Requests."""
        has_reply = verdict.reply_key is not None
        keys = (self._processing(taken.source), verdict.reply_key or "", dead_key(taken.source.prefix))
        reply = (int(has_reply), verdict.reply, self._reply_ms, _MOST_REPLIES)
        done = await self._script(_FINISH, keys, (taken.body, *reply, verdict.parked or b"", self._dead_max))
        self._forget(taken)
        return bool(done)

    def let_go(self, taken: Taken) -> None:
        """See ports.Requests."""
        self._forget(taken)

    # ----

    async def _say(self, lease_ms: int) -> int:
        moved = 0
        for prefix in self._prefixes:
            about = (f"{prefix}sync:", self._owner, lease_ms, _FORGET_S * 1000, *LISTS)
            moved += await self._script(_BEAT, (f"{prefix}sync:owners",), about)
        return moved

    async def _next(self, source: Source, timeout: float) -> bytes | None:
        move = ("BLMOVE", source.key, self._processing(source), "RIGHT", "LEFT", f"{max(timeout, 0.001):.3f}")
        try:
            body: bytes | None = await self._redis.block(*move, timeout=timeout)
        except RedisReplyError as error:
            raise _unusable(source.key, error) from error
        except Transient:
            self._look_at[source] = 0.0  # it may have been moved all the same
            raise
        return body

    async def _look(self, source: Source) -> None:
        """Nobody but `take` moves requests to our list, and it is not at work now: what we do not hold is a stray."""
        try:
            found: list[bytes] = await self._redis.call("LRANGE", self._processing(source), 0, -1)
        except RedisReplyError as error:
            raise _unusable(self._processing(source), error) from error
        held = self._held.get(source, Counter())
        # The oldest lies last, and is taken first.
        self._strays[source] = list((Counter(found) - held).elements()) if held else found
        self._look_at[source] = trio.current_time() + _LOOK_S

    def _forget(self, taken: Taken) -> None:
        held = self._held.get(taken.source)
        if held is not None:
            held[taken.body] -= 1
            if held[taken.body] <= 0:
                del held[taken.body]

    def _processing(self, source: Source) -> str:
        return f"{source.prefix}sync:processing:{source.name}:{self._owner}"

    async def _script(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> int:
        try:
            return int(await self._redis.script(script, keys, args))
        except RedisReplyError as error:
            raise _unusable(keys[0], error) from error


def _unusable(key: str, error: RedisReplyError) -> Transient:
    return Transient(f"Redis refused a request list near {key}: {error}")
