-- The official moveToActive; when it hands out nothing because the queue's own concurrency is used up, the fourth
-- value is "maxed": no marker will tell when a place becomes free, so the caller has to look again.
local real_redis = redis
local redis = detour(real_redis, {})

local function claim()
--@ official
end

local reply = claim()
if type(reply) == "table" and type(reply[1]) ~= "table" and reply[3] == 0 and reply[4] == 0 then
  local meta = real_redis.call("HMGET", KEYS[9], "paused", "concurrency")
  if meta[2] and not meta[1] and real_redis.call("LLEN", KEYS[2]) >= tonumber(meta[2]) then
    reply[4] = "maxed"
  end
end
return reply
