-- The official moveJobFromActiveToWait, which sets no marker for a job with a priority: idle workers would sleep on.
local real_redis = redis
local redis = detour(real_redis, {})

local function release()
--@ official
end

local reply = release()
if reply >= 0 and real_redis.call("HEXISTS", KEYS[5], "paused") == 0 then
  real_redis.call("ZADD", KEYS[8], 0, "0")
end
return reply
