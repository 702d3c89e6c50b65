--! include keys clock batches wrong_types errors wakeups reaper rate_limit outcomes claims
--[[
  Record the outcomes of finished jobs and claim new jobs, in one round trip of a worker.

  Input
    KEYS  the keys of one queue
    ARGV  1      sequence number of the call; a call that is sent again has the same one
          2      owner of the leases
          3      number of jobs to claim at most
          4      lease, ms
          5      credit for claims by age instead of priority, in starts. Each start of this call earns 1, and each claim
                 by age costs 4
          6      how many of these jobs start at once, since slots are free for them
          7      1 if the worker holds no job, so that a suspect (includes/leases.lua) may start alone
          8-10   age limits of the levels high, normal and low, ms
          11-12  rate limit: starts (0: no limit) per window, ms
          13     completed jobs to keep in the history
          14     number of groups of completed jobs without children
          15     number of other outcomes
          16     number of watched IDs
          then   groups: {level, keep ms, number of its jobs, {id, result, run ms}*}*
          then   other outcomes: {kind, number of its arguments, fields}*
                   completed      id, level, result, keep ms, run ms, 1 if it has a journal + 2 if it has a stream,
                                  {queue, id, level, delay ms, record}*
                   rescheduled    id, level, delay ms, {field, value}*
                   dead_lettered  id, level, result, keep ms, fingerprint, dead letter, number of fields that a
                                  replay gives back, {field, value}* of them,
                                  {queue, id, level, delay ms, record}*
                   cancelled      id, level, result, keep ms, 1 if it has a journal + 2 if it has a stream
                   released       id, level, delay ms (-1: where the job stood), {field, value}*
                   suspended      id, level, run ms, number of values that follow, {field, value}*, fields of the journal
                                  with its waits
                   unstarted      id, level
                 The keep time of a result is 0 for no result and -1 for ever.
          then   watched IDs: jobs that the worker runs
          then   {ID, ID of its parent, queue of the parent, JSON}* what jobs that end return to parents that wait for them

  Keys touched
    all keys of the queue; the keys of the jobs; aq:last:{owner}; arq:abort; keys of the queues of children; the jobs of
    ticks that follow those which are claimed, or are left out

  Output
    {IDs of outcomes that were not recorded, since the owner no longer holds these jobs,
     {} if no job was claimed, otherwise
       {{level, number of jobs in a row that have it}*,
        IDs, scores and records of the claimed jobs, a list each,
        {position among these from 1, attempts, meta, 1 if somebody asked to cancel it}, a list for each job with any,
        how many of them were claimed by age; those that went back at once count too},
     watched IDs that somebody asked to cancel,
     1 if the queue is paused,
     ms until the rate limit or a key of a wrong type allows another claim, or -1,
     due time of the next delayed job, or -1,
     server time, ms,
     1 if this call was carried out before, and this is its answer again,
     {key, type}* of keys of jobs that had a wrong type and were deleted,
     why a part of the work was skipped, or ''}

  Keys of a wrong type, which another program has written: a job's is deleted and reported. If it is the record, the job
  is claimed without one, so that it becomes a dead letter. If one of the queue's stops an outcome, the call fails before
  any outcome is recorded, so that it may be sent again. If it stops a claim, what the claim took is released.
]]
local LAST_CALL = 'aq:last:'
local LAST_CALL_KEEP_MS = 3600000
local RETRY_CLAIM_MS = 1000 -- wait after a claim that failed
local MAX_TRIMMED = 200 -- entries that leave the history per call
local MAX_REAPED = 100 -- expired leases that are released per call

local sequence, owner, want, lease_ms, age_credit, free, is_idle = unpack(ARGV, 1, 7)
local high_age_ms, normal_age_ms, low_age_ms = unpack(ARGV, 8, 10)
local max_starts, window_ms, history_count, group_count, other_count, watched_count = unpack(ARGV, 11, 16)
want, lease_ms, age_credit, free = tonumber(want), tonumber(lease_ms), tonumber(age_credit), tonumber(free)
max_starts, window_ms, history_count = tonumber(max_starts), tonumber(window_ms), tonumber(history_count)
watched_count = tonumber(watched_count)
local outcome_ids, outcome_positions, groups, watched_first =
  locate_outcomes(17, tonumber(group_count), tonumber(other_count))
local outcome_count, returns_first = #outcome_ids, watched_first + watched_count

