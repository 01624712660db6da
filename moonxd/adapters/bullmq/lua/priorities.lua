-- Priority and number of waiting jobs for every priority that has any (at most 1,000 of them), as a flat list.
local found, from = {}, 0
while #found < 2000 do
  local next = redis.call("ZRANGEBYSCORE", KEYS[1], from, "+inf", "WITHSCORES", "LIMIT", 0, 1)
  if #next == 0 then
    return found
  end
  local priority = math.floor(tonumber(next[2]) / 0x100000000)
  local past = (priority + 1) * 0x100000000
  found[#found + 1] = priority
  found[#found + 1] = redis.call("ZCOUNT", KEYS[1], priority * 0x100000000, "(" .. string.format("%.0f", past))
  from = string.format("%.0f", past)
end
return found
