--! include keys clock batches wrong_types leases waits wakeups
-- A suspended job waits without a slot. It is a delayed job that is due when its first wait ends by itself, or NEVER.
-- Its meta hash has the field `suspended`: {"kind", "for": [what it waits for], "since": ms, "until": its score in the
-- level, "level"}, `stood`, the score that it had before its first suspension, and `suspended_by`, when the run that has
-- suspended it last was claimed, in ms. The queue's sorted sets {queue}:suspended:{kind} list the suspended jobs,
-- ID -> until.
-- Whatever makes a job wait at another score makes the field outdated: it counts only while `until` is the job's score.
local SUSPENSION_KINDS = {'signal', 'sleep', 'children', 'several'}

local function suspended_key(queue_name, kind) return queue_name .. ':suspended:' .. kind end

-- Remove a job from the suspended ones; its place in its level stays.
local function forget_suspension(queue_name, id)
  for _, kind in ipairs(SUSPENSION_KINDS) do call_or_reset('ZREM', suspended_key(queue_name, kind), id) end
  call_or_reset('HDEL', META .. id, 'suspended')
end

-- Return the level and the score of a job; nil if its queue does not have it.
local function find_place(queue_name, id)
  for level = 1, 4 do
    local score = redis.call('ZSCORE', queue_name .. LEVEL_SUFFIXES[level], id)
    if score then return level, tonumber(score) end
  end
end

-- Return whether a job with this score is suspended. If another program has deleted its meta hash, the index shows it.
local function is_suspended(queue_name, id, score)
  local text = call_or_reset('HGET', META .. id, 'suspended')
  local is_readable, suspension = pcall(cjson.decode, text or '')
  if is_readable and type(suspension) == 'table' then return suspension['until'] == score, suspension end
  for _, kind in ipairs(SUSPENSION_KINDS) do
    if tonumber(call_or_reset('ZSCORE', suspended_key(queue_name, kind), id) or -1) == score then return true end
  end
  return false
end

-- Let a job that is suspended at this place wait where it stood, but not as if it had waited longer than the first job
-- of its level: it comes to the head, and the time of its suspension is not taken for a time in the queue.
local function put_back(queue_name, id, level)
  local level_key = queue_name .. LEVEL_SUFFIXES[level]
  local first = redis.call('ZRANGEBYSCORE', level_key, MIN_TIMESTAMP, now_text, 'WITHSCORES', 'LIMIT', 0, 1)[2]
  local stood = tonumber(call_or_reset('HGET', META .. id, 'stood') or now)
  local score = math.min(math.max(stood, tonumber(first or now)), now)
  redis.call('ZADD', level_key, 'XX', format_number(score), id)
  forget_suspension(queue_name, id)
  redis.call('HSET', META .. id, 'woken', now_text)
  wake_workers(queue_name, 1)
end

-- Wake a job of any queue if it is suspended. If a worker holds it, inform that worker that something has come for the job.
-- Call it after all other writes of the script. Return whether the job was suspended.
-- signal: wake a job that waits for signals only if it waits for this one; nil wakes it in any case.
local function wake_suspended(queue_name, id, signal)
  local level, score = find_place(queue_name, id)
  if not level then return false end
  if score < 0 then
    local owner = parse_lease(get_all(IN_PROGRESS, {id})[1])
    if owner then
      local key = queue_name .. ':wake:' .. owner
      redis.call('LPUSH', key, id)
      redis.call('LTRIM', key, 0, 999)
      redis.call('PEXPIRE', key, 60000)
    end
    return false
  end
  local found, suspension = is_suspended(queue_name, id, score)
  if not found then return false end
  if signal and suspension then
    local waits_for_it = false
    for _, what in ipairs(suspension['for']) do waits_for_it = waits_for_it or what == 'signal ' .. signal end
    if not waits_for_it then return true end
  end
  put_back(queue_name, id, level)
  return true
end

-- Suspend a running job of this queue until one of the waits in these fields of its journal has an answer. Its
-- in-progress key is left to the caller.
local function suspend_job(id, level, lease, fields)
  local pending = read_pending(id, fields)
  local due, kind, what = NEVER, nil, {}
  for i, wait in ipairs(pending) do
    due = math.min(due, wait['until'] or NEVER)
    kind = (kind == nil or kind == wait.wait) and wait.wait or 'several'
    what[i] = wait.wait .. ' ' .. wait['for']
  end
  kind = kind or 'several'
  local _, _, old_score, claimed_ms = parse_lease(lease)
  redis.call('ZADD', level_keys[level], format_number(due), id)
  call_or_reset('ZADD', suspended_key(queue, kind), format_number(due), id)
  local waits_for = #what == 0 and '[]' or cjson.encode(what)
  local text = '{"kind":"' .. kind .. '","for":' .. waits_for .. ',"since":' .. now_text
    .. ',"until":' .. format_number(due) .. ',"level":' .. level .. '}'
  call_or_reset('HSET', META .. id, 'suspended', text, 'suspended_by', claimed_ms)
  redis.call('HSETNX', META .. id, 'stood', format_number(released_score(old_score)))
  redis.call('HDEL', META .. id, 'woken', 'expires') -- It has started, so it no longer expires.
end

-- Wake a job that has just been suspended if one of its waits has an answer, or if somebody asked to cancel it. Call it
-- after all other writes of the script, which may have written the answer.
local function wake_if_answered(id, level, fields, has_cancel_requests)
  local pending, answered = read_pending(id, fields)
  local is_awake = answered > 0 or (has_cancel_requests and redis.call('ZSCORE', ABORT, id))
  for _, wait in ipairs(pending) do is_awake = is_awake or has_answer(id, wait) end
  if is_awake then put_back(queue, id, level) end
end
