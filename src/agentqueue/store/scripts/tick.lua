--! include keys enqueue
--[[
  Enqueue the job of a cron tick, once over all workers of the queue. The last tick is stored, since a short job may be
  done and forgotten before a slower worker gets to the same tick.

  Input
    ARGV  1    cron name
          2    time of the tick, ms
          3    job ID
          4    job ID to use if a job of another queue has the first one
          5-7  level, delay ms, record
  Keys touched
    {queue}:cron, the levels, arq:result:{id}; the keys of enqueue.lua
  Output
    which of the IDs the job has (1 or 2), or 0 if the tick was enqueued before
]]
local cron, tick_ms, id, other_id, level, delay_ms, record = unpack(ARGV, 1, 7)
local cron_key = queue .. ':cron'

-- Return whether this queue has a job with that ID. Plain arq workers enqueue the ticks of their queue themselves.
local function is_in_queue(job_id)
  for i = 1, 4 do
    if redis.call('ZSCORE', level_keys[i], job_id) then return true end
  end
  local result = redis.call('GET', RESULT .. job_id)
  if not result then return false end
  local ok, decoded = pcall(cjson.decode, result)
  if ok then return type(decoded) == 'table' and decoded.q == queue end
  return string.find(result, queue, 1, true) ~= nil -- A pickle contains the queue's name as plain text.
end

local function enqueue_as(job_id) return #enqueue_jobs(queue, {job_id, level, delay_ms, record}, false) == 0 end

if tonumber(redis.call('HGET', cron_key, cron) or 0) >= tonumber(tick_ms) then return 0 end
redis.call('HSET', cron_key, cron, tick_ms)
if enqueue_as(id) then return 1 end
return not is_in_queue(id) and enqueue_as(other_id) and 2 or 0
