--! include keys clock counters
--[[
  Cancel a waiting job, or ask the worker of a running job to cancel it.

  Input
    ARGV  id, result, keep time of the result in ms (0: no result)
  Keys touched
    the levels; arq:job:, arq:in-progress:, arq:retry:, arq:result:, aq:meta: and aq:dead: of the job; arq:abort
  Output
    'cancelled', 'asked' (it runs), 'final' (too late) or 'unknown'
]]
local id, result, keep_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
if redis.call('EXISTS', RESULT .. id, DEAD .. id) > 0 and redis.call('EXISTS', JOB .. id) == 0 then return 'final' end
local level
for i = 1, 4 do
  if redis.call('ZSCORE', level_keys[i], id) then level = i end
end
if not level then return redis.call('ZSCORE', done_key, id) and 'final' or 'unknown' end
if redis.call('EXISTS', IN_PROGRESS .. id) == 1 then
  redis.call('ZADD', ABORT, now, id)
  return 'asked'
end
redis.call('ZREM', level_keys[level], id)
redis.call('DEL', JOB .. id, RETRY .. id, META .. id)
redis.call('ZREM', ABORT, id)
if keep_ms ~= 0 then redis.call('SET', RESULT .. id, result, 'PX', keep_ms) end
increment_counter(queue, 'cancelled', 1)
return 'cancelled'