local has_cancel_requests = redis.call('ZCARD', ABORT) > 0

local function claim()
  local limit, retry_after_ms = allowed_starts(want, max_starts, window_ms)
  local max_aged = math.min(math.floor((age_credit + limit - 1) / STARTS_PER_AGED), limit)
  local has_room = max_aged <= 0 or claim_aged(max_aged, {high_age_ms, normal_age_ms, low_age_ms}, lease_ms)
  if has_room then claim_by_priority(limit, lease_ms) end
  if claimed_count() > 0 then
    spread_aged(age_credit)
    local suspect_count = set_suspects_apart(is_idle == '1')
    write_in_progress(owner, free, claimed_count() - suspect_count)
  end
  record_starts(claimed_count(), max_starts, window_ms)
  return retry_after_ms
end

local function find_cancel_requests()
  local found = {}
  for i = watched_first, returns_first - 1, MAX_ARGUMENTS do
    local ids = {unpack(ARGV, i, math.min(i + MAX_ARGUMENTS, returns_first) - 1)}
    local scores = redis.call('ZMSCORE', ABORT, unpack(ids))
    for j = 1, #ids do
      if scores[j] then found[#found + 1] = ids[j] end
    end
  end
  return found
end

local function trim_history()
  local surplus = math.min(redis.call('ZCARD', done_key) - history_count, MAX_TRIMMED)
  if surplus > 0 then redis.call('ZREMRANGEBYRANK', done_key, 0, surplus - 1) end
end

local last_call = redis.pcall('GET', LAST_CALL .. owner) -- {sequence number, lost IDs, claimed IDs}
last_call = type(last_call) == 'string' and cmsgpack.unpack(last_call)
local is_repeated = last_call and last_call[1] == sequence
-- The network held this call back, and the worker has sent it again and gone on over another connection.
local is_outdated = last_call and not is_repeated and tonumber(last_call[1]) > tonumber(sequence)
local is_paused = redis.call('EXISTS', paused_key) == 1
-- An idle worker asks twice a second, so an empty queue takes this one command in place of twelve.
local has_no_jobs = is_idle == '1' and redis.call('EXISTS', unpack(level_keys, 1, 4)) == 0
local lost, retry_after_ms, next_due, skipped = {}, -1, -1, ''
if is_repeated then
  lost = last_call[2]
  reclaim(last_call[3], owner)
elseif is_outdated then
  lost, want, outcome_count = outcome_ids, 0, 0
elseif outcome_count > 0 then
  lost = record_outcomes(outcome_ids, outcome_positions, groups, owner, has_cancel_requests)
  if returns_first <= #ARGV then
    -- It may fail: the outcomes stand, and housekeeping finds children that have ended without a return.
    local ok, err = pcall(return_to_parents, returns_first, lost)
    if not ok then skipped = error_text(err) end
  end
end
if want > 0 and not is_paused and not has_no_jobs then
  local ok, err = pcall(function()
    if not is_repeated then retry_after_ms = claim() end
    if claimed_count() < want then next_due = next_due_time() end
  end)
  if not ok then
    if not is_repeated then release_claimed_behind(0) end
    retry_after_ms, next_due, skipped = RETRY_CLAIM_MS, -1, error_text(err)
  end
end
local claimed_jobs = describe_claimed(has_cancel_requests)
if has_ticks then start_ticks() end
if not is_repeated and (outcome_count > 0 or claimed_count() > 0) then
  redis.call('SET', LAST_CALL .. owner, cmsgpack.pack({sequence, lost, claimed_ids}), 'PX', LAST_CALL_KEEP_MS)
end
local cancelled_ids = has_cancel_requests and find_cancel_requests() or {}

-- Housekeeping comes last and may fail: scripts don't roll back, and the work above must stand.
local has_all = claimed_count() >= want or has_set_apart
local ok, err = pcall(function()
  if want > 0 and has_all and not is_paused then wake_workers(queue, 1) end -- There may be more for another worker.
  if outcome_count > 0 then trim_history() end
  if not has_all and not has_no_jobs then reap_expired_leases(MAX_REAPED) end
end)
if not ok then skipped = error_text(err) end
return {
  lost, claimed_jobs, cancelled_ids, is_paused and 1 or 0, retry_after_ms, next_due, now, is_repeated and 1 or 0,
  wrong_type_keys, ticks_problem ~= '' and ticks_problem or skipped,
}
