--! include keys clock batches wrong_types dead_letters leases arq_expiry suspension
local MAX_CLAIMED_BYTES = 4194304 -- 4 MiB of records; at least one job is claimed
local CLAIM_BATCH = 64 -- jobs looked at per read of a level
local MAX_CLAIM_BATCHES = 20 -- per level and call, bounds the time for a level full of jobs that can't be claimed

local STARTS_PER_AGED = 4 -- each claim by age costs the credit of this many starts

-- The jobs that this call claims: flat {id, level, score, record or false}*.
local claimed, claimed_bytes = {}, 0
local aged_count = 0 -- the first of them were claimed by age
local has_set_apart = false -- a suspect among them has made the call release others

local function claimed_count() return #claimed / 4 end

local function claimed_ids()
  local ids = {}
  for i = 1, #claimed, 4 do ids[#ids + 1] = claimed[i] end
  return ids
end

-- Return whether any claimed job has more than its record: attempts, notes or a dead letter.
local claim_has_details
local function has_details(ids)
  if claim_has_details == nil then claim_has_details = any_exists({RETRY, META, DEAD}, ids) end
  return claim_has_details
end

local function find_jobs(level, min, max, limit)
  return redis.call('ZRANGEBYSCORE', level_keys[level], min, max, 'WITHSCORES', 'LIMIT', 0, limit)
end

-- Return whether a due job may be claimed. If not, correct its entry in the level: a job that somebody holds gets the
-- score of a lease, a job that is final is removed.
local function is_claimable(level, id, lease, record, lease_ms)
  if lease then
    local held_ms = parse_lease(lease) and lease_ms or math.max(redis.call('PTTL', IN_PROGRESS .. id), 1000)
    redis.call('ZADD', level_keys[level], 'XX', -(now + held_ms), id)
    return false
  end
  if not record and (redis.call('EXISTS', RESULT .. id) > 0 or call_or_reset('HEXISTS', DEAD .. id, 'queue') == 1
    or redis.call('ZSCORE', done_key, id)) then
    redis.call('ZREM', level_keys[level], id)
    return false
  end
  return true
end

