-- Stands before an official script and shows it a `redis` whose pushes take the pause of BullMQ 5.x into account.
--
-- Scripts of 6.x keep waiting jobs in `wait` while the queue is paused. A 5.x client renames `wait` to `paused` when it
-- pauses, and renames it back OVER `wait` when it resumes: whatever was pushed to `wait` in between is lost. So while a
-- queue is paused and a 5.x client may resume it, pushes go to `paused`, which every version's resume brings back.
local function home_of(call, list)
  local base = string.sub(list, 1, -5)
  local meta = call("HMGET", base .. "meta", "paused", "version")
  if not meta[1] then
    return list
  end
  -- Who resumes is unknown; meta.version names the last producer. Absent or foreign versions may well be 5.x.
  local major = meta[2] and tonumber(string.match(meta[2], "^bullmq:(%d+)%.")) or 0
  if major < 6 or call("EXISTS", base .. "paused") == 1 then
    return base .. "paused"
  end
  return list
end

-- `handlers` may take over further commands; each is called with the command's arguments.
local function detour(real, handlers)
  local call = real.call
  local homes = {}
  local function pusher(command)
    return function(list, ...)
      if string.sub(list, -5) == ":wait" then
        local home = homes[list]
        if not home then
          home = home_of(call, list)
          homes[list] = home
        end
        list = home
      end
      return call(command, list, ...)
    end
  end
  handlers.LPUSH = pusher("LPUSH")
  handlers.RPUSH = pusher("RPUSH")
  local shown = {
    call = function(command, ...)
      local handler = handlers[command]
      if handler then
        return handler(...)
      end
      return call(command, ...)
    end,
  }
  return setmetatable(shown, { __index = real })
end

-- Append all of `from` behind the tail of `into` (its tail is served first), whatever the lengths.
local function append_list(call, from, into)
  if call("EXISTS", from) == 0 then
    return
  end
  if call("EXISTS", into) == 0 then
    call("RENAME", from, into)
    return
  end
  repeat
    local ids = call("LRANGE", from, 0, 999)
    if #ids > 0 then
      call("RPUSH", into, unpack(ids))
      call("LTRIM", from, #ids, -1)
    end
  until #ids == 0
end
