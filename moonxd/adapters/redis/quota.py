"""Budgets that all workers share: one script, atomic for all charges of a request, on the server's own clock."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from moonxd.adapters.memory.quota import MemoryQuota

from ...domain.quota import SLICES, Charge
from .client import Redis, RedisReplyError, RedisUnavailable, Script

_log = logging.getLogger("moonxd.redis")
#: Seconds between two log lines about budgets that are not shared.
_QUIET_S = 60.0

#: ARGV: the number of slices, then cost, limit and window in ms for each key. A hash holds units by slice.
_TAKE = Script(
    "moonxd-quota",
    """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local slices, wait = tonumber(ARGV[1]), 0
for i, key in ipairs(KEYS) do
  local cost, limit, window = tonumber(ARGV[3*i-1]), tonumber(ARGV[3*i]), tonumber(ARGV[3*i+1])
  local width = window / slices
  local found, spent, total, gone = redis.call('HGETALL', key), {}, 0, {}
  for j = 1, #found, 2 do
    local slice, units = tonumber(found[j]), tonumber(found[j+1])
    -- A slice of the future was written before the server's clock went back.
    if slice > math.floor(now / width) or (slice + 1) * width + window <= now then
      gone[#gone+1] = found[j]
    else
      spent[#spent+1] = {slice, units}
      total = total + units
    end
  end
  if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
  local over = total + math.min(cost, limit) - limit
  if over > 0 then
    table.sort(spent, function(a, b) return a[1] < b[1] end)
    for _, one in ipairs(spent) do
      over = over - one[2]
      if over <= 0 then
        wait = math.max(wait, 1, math.ceil((one[1] + 1) * width + window - now))
        break
      end
    end
    if over > 0 then wait = math.max(wait, window) end
  end
end
if wait > 0 then return wait end
for i, key in ipairs(KEYS) do
  local cost, window = tonumber(ARGV[3*i-1]), tonumber(ARGV[3*i+1])
  local width = window / slices
  redis.call('HINCRBY', key, string.format('%.0f', math.floor(now / width)), cost)
  redis.call('PEXPIRE', key, math.ceil(window + 2 * width))
end
return 0
""",
)


class RedisQuota:
    """A `ports.Quota` on Redis. Without Redis every worker keeps to the limits by itself, until Redis is back."""

    def __init__(self, redis: Redis, *, prefix: str = "moonxd:quota:", timeout_s: float = 1.0) -> None:
        self._redis = redis
        self._prefix = prefix
        self._timeout_s = timeout_s
        self._local = MemoryQuota()
        self._quiet_until = float("-inf")

    async def take(self, charges: Sequence[Charge]) -> float:
        if self._redis.state != "connected":
            return await self._alone(charges, self._redis.last_error or "not connected")
        keys = [self._prefix + charge.key for charge in charges]
        numbers = [n for charge in charges for n in (charge.cost, charge.limit, round(charge.window_s * 1000))]
        try:
            with trio.fail_after(self._timeout_s):
                wait_ms: int = await self._redis.script(_TAKE, keys, [SLICES, *numbers])
        except (RedisUnavailable, RedisReplyError, trio.TooSlowError) as error:
            return await self._alone(charges, error)
        return wait_ms / 1000

    async def _alone(self, charges: Sequence[Charge], why: object) -> float:
        now = trio.current_time()
        if now >= self._quiet_until:
            _log.warning("Limits of providers are kept per worker for now, Redis cannot be asked: %s", why)
            self._quiet_until = now + _QUIET_S
        return await self._local.take(charges)
