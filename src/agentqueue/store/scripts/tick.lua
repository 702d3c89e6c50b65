-- ARGV: 1 cron name, 2 tick ms, 3 id, 4 the id to take if another queue's job has that one, 5 level, 6 delay ms, 7 record.
-- Enqueues a cron's tick once over all workers of the queue: the last tick is remembered, since the job of a short one
-- may be done and forgotten before a slower worker comes to it.
-- Returns which of the ids it has (1 or 2), or 0 if the tick was taken.
local key = QUEUE .. ':cron'

-- A known id may be this queue's own, since plain arq workers enqueue their ticks themselves.
local function is_here(id)
  for level = 1, 4 do if redis.call('ZSCORE', KEYS[level], id) then return true end end
  local result = redis.call('GET', RESULT .. id)
  if not result then return false end
  local ok, wire = pcall(cjson.decode, result)
  if ok then return type(wire) == 'table' and wire.q == QUEUE end
  return string.find(result, QUEUE, 1, true) ~= nil -- a pickle, which names the queue in plain text
end

local function sent(id) return #put(QUEUE, {id, ARGV[5], ARGV[6], ARGV[7]}, false) == 0 end

if tonumber(redis.call('HGET', key, ARGV[1]) or 0) >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', key, ARGV[1], ARGV[2])
if sent(ARGV[3]) then return 1 end
return not is_here(ARGV[3]) and sent(ARGV[4]) and 2 or 0
