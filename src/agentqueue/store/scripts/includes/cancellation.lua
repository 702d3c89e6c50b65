--! include keys clock counters suspension wakeups journal children schedules streams
-- A cancelled job's children are cancelled too. Scripts stay short: the hash of children is renamed and its name put at
-- the end of the list aq:cascades, which each call that may cancel shortens by up to MAX_CANCELLED children.
local CASCADE = 'aq:cascade:'
local MAX_CANCELLED = 100
local RESULT_KEEP_MS = 3600000 -- of children that are cancelled with their parent: the default of handlers

-- Let the children of a job that is cancelled be cancelled, unless somebody asked to leave them.
local function begin_cascade(id)
  local children = CHILDREN .. id
  if redis.call('EXISTS', children) == 0 or redis.call('HEXISTS', children, '#leave') == 1 then return end
  local cascade = CASCADE .. id .. ':' .. now_text
  redis.call('RENAME', children, cascade)
  redis.call('RPUSH', CASCADES, cascade)
end

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
  local record = redis.pcall('GETRANGE', JOB .. id, 0, 1023)
  local has_stream = redis.pcall('HEXISTS', META .. id, 'stream') == 1
  redis.call('ZREM', level_key, id)
  redis.call('DEL', JOB .. id, RETRY .. id, META .. id)
  begin_cascade(id)
  delete_journal(id)
  redis.call('ZREM', ABORT, id)
  if has_stream then end_stream(id, 'cancelled', keep_ms) end
  if keep_ms ~= 0 then redis.call('SET', RESULT .. id, result, 'PX', keep_ms) end
  increment_counter(queue_name, 'cancelled', 1)
  local schedule = tick_of(type(record) == 'string' and record)
  if schedule then open_schedule(queue_name, schedule).removed(id) end
  local parent, parent_queue = waiting_parent(type(record) == 'string' and record)
  if parent then return_to_parent(parent, parent_queue, id, CANCELLED) end
  return 'cancelled'
end

-- Return the encoded result of a child that is cancelled with its parent.
local function result_of_cancelled(child, child_queue)
  local record = redis.call('GETRANGE', JOB .. child, 0, 1023)
  local name, enqueued_ms = string.match(record, '"f":"([^"]*)"'), string.match(record, '"et":(%d+)')
  return '{"t":0,"f":"' .. (name or '') .. '","et":' .. (enqueued_ms or 0) .. ',"s":false,"st":0,"ft":' .. now_text
    .. ',"q":"' .. child_queue .. '","id":"' .. child .. '","x":{"state":"cancelled"'
    .. ',"parent":' .. (string.match(record, '^{"aq":1,"up":%[("[^"]+")') or 'null')
    .. '},"r":{"$exc":"CancelledError","args":["its parent was cancelled"]},"a":[],"k":{}}'
end

-- Cancel the next children of jobs that were cancelled.
local function continue_cascades()
  local left = MAX_CANCELLED
  while left > 0 do
    local cascade = redis.call('LINDEX', CASCADES, 0)
    if not cascade then return end
    local found = redis.call('HRANDFIELD', cascade, left, 'WITHVALUES')
    if #found == 0 then redis.call('LPOP', CASCADES) end
    for i = 1, #found, 2 do
      local state, child_queue = decode_child(found[i + 1])
      if state == 'pending' then
        cancel_job(child_queue, found[i], result_of_cancelled(found[i], child_queue), RESULT_KEEP_MS)
        left = left - 1
      end
      redis.call('HDEL', cascade, found[i])
    end
  end
end
