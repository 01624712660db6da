-- The official moveStalledJobsToWait, after bringing back what a crashed resume left in the legacy `paused` list.
if redis.call("HEXISTS", KEYS[5], "paused") == 0 then
  if redis.call("EXISTS", KEYS[6]) == 1 then
    append_list(redis.call, KEYS[6], KEYS[2])
    redis.call("ZADD", KEYS[7], 0, "0")
  end
end
local real_redis = redis
local redis = detour(real_redis, {})
--@ official
