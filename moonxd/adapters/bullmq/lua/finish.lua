-- Ends several jobs in one call: `finish` is the official moveToFinished, run once per job and isolated from the others.
--
--   KEYS  1-10 as official, 11 completed, 12 failed, 13-14 their metrics, 15 marker, then one job key per item
--   ARGV  1 timestamp, 2 key prefix, then per item: job id, value, "completed"|"failed", "1"|"" (fetch the next job),
--         packed options, packed fields to update
--   returns one reply per item: the official one, or a text if the script raised for that item
--
-- What every item would ask Redis again and the others cannot have changed in between is asked once (`remembering`).
local handlers = {}
local real_call = redis.call
local trimmed, limits, rules, nothing_due, marked = {}, {}, {}, {}, {}

handlers.XTRIM = function(stream, ...)
  if trimmed[stream] then
    return 0
  end
  trimmed[stream] = true
  return real_call("XTRIM", stream, ...)
end

handlers.HGET = function(key, field)
  if field ~= "opts.maxLenEvents" then
    return real_call("HGET", key, field)
  end
  local known = limits[key]
  if not known then
    known = real_call("HGET", key, field)
    limits[key] = known
  end
  return known
end

handlers.HMGET = function(key, first, ...)
  if first ~= "paused" then
    return real_call("HMGET", key, first, ...)
  end
  local id = key .. select("#", ...)
  local known = rules[id]
  if not known then
    known = real_call("HMGET", key, first, ...)
    rules[id] = known
  end
  return known
end

handlers.ZRANGEBYSCORE = function(key, ...)
  if nothing_due[key] then
    return {}
  end
  local due = real_call("ZRANGEBYSCORE", key, ...)
  nothing_due[key] = #due == 0
  return due
end

handlers.ZADD = function(key, score, member, ...)
  if score == 0 and member == "0" then
    if marked[key] then
      return 0
    end
    marked[key] = true
  end
  nothing_due[key] = nil
  return real_call("ZADD", key, score, member, ...)
end

local real_redis = redis
local redis = detour(real_redis, handlers)

--@ official helpers

local function finish(KEYS, ARGV)
--@ official body
end

local keys, argv = {}, {}
for i = 1, 10 do
  keys[i] = KEYS[i]
end
keys[14] = KEYS[15]
argv[2], argv[7] = ARGV[1], ARGV[2]

local replies, left_one = {}, false
for i = 1, #KEYS - 15 do
  local at = 6 * i - 4
  local failed = ARGV[at + 3] == "failed"
  keys[11], keys[13] = KEYS[failed and 12 or 11], KEYS[failed and 14 or 13]
  keys[12] = KEYS[15 + i]
  argv[1], argv[3], argv[4] = ARGV[at + 1], failed and "failedReason" or "returnvalue", ARGV[at + 2]
  argv[5], argv[6], argv[8], argv[9] = ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
  left_one = left_one or argv[6] ~= "1"
  local ok, reply = pcall(finish, keys, argv)
  if ok then
    replies[i] = reply
  else
    replies[i] = "moveToFinished: " .. tostring(type(reply) == "table" and reply.err or reply)
  end
end

-- A place under the queue's own concurrency became free and nobody here takes it: wake whoever waits.
if left_one then
  local meta = real_call("HMGET", KEYS[9], "paused", "concurrency")
  if meta[2] and not meta[1] and real_call("LLEN", KEYS[1]) + real_call("ZCARD", KEYS[3]) > 0 then
    real_call("ZADD", KEYS[15], 0, "0")
  end
end
return replies
