--! include keys clock counters dead_letters enqueue
--[[
  Replay dead letters: enqueue their jobs again, at the end of the queue and without their failed attempts.

  Input
    ARGV  IDs
  Keys touched
    aq:dead:{id} and its indexes; arq:job:, arq:result:, arq:retry: and aq:meta: of each job; the keys of enqueue.lua
  Output
    {server time in ms, {status of each ID}}; a status is 'replayed', 'unknown' (this queue has no such dead letter),
    'live' (a job with that ID is enqueued already) or 'bare' (the record is gone)
]]
local function replay(id)
  local dead_queue, level, record = unpack(redis.call('HMGET', DEAD .. id, 'queue', 'level', 'record'))
  if dead_queue ~= queue then return 'unknown' end
  if redis.call('EXISTS', JOB .. id) == 1 then return 'live' end
  if not record then return 'bare' end
  delete_dead_letter(id)
  redis.call('DEL', RESULT .. id, RETRY .. id, META .. id)
  enqueue_jobs(queue, {id, level, 0, record}, true)
  increment_counter(queue, 'replayed', 1)
  return 'replayed'
end

local statuses = {}
for i = 1, #ARGV do statuses[i] = replay(ARGV[i]) end
return {now, statuses}
