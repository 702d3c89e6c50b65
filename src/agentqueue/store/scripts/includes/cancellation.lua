--! include keys clock counters suspension wakeups journal

-- Cancel a job of any queue that waits, or ask the worker of a running job to cancel it. A waiting job with a journal is
-- delivered once more with the request, so that it can undo what its steps have done.
-- result, keep_ms: the encoded result of the cancelled job, and how long it is kept; 0 stores none.
-- Return 'cancelled', 'asked' (its worker), 'final' (too late) or 'unknown'.
local function cancel_job(queue_name, id, result, keep_ms)
  if redis.call('EXISTS', RESULT .. id, DEAD .. id) > 0 and redis.call('EXISTS', JOB .. id) == 0 then return 'final' end
  local level, score = find_place(queue_name, id)
  if not level then return redis.call('ZSCORE', queue_name .. ':done', id) and 'final' or 'unknown' end
  local level_key = queue_name .. LEVEL_SUFFIXES[level]
  if redis.call('EXISTS', IN_PROGRESS .. id) == 1 then
    redis.call('ZADD', ABORT, now, id)
    return 'asked'
  end
  if redis.call('EXISTS', JOURNAL .. id) == 1 then
    redis.call('ZADD', ABORT, now, id)
    if not wake_suspended(queue_name, id) and score > now then
      redis.call('ZADD', level_key, 'XX', 1, id)
      wake_workers(queue_name, 1)
    end
    return 'asked'
  end
  redis.call('ZREM', level_key, id)
  redis.call('DEL', JOB .. id, RETRY .. id, META .. id)
  delete_journal(id)
  redis.call('ZREM', ABORT, id)
  if keep_ms ~= 0 then redis.call('SET', RESULT .. id, result, 'PX', keep_ms) end
  increment_counter(queue_name, 'cancelled', 1)
  return 'cancelled'
end
