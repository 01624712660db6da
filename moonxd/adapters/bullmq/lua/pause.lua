-- The official pause, made whole for queues that 5.x clients share.
-- Resuming: all of a legacy `paused` list goes back to `wait` in this call (the official one moves 7,000).
-- Pausing: waiting jobs go where a 5.x client that resumes will look for them.
local call = redis.call
local pausing = ARGV[1] == "paused"

local function pause()
--@ official
end

if not pausing then
  append_list(call, KEYS[1], KEYS[2])
end
local remaining = pause()
if pausing then
  local home = home_of(call, KEYS[1])
  if home ~= KEYS[1] and call("EXISTS", home) == 0 then
    if call("EXISTS", KEYS[1]) == 1 then
      call("RENAME", KEYS[1], home)
    end
  elseif home ~= KEYS[1] then
    -- Jobs in `wait` are younger than those in `paused`: they go to its head, the oldest of them first.
    while call("RPOPLPUSH", KEYS[1], home) do end
  end
end
return remaining