-- Claim those of the candidates, flat {id, score}*, that may be claimed. Return false at the limit of bytes.
-- `write_in_progress` completes the claim.
local function claim_candidates(level, candidates, lease_ms)
  local ids = {}
  for i = 1, #candidates, 2 do ids[#ids + 1] = candidates[i] end
  local leases, records = get_all(IN_PROGRESS, ids), get_all(JOB, ids)
  local lease_scores, expiry = {}, format_number(-(now + lease_ms))
  local has_room = true
  for i = 1, #ids do
    local id, record = ids[i], records[i]
    if is_claimable(level, id, leases[i], record, lease_ms) then
      local size = record and #record or 0
      if claimed_bytes > 0 and claimed_bytes + size > MAX_CLAIMED_BYTES then
        has_room = false
        break
      end
      claimed_bytes = claimed_bytes + size
      local score = candidates[2 * i]
      lease_scores[#lease_scores + 1] = expiry
      lease_scores[#lease_scores + 1] = id
      claimed[#claimed + 1] = id
      claimed[#claimed + 1] = level
      claimed[#claimed + 1] = score
      claimed[#claimed + 1] = record
    end
  end
  add_scores(level_keys[level], lease_scores, 'XX')
  return has_room
end

-- Claim up to `limit` jobs that have waited longer than the age limit of their level, the longest waiting first,
-- whatever their priority. Without it, jobs of a low level could wait for ever. Return false at the limit of bytes.
-- age_limits_ms: of the levels high, normal and low.
local function claim_aged(limit, age_limits_ms, lease_ms)
  local aged = {}
  for level = 2, 4 do
    local found = find_jobs(level, MIN_TIMESTAMP, '(' .. format_number(now - tonumber(age_limits_ms[level - 1])), limit)
    for i = 1, #found, 2 do aged[#aged + 1] = {level = level, id = found[i], score = found[i + 1]} end
  end
  table.sort(aged, function(a, b) return tonumber(a.score) < tonumber(b.score) end)
  for i = 1, math.min(limit, #aged) do
    local has_room = claim_candidates(aged[i].level, {aged[i].id, aged[i].score}, lease_ms)
    aged_count = claimed_count()
    if not has_room then return false end
  end
  return true
end

-- Claim up to `limit` due jobs in the order of their levels.
local function claim_by_priority(limit, lease_ms)
  local until_now = '(' .. format_number(now + 1)
  for level = 1, 4 do
    local batches = 0
    while claimed_count() < limit and batches < MAX_CLAIM_BATCHES do
      local size = math.min(CLAIM_BATCH, limit - claimed_count())
      local found = find_jobs(level, 0, until_now, size)
      if #found == 0 then break end
      if not claim_candidates(level, found, lease_ms) then return end
      batches = batches + 1
    end
  end
end

-- Put the jobs that were claimed by age between the others, each behind the starts that earn its credit.
local function spread_aged(credit)
  if aged_count == 0 or aged_count == claimed_count() then return end
  local spread, next_aged, next_other = {}, 1, aged_count + 1
  for i = 1, claimed_count() do
    local is_due = next_aged <= aged_count and i - 1 + credit >= STARTS_PER_AGED * next_aged
    local from = (is_due or next_other > claimed_count()) and next_aged or next_other
    if from == next_aged then next_aged = next_aged + 1 else next_other = next_other + 1 end
    for field = 3, 0, -1 do spread[4 * i - field] = claimed[4 * from - field] end
  end
  claimed = spread
end

-- Release the claimed jobs from that position in `claimed` on. They did not start, so nothing is counted.
local function release_claimed_from(first)
  for i = first, #claimed, 4 do
    local id, level, score = unpack(claimed, i, i + 2)
    redis.call('ZADD', level_keys[level], 'XX', score, id)
    redis.call('DEL', IN_PROGRESS .. id)
  end
  for i = #claimed, first, -1 do claimed[i] = nil end
end

-- Keep suspects apart, each of which runs alone. A worker without a job takes the first suspect and nothing else. Any
-- other worker takes the first one beside its other jobs, and lets them end before it starts the suspect. It stands behind
-- those that were claimed with it. The rest goes back. Return the number of suspects, 0 or 1.
local function set_suspects_apart(is_idle)
  local ids = claimed_ids()
  if #ids == 0 or not has_details(ids) or not any_exists({META}, ids) then return 0 end
  local kept, suspects = {}, {}
  for i = 1, #ids do
    local status = call_or_reset('HGET', META .. ids[i], SUSPECT)
    local list = (status == WAITS_TO_RUN_ALONE or status == RUNS_ALONE) and suspects or kept
    for field = 3, 0, -1 do list[#list + 1] = claimed[4 * i - field] end
  end
  if #suspects == 0 then return 0 end
  redis.call('HSET', META .. suspects[1], SUSPECT, is_idle and RUNS_ALONE or WAITS_TO_RUN_ALONE)
  local first, rest = is_idle and suspects or kept, is_idle and kept or suspects
  claimed = {}
  for i = 1, #first do claimed[i] = first[i] end
  for i = 1, #rest do claimed[#claimed + 1] = rest[i] end
  local kept_count = is_idle and 1 or #kept / 4 + 1
  has_set_apart = claimed_count() > kept_count
  release_claimed_from(4 * kept_count + 1)
  return 1
end

-- Write the in-progress keys of the claimed jobs. The worker has `free` slots for them. Those behind are marked, up to the
-- position `last_marked`: a suspect has its own mark in its meta hash.
local function write_in_progress(owner, free, last_marked)
  local values = {}
  for i = 1, claimed_count() do
    local id, level, score = unpack(claimed, 4 * i - 3, 4 * i - 1)
    values[2 * i - 1] = IN_PROGRESS .. id
    values[2 * i] = owner .. '|' .. level .. '|' .. score .. '|' .. now_text .. (i > free and i <= last_marked and AHEAD_MARK or '')
  end
  set_all(values, DAY_MS)
end

-- Claim again what an earlier call has claimed and the owner still holds; nothing is written.
local function reclaim(ids, owner)
  local leases, records = get_all(IN_PROGRESS, ids), get_all(JOB, ids)
  for i = 1, #ids do
    local _, level, old_score = parse_lease(leases[i])
    if is_held_by(leases[i], owner) then
      claimed[#claimed + 1] = ids[i]
      claimed[#claimed + 1] = tonumber(level)
      claimed[#claimed + 1] = old_score
      claimed[#claimed + 1] = records[i]
    end
  end
end


-- Let the record of a plain arq client outlive its expiry, since an expired job becomes a dead letter. arq's default
-- expiry is dropped; one that the user has chosen is kept in the job's meta hash.
local function keep_record(id, score)
  local left_ms = redis.call('PTTL', JOB .. id)
  if left_ms < 0 then return end
  redis.call('PERSIST', JOB .. id)
  if not is_arq_default_expiry(now + left_ms, score) then
    call_or_reset('HSET', META .. id, 'expires', format_number(now + left_ms))
  end
end

-- Return what the worker needs of the claimed jobs, as finish_and_claim.lua lists it.
local function describe_claimed(has_cancel_requests)
  local count = claimed_count()
  if count == 0 then return {} end
  local levels, jobs, details, ids = {}, {}, {}, claimed_ids()
  local attempts, has_meta, has_dead_letters = {}, false, false
  if has_details(ids) then
    attempts, has_meta, has_dead_letters = get_all(RETRY, ids), any_exists({META}, ids), any_exists({DEAD}, ids)
  end
  local cancel_scores = has_cancel_requests and redis.call('ZMSCORE', ABORT, unpack(ids)) or {}
  for i = 1, count do
    local at = 4 * i
    local id, level, score, record = ids[i], claimed[at - 2], claimed[at - 1], claimed[at]
    local meta = false
    if record and string.sub(record, 1, 8) ~= '{"aq":1,' then
      keep_record(id, score)
      meta = call_or_reset('HGETALL', META .. id)
    elseif has_meta then
      meta = call_or_reset('HGETALL', META .. id)
    end
    if not record then
      local kind = redis.call('TYPE', JOB .. id).ok
      if kind ~= 'none' then
        meta = meta or {}
        meta[#meta + 1] = 'wrong_type'
        meta[#meta + 1] = kind
      end
    end
    for field = 1, meta and #meta or 0, 2 do
      if meta[field] == 'suspended' then forget_suspension(queue, id) end
    end
    if has_dead_letters and record then delete_dead_letter(id) end
    jobs[3 * i - 2], jobs[3 * i - 1], jobs[3 * i] = id, score, record
    if levels[#levels - 1] == level then
      levels[#levels] = levels[#levels] + 1
    else
      levels[#levels + 1] = level
      levels[#levels + 1] = 1
    end
    if attempts[i] or cancel_scores[i] or meta and #meta > 0 then
      details[#details + 1] = {i, attempts[i] or false, meta, cancel_scores[i] and 1 or 0}
    end
  end
  return {levels, jobs, details, aged_count}
end

-- Return when the next delayed job is due, in ms since the epoch; -1 if none will be.
local function next_due_time()
  local first, after_now, until_never = -1, format_number(now + 1), '(' .. format_number(NEVER)
  for level = 1, 4 do
    local found = find_jobs(level, after_now, until_never, 1)
    if found[2] and (first < 0 or tonumber(found[2]) < first) then first = tonumber(found[2]) end
  end
  return math.ceil(first)
end
