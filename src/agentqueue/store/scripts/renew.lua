--! include keys clock batches wrong_types leases reaper housekeeping
--[[
  Renew the leases of a worker, write its heartbeat, and do a bounded part of the queue's housekeeping.

  Input
    ARGV  1     owner of the leases
          2     worker ID
          3     heartbeat, JSON
          4     lease, ms
          5     jobs whose records are checked for arq's expiry; 0: no sweeps
          6     retention of dead letters, ms
          7     retention of the history, ms
          8     age at which a heartbeat is stale, ms
          9     number of counters to increment
          then  {counter, increment}* of them
          then  {id, level}* of the jobs that the owner holds
  Keys touched
    all keys of the queue, aq:queues, arq:abort; arq:in-progress: of the jobs; other keys of jobs that are swept;
    the jobs of ticks
  Output
    {IDs that the owner no longer holds, time of the drain request in ms or 0, number of expired leases that were
     released, server time in ms, 1 if the queue is paused, {key, type}* of keys of jobs that had a wrong type and were
     deleted, why a part of the work was skipped, or '', 1 if a schedule needs due times}
]]
local MAX_REAPED = 100 -- expired leases that are released per call

local owner, worker, heartbeat, lease_ms, expiry_batch = unpack(ARGV, 1, 5)
local dead_letters_ms, history_ms, stale_ms, counter_count = unpack(ARGV, 6, 9)
local counters_first, jobs_first = 10, 10 + 2 * tonumber(counter_count)

local ids, levels, lost = {}, {}, {}
for i = jobs_first, #ARGV, 2 do
  ids[#ids + 1] = ARGV[i]
  levels[#levels + 1] = tonumber(ARGV[i + 1])
end
local leases, expiries = get_all(IN_PROGRESS, ids), {{}, {}, {}, {}}
for i = 1, #ids do
  if is_held_by(leases[i], owner) then
    local list = expiries[levels[i]]
    list[#list + 1] = -(now + tonumber(lease_ms))
    list[#list + 1] = ids[i]
    redis.call('PEXPIRE', IN_PROGRESS .. ids[i], DAY_MS)
  else
    lost[#lost + 1] = ids[i]
  end
end
for level = 1, 4 do try(add_scores, level_keys[level], expiries[level], 'XX') end
try(function()
  for i = counters_first, jobs_first - 1, 2 do redis.call('HINCRBY', stats_key, ARGV[i], ARGV[i + 1]) end
end)
try(redis.call, 'HSET', workers_key, worker, format_number(now) .. '|' .. heartbeat)
try(redis.call, 'SADD', QUEUES, queue) -- Plain arq clients do not register their queues.
local drain_requested_ms
try(function() drain_requested_ms = redis.call('HGET', drain_key, worker) end)
local reaped = 0
try(function() reaped = reap_expired_leases(MAX_REAPED) end)
sweep(tonumber(expiry_batch), tonumber(dead_letters_ms), tonumber(history_ms), tonumber(stale_ms))
return {
  lost, tonumber(drain_requested_ms) or 0, reaped, now, redis.call('EXISTS', paused_key), wrong_type_keys, skipped,
  lacks_times and 1 or 0,
}
