--! include keys clock wrong_types
-- A lease has two parts: the job's score in its level is minus the time at which the lease expires, and the job's
-- in-progress key holds `owner|level|score before the claim|claimed at ms`.

-- Return whether an in-progress value is a lease of this owner.
local function is_held_by(value, owner)
  return value and string.sub(value, 1, #owner + 1) == owner .. '|'
end

-- Return owner, level, old score and claim time of an in-progress value; nothing if a plain arq worker wrote it.
local function parse_lease(value)
  return string.match(value or '', '^([^|]*)|(%d)|([^|]+)|(%d+)$')
end

-- Return the score at which a released job waits: its score before the claim, at the head of its level. The job was due
-- when it was claimed, so a score in the future comes from a clock that has gone back since.
local function released_score(old_score)
  return math.min(tonumber(old_score) or now, now)
end

-- Release the lease of a job whose worker has crashed, and count the crash. `reason` says how the worker ended.
local function release_after_crash(level, id, value, reason)
  local owner, _, old_score = parse_lease(value)
  redis.call('ZADD', level_keys[level], 'XX', format_number(released_score(old_score)), id)
  redis.call('DEL', IN_PROGRESS .. id)
  if owner then
    local crashes = increment_field(META .. id, 'crashes')
    redis.call('HSET', META .. id, 'crash:' .. crashes, format_number(now) .. '|' .. owner .. '|' .. reason)
  end
end
