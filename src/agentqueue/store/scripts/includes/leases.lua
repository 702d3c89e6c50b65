--! include keys clock wrong_types
-- A lease has two parts: the job's score in its level is minus the time at which the lease expires, and the job's
-- in-progress key holds `owner|level|score before the claim|claimed at ms`. It ends with AHEAD_MARK if the job was claimed
-- beyond the free slots of its worker, and may not have started.
local AHEAD_MARK = '|ahead'

-- Field of a job's meta hash. A suspect was held by a worker that crashed, and has not ended since. It runs with nothing
-- beside it, so that the next crash, if any, is its own. The value is WAITS_TO_RUN_ALONE or RUNS_ALONE; workers clear it.
local SUSPECT, WAITS_TO_RUN_ALONE, RUNS_ALONE = 'suspect', 'waits', 'alone'

-- Return whether an in-progress value is a lease of this owner.
local function is_held_by(value, owner)
  return value and string.find(value, owner .. '|', 1, true) == 1
end

-- Return owner, level, old score, claim time and mark of an in-progress value; nothing if a plain arq worker wrote it.
local function parse_lease(value)
  return string.match(value or '', '^([^|]*)|(%d)|([^|]+)|(%d+)(|?%a*)$')
end

-- Return the score at which a released job waits: its score before the claim, at the head of its level. The job was due
-- when it was claimed, so a score in the future comes from a clock that has gone back since.
local function released_score(old_score)
  return math.min(tonumber(old_score) or now, now)
end

-- Release the lease of a job whose worker has crashed, and make the job a suspect. `reason` says how the worker ended.
-- Return 1 if this counts as a crash of the job, or 0 if the job may not have started.
local function release_after_crash(level, id, value, reason)
  local owner, _, old_score, _, mark = parse_lease(value)
  redis.call('ZADD', level_keys[level], 'XX', format_number(released_score(old_score)), id)
  redis.call('DEL', IN_PROGRESS .. id)
  if not owner then return 1 end
  local has_started = mark ~= AHEAD_MARK and call_or_reset('HGET', META .. id, SUSPECT) ~= WAITS_TO_RUN_ALONE
  call_or_reset('HSET', META .. id, SUSPECT, WAITS_TO_RUN_ALONE)
  if not has_started then return 0 end
  local crashes = increment_field(META .. id, 'crashes')
  redis.call('HSET', META .. id, 'crash:' .. crashes, format_number(now) .. '|' .. owner .. '|' .. reason)
  return 1
end
