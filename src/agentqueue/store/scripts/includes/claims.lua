--! include keys clock batches wrong_types errors dead_letters leases arq_expiry suspension schedules
local MAX_CLAIMED_BYTES = 4194304 -- 4 MiB of records; at least one job is claimed
local CLAIM_BATCH = 64 -- jobs looked at per read of a level
local MAX_CLAIM_BATCHES = 20 -- per level and call, bounds the time for a level full of jobs that can't be claimed

local OWN_RECORD = '{"aq":1,' -- the beginning of a record that AgentQueue wrote

local STARTS_PER_AGED = 4 -- each claim by age costs the credit of this many starts

-- The jobs that this call claims: lists with the same index, since the reply takes them as they are. A record may be false.
local claimed_ids, claimed_levels, claimed_scores, claimed_records = {}, {}, {}, {}
local claimed_bytes = 0
local aged_count = 0 -- the first of them were claimed by age
local has_set_apart = false -- a suspect among them has made the call release others
local has_foreign_records = false -- plain arq clients wrote some of their records, or somebody has deleted them
local TICK_MARK = 105 -- byte 11 of the record of a schedule's tick, the `i` of {"aq":1,"tick":
local has_ticks, ticks_problem = false, '' -- a tick was found; why its schedule could not be read

local function claimed_count() return #claimed_ids end

-- Replace the claimed jobs by those at these positions.
local function reorder_claimed(positions)
  local ids, levels, scores, records = {}, {}, {}, {}
  for i = 1, #positions do
    local from = positions[i]
    ids[i], levels[i] = claimed_ids[from], claimed_levels[from]
    scores[i], records[i] = claimed_scores[from], claimed_records[from]
  end
  claimed_ids, claimed_levels, claimed_scores, claimed_records = ids, levels, scores, records
end

-- Return whether any claimed job has more than its record: attempts, notes or a dead letter.
local claim_has_details
local function has_details()
  if claim_has_details == nil then claim_has_details = any_exists({RETRY, META, DEAD}, claimed_ids) end
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

-- Return whether a due tick may start, or its schedule leaves it out. If the schedule can't be read, it starts.
local function may_start_tick(id, record)
  local name = tick_of(record)
  if not name then return true end
  has_ticks = true
  local ok, may_start = pcall(function() return open_schedule(queue, name).may_start(id) end)
  if not ok then ticks_problem = error_text(may_start) end
  return not ok or may_start
end

-- Let the schedules of the claimed ticks enqueue their next ones.
local function start_ticks()
  for i = 1, claimed_count() do
    local name, due = tick_of(claimed_records[i])
    local ok, err = pcall(function() if name then open_schedule(queue, name).started(claimed_ids[i], due) end end)
    if not ok then ticks_problem = error_text(err) end
  end
end

-- Claim those of the candidates, flat {id, score}*, that may be claimed. Return false at the limit of bytes.
-- `write_in_progress` completes the claim. Counts stand in variables, since `#` searches a list for its end.
local function claim_candidates(level, candidates, lease_ms)
  local ids, expiry = {}, format_number(-(now + lease_ms))
  for i = 1, #candidates / 2 do ids[i] = candidates[2 * i - 1] end
  local leases, records = get_all(IN_PROGRESS, ids), get_all(JOB, ids)
  local first, count, lease_scores, has_room = claimed_count(), claimed_count(), {}, true
  for i = 1, #ids do
    local id, record = ids[i], records[i]
    if ((record and not leases[i]) or is_claimable(level, id, leases[i], record, lease_ms))
      and (not record or string.byte(record, 11) ~= TICK_MARK or may_start_tick(id, record)) then
      if not record or string.find(record, OWN_RECORD, 1, true) ~= 1 then has_foreign_records = true end
      local size = record and #record or 0
      if claimed_bytes > 0 and claimed_bytes + size > MAX_CLAIMED_BYTES then
        has_room = false
        break
      end
      claimed_bytes, count = claimed_bytes + size, count + 1
      claimed_ids[count], claimed_levels[count], claimed_records[count] = id, level, record
      claimed_scores[count] = candidates[2 * i]
      lease_scores[2 * (count - first) - 1], lease_scores[2 * (count - first)] = expiry, id
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
  local positions, next_aged, next_other = {}, 1, aged_count + 1
  for i = 1, claimed_count() do
    local is_due = next_aged <= aged_count and i - 1 + credit >= STARTS_PER_AGED * next_aged
    positions[i] = (is_due or next_other > claimed_count()) and next_aged or next_other
    if positions[i] == next_aged then next_aged = next_aged + 1 else next_other = next_other + 1 end
  end
  reorder_claimed(positions)
end

-- Release the claimed jobs behind that position. They did not start, so nothing is counted.
local function release_claimed_behind(position)
  for i = claimed_count(), position + 1, -1 do
    redis.call('ZADD', level_keys[claimed_levels[i]], 'XX', claimed_scores[i], claimed_ids[i])
    redis.call('DEL', IN_PROGRESS .. claimed_ids[i])
    claimed_ids[i], claimed_levels[i], claimed_scores[i], claimed_records[i] = nil, nil, nil, nil
  end
