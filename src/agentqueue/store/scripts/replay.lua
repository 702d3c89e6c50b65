--! include keys clock counters dead_letters enqueue
--[[
  Replay dead letters: enqueue their jobs again, at the end of the queue and without their failed attempts.
  They keep their checkpoint and their journal, with which they go on where they have stopped.

  Input
    ARGV  IDs
  Keys touched
    aq:dead:{id} and its indexes; arq:job:, arq:result:, arq:retry: and aq:meta: of each job; the keys of enqueue.lua
  Output
    {server time in ms, {status of each ID}}; a status is 'replayed', 'unknown' (this queue has no such dead letter),
    'live' (a job with that ID is enqueued already) or 'bare' (the record is gone)
]]
local function replay(id)
  local dead_queue, level, record, checkpoint, has_journal =
    unpack(redis.call('HMGET', DEAD .. id, 'queue', 'level', 'record', 'checkpoint', 'journal'))
  if dead_queue ~= queue then return 'unknown' end
  if redis.call('EXISTS', JOB .. id) == 1 then return 'live' end
  if not record then return 'bare' end
  delete_dead_letter(id, true)
  redis.call('DEL', RESULT .. id, RETRY .. id, META .. id)
  if checkpoint then redis.call('HSET', META .. id, 'checkpoint', checkpoint) end
  if has_journal then redis.call('HSET', META .. id, 'journal', 1) end
  enqueue_jobs(queue, {id, level, 0, record}, true)
  increment_counter(queue, 'replayed', 1)
  return 'replayed'
end

local statuses = {}
for i = 1, #ARGV do statuses[i] = replay(ARGV[i]) end
return {now, statuses}
