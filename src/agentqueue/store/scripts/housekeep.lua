--! include keys clock wrong_types reaper housekeeping
--[[
  Do the housekeeping of a queue that may have no worker: release expired leases and sweep.

  Input
    ARGV  1  leave the queue alone if somebody reaped it within so many ms
          2  jobs whose records are checked for arq's expiry
          3  retention of dead letters, ms
          4  retention of the history, ms
          5  age at which a heartbeat is stale, ms
  Keys touched
    all keys of the queue, aq:queues, arq:abort; keys of jobs that are swept; the jobs of ticks
  Output
    {number of expired leases that were released, {key, type}* of keys of jobs that had a wrong type and were deleted,
     why a part of the work was skipped, or '', 1 if a schedule needs due times}
]]
local MAX_REAPED = 500 -- At a call every 2 s, the jobs of a hundred workers that die together are back within 10 s.

local recent_ms, expiry_batch, dead_letters_ms, history_ms, stale_ms = unpack(ARGV, 1, 5)
local last_reap = redis.pcall('GET', reaped_key)
local age_ms = now - tonumber(type(last_reap) == 'string' and string.match(last_reap, '^(%d+)|') or 0)
if age_ms >= 0 and age_ms < tonumber(recent_ms) then return {0, {}, '', 0} end
try(redis.call, 'SADD', QUEUES, queue) -- Plain arq clients do not register their queues.
local reaped = 0
try(function() reaped = reap_expired_leases(MAX_REAPED) end)
sweep(tonumber(expiry_batch), tonumber(dead_letters_ms), tonumber(history_ms), tonumber(stale_ms))
return {reaped, wrong_type_keys, skipped, lacks_times and 1 or 0}