end

-- Keep suspects apart, each of which runs alone. A worker without a job takes the first suspect and nothing else. Any
-- other worker takes the first one beside its other jobs, and lets them end before it starts the suspect. It stands behind
-- those that were claimed with it. The rest goes back. Return the number of suspects, 0 or 1.
local function set_suspects_apart(is_idle)
  if claimed_count() == 0 or not has_details() or not any_exists({META}, claimed_ids) then return 0 end
  local others, suspects = {}, {} -- positions
  for i = 1, claimed_count() do
    local status = call_or_reset('HGET', META .. claimed_ids[i], SUSPECT)
    local list = (status == WAITS_TO_RUN_ALONE or status == RUNS_ALONE) and suspects or others
    list[#list + 1] = i
  end
  if #suspects == 0 then return 0 end
  redis.call('HSET', META .. claimed_ids[suspects[1]], SUSPECT, is_idle and RUNS_ALONE or WAITS_TO_RUN_ALONE)
  local kept_count = is_idle and 1 or #others + 1
  local positions, rest = is_idle and suspects or others, is_idle and others or suspects
  for i = 1, #rest do positions[#positions + 1] = rest[i] end
  reorder_claimed(positions)
  has_set_apart = claimed_count() > kept_count
  release_claimed_behind(kept_count)
  return 1
end

-- Write the in-progress keys of the claimed jobs. The worker has `free` slots for them. Those behind are marked, up to the
-- position `last_marked`: a suspect has its own mark in its meta hash. The first renewal gives the keys their expiry, since
-- most jobs end before it, and one MSET writes the keys of a whole call (docs/decisions/0016).
local function write_in_progress(owner, free, last_marked)
  local values, beginnings, ending, marked_ending = {}, {}, '|' .. now_text, '|' .. now_text .. AHEAD_MARK
  for level = 1, 4 do beginnings[level] = owner .. '|' .. level .. '|' end
  for i = 1, claimed_count() do
    values[2 * i - 1] = IN_PROGRESS .. claimed_ids[i]
    values[2 * i] = beginnings[claimed_levels[i]] .. claimed_scores[i]
      .. ((i > free and i <= last_marked) and marked_ending or ending)
  end
  for_each_batch(values, function(...) redis.call('MSET', ...) end)
end

-- Claim again what an earlier call has claimed and the owner still holds; nothing is written.
local function reclaim(ids, owner)
  local leases, records = get_all(IN_PROGRESS, ids), get_all(JOB, ids)
  has_foreign_records = true -- they may be
  for i = 1, #ids do
    if is_held_by(leases[i], owner) then
      local _, level, old_score = parse_lease(leases[i])
      local count = claimed_count() + 1
      claimed_ids[count], claimed_levels[count] = ids[i], tonumber(level)
      claimed_scores[count], claimed_records[count] = old_score, records[i]
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

-- Return the levels of the claimed jobs as {level, number of jobs in a row that have it}*.
local function runs_of_levels()
  local runs, current, first = {}, claimed_levels[1], 1
  for i = 2, claimed_count() + 1 do
    if claimed_levels[i] ~= current then
      runs[#runs + 1], runs[#runs + 2] = current, i - first
      current, first = claimed_levels[i], i
    end
  end
  return runs
end

-- Return what the worker needs of a claimed job besides its record, as finish_and_claim.lua lists it; nil for most jobs.
local function details_of(position, attempts, has_meta, cancel_score)
  local id, record = claimed_ids[position], claimed_records[position]
  local meta = false
  local is_foreign = record and string.find(record, OWN_RECORD, 1, true) ~= 1
  if is_foreign then keep_record(id, claimed_scores[position]) end
  if is_foreign or has_meta then meta = call_or_reset('HGETALL', META .. id) end
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
  if attempts or cancel_score or meta and #meta > 0 then
    return {position, attempts or false, meta, cancel_score and 1 or 0}
  end
end

-- Return what the worker needs of the claimed jobs, as finish_and_claim.lua lists it.
local function describe_claimed(has_cancel_requests)
  local count = claimed_count()
  if count == 0 then return {} end
  local attempts, details, has_meta = {}, {}, false
  if has_details() then
    attempts, has_meta = get_all(RETRY, claimed_ids), any_exists({META}, claimed_ids)
    if any_exists({DEAD}, claimed_ids) then
      for i = 1, count do
        if claimed_records[i] then delete_dead_letter(claimed_ids[i]) end
      end
    end
  end
  local cancel_scores = has_cancel_requests and redis.call('ZMSCORE', ABORT, unpack(claimed_ids)) or {}
  if has_details() or has_cancel_requests or has_foreign_records then
    for i = 1, count do details[#details + 1] = details_of(i, attempts[i], has_meta, cancel_scores[i]) end
  end
  return {runs_of_levels(), claimed_ids, claimed_scores, claimed_records, details, aged_count}
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
