--! include keys clock
--[[
  Register what the code of a worker has: its jobs and crons.

  A set that comes for the first time replaces the one that is registered. A set that was replaced before is refused while
  a live worker has the one that is registered: during a rollout, an old worker that starts once more must not take away
  what the new code has registered. After a rollback no live worker has the newer set, and the older one comes back.

  Input
    ARGV  1  fingerprint of the set
          2  JSON (agentqueue.store.registrations)
          3  1 if the worker starts, so that its name and the time are written even if the set is registered already;
             2 to register the set whatever stands; else 0
          4  JSON list of the names of its jobs
  Keys touched
    {queue}:registration: the fields `current` (JSON), `names`, `fingerprint`, `at` (ms) and `replaced:{fingerprint}` (ms) of sets
    that were replaced; {queue}:workers
  Output
    {1 if the set is registered now, else 0, fingerprint of the registered set}
]]
local LIVE_MS = 15000 -- A live worker writes its heartbeat every 2 s, and the first one after it has registered.
local REMEMBERED_MS = 30 * DAY_MS -- A rollout that lasts longer than this is none.

local fingerprint, text, mode, names = unpack(ARGV, 1, 4)
local key = queue .. ':registration'

local function has_live_worker(set, registered_ms)
  if now - registered_ms < LIVE_MS then return true end
  local workers = redis.call('HGETALL', workers_key)
  for i = 2, #workers, 2 do
    local seen_ms = tonumber(string.match(workers[i], '^(%d+)|') or 0)
    local is_fresh = math.abs(now - seen_ms) < LIVE_MS
    if is_fresh and string.find(workers[i], '"registration":"' .. set .. '"', 1, true) then return true end
  end
  return false
end

local current, at = unpack(redis.call('HMGET', key, 'fingerprint', 'at'))
if current == fingerprint and mode ~= '1' then return {1, current} end
if current and current ~= fingerprint then
  local was_replaced = redis.call('HEXISTS', key, 'replaced:' .. fingerprint) == 1
  if was_replaced and mode ~= '2' and has_live_worker(current, tonumber(at)) then return {0, current} end
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local is_old = string.sub(fields[i], 1, 9) == 'replaced:' and now - tonumber(fields[i + 1]) > REMEMBERED_MS
    if is_old then redis.call('HDEL', key, fields[i]) end
  end
  redis.call('HSET', key, 'replaced:' .. current, now_text)
  redis.call('HDEL', key, 'replaced:' .. fingerprint)
end
redis.call('HSET', key, 'current', text, 'names', names, 'fingerprint', fingerprint, 'at', now_text)
redis.pcall('SADD', QUEUES, queue) -- A key of a wrong type must not keep a worker from its start; its claims report it.
return {1, fingerprint}
