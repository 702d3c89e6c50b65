--! include keys counters dead_letters enqueue children journal journal_cut streams

-- Replay the dead letter of a job: enqueue it again, at the end of its queue and without its failed attempts. It keeps its
-- checkpoint and its journal, with which it goes on where it has stopped. Its children that failed run again when it asks
-- for them, except those whose failures it has collected. A parent that waits for the job, and does not know yet that it
-- had failed, goes on waiting.
-- from: 'start' to run all again, without checkpoint and journal; a field of the journal to run that step and what follows
-- again, without the checkpoint; '' to go on.
-- Return 'replayed', 'unknown' (this queue has no such dead letter), 'live' (a job with that ID is enqueued already),
-- 'bare' (the record is gone) or 'no-step' (its journal has no such field).
local function replay_job(queue_name, id, from)
  local dead_queue, level, record, checkpoint, has_journal =
    unpack(redis.call('HMGET', DEAD .. id, 'queue', 'level', 'record', 'checkpoint', 'journal'))
  if dead_queue ~= queue_name then return 'unknown' end
  if redis.call('EXISTS', JOB .. id) == 1 then return 'live' end
  if not record then return 'bare' end
  if from == 'start' then
    checkpoint, has_journal = false, false
    delete_journal(id)
  elseif from ~= '' then
    checkpoint = false
    if not cut_journal(id, from) then return 'no-step' end
  end
  delete_dead_letter(id, true)
  redis.call('DEL', RESULT .. id, RETRY .. id, META .. id)
  reopen_stream(id)
  if checkpoint then redis.call('HSET', META .. id, 'checkpoint', checkpoint) end
  if has_journal then
    redis.call('HSET', META .. id, 'journal', 1)
    if redis.call('EXISTS', CHILDREN .. id) == 1 then redis.call('HINCRBY', CHILDREN .. id, '#round', 1) end
  end
  enqueue_jobs(queue_name, {id, level, 0, record}, true)
  increment_counter(queue_name, 'replayed', 1)
  local parent = waiting_parent(record)
  if parent then take_back_failure(parent, id) end
  return 'replayed'
end
