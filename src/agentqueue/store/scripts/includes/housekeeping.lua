--! include keys clock batches errors wakeups dead_letters leases arq_expiry suspension lost_children cancellation children schedules
local SWEEP_BATCH = 100 -- entries that each sweep looks at per call
local lacks_times = false -- a schedule needs due times, which scripts can't compute
local PLACE_BATCH = 20 -- entries of a sweep that looks for the place of each job, which takes up to four commands

-- Why a part of the work was skipped, or ''. A key with a wrong type must not stop what can be done without it.
local skipped = ''
local function try(act, ...)
  local ok, err = pcall(act, ...)
  if not ok then skipped = error_text(err) end
end

-- Clear the expiry that arq's clients put on records, 24 hours after the score, so that a record outlives its job.
-- Each call goes on where the last one stopped. A job that only an event wakes has been claimed, which has cleared it.
local function sweep_expiries(batch)
  local level, cursor = string.match(redis.call('GET', sweep_key) or '', '^([1-4])|(%d+)$')
  level, cursor = tonumber(level or 1), cursor or '0'
  local next_cursor, page = unpack(redis.call('ZSCAN', level_keys[level], cursor, 'COUNT', batch))
  for i = 1, math.min(#page, 2 * batch), 2 do
    local id, score = page[i], tonumber(page[i + 1])
    local left_ms = score < NEVER and redis.call('PTTL', JOB .. id) or -1
    if left_ms > 0 then
      local start = score
      if score < 0 then
        local _, _, old_score = parse_lease(get_all(IN_PROGRESS, {id})[1])
        start = old_score or now
      end
      if is_arq_default_expiry(now + left_ms, start) then redis.call('PERSIST', JOB .. id) end
    end
  end
  if next_cursor == '0' then level = level % 4 + 1 end
  redis.call('SET', sweep_key, level .. '|' .. next_cursor)
end

-- Delete completed jobs from the history, and dead letters, whose retention has passed.
local function sweep_retention(history_ms, dead_letters_ms)
  local old = redis.call('ZRANGEBYSCORE', done_key, '-inf', now - history_ms, 'LIMIT', 0, SWEEP_BATCH)
  if #old > 0 then redis.call('ZREM', done_key, unpack(old)) end
  old = redis.call('ZRANGEBYSCORE', dead_key, '-inf', now - dead_letters_ms, 'LIMIT', 0, SWEEP_BATCH)
  for i = 1, #old do
    if delete_dead_letter(old[i]) ~= queue then redis.call('ZREM', dead_key, old[i]) end
  end
end

-- Look at requests to cancel, which all queues share. A waiting job of this queue becomes due, so that the next claim
-- finds the request; a request without a job is deleted. Each call looks at another page, since requests for running
-- jobs stay.
local function sweep_cancel_requests()
  local pages = math.max(1, math.ceil(redis.call('ZCARD', ABORT) / SWEEP_BATCH))
  local first = math.floor(now / 487) % pages * SWEEP_BATCH
  for _, id in ipairs(redis.call('ZRANGE', ABORT, first, first + SWEEP_BATCH - 1)) do
    if redis.call('EXISTS', JOB .. id) == 0 then
      redis.call('ZREM', ABORT, id)
    else
      for level = 1, 4 do
        local score = tonumber(redis.call('ZSCORE', level_keys[level], id) or -1)
        if score > now then
          redis.call('ZADD', level_keys[level], 'XX', 1, id)
          wake_workers(queue, 1)
        end
      end
    end
  end
end

-- Delete workers without a heartbeat, and their drain requests. The sample is random, so that live workers do not hide
-- dead ones. A heartbeat from the future comes from a clock that has gone back since.
local function sweep_workers(stale_ms)
  local sample = redis.call('HRANDFIELD', workers_key, SWEEP_BATCH, 'WITHVALUES')
  for i = 1, #sample, 2 do
    local worker, seen_ms = sample[i], tonumber(string.match(sample[i + 1], '^(%d+)|') or 0)
    if math.abs(now - seen_ms) > stale_ms then
      redis.call('HDEL', workers_key, worker)
      redis.call('HDEL', drain_key, worker)
    end
  end
end

-- Remove jobs from an index of suspended jobs that are not suspended any more, since an older worker has claimed them or
-- another program has moved them. Each call looks at another kind and page.
local function sweep_suspended(kind)
  local key = suspended_key(queue, kind)
  local pages = math.max(1, math.ceil(redis.call('ZCARD', key) / PLACE_BATCH))
  local first = math.floor(now / 1949) % pages * PLACE_BATCH
  local page = redis.call('ZRANGE', key, first, first + PLACE_BATCH - 1, 'WITHSCORES')
  for i = 1, #page, 2 do
    local _, score = find_place(queue, page[i])
    if score ~= tonumber(page[i + 1]) then redis.call('ZREM', key, page[i]) end
  end
end

-- Delete mailboxes of jobs that have ended in a worker that did not know of the signals. The index has jobs that got
-- their first signal while they ran; the next claim of such a job reads that it has a mailbox.
local function sweep_mailboxes()
  local key = queue .. ':mailboxes'
  for _, id in ipairs(redis.call('ZRANGE', key, 0, PLACE_BATCH - 1)) do
    local level, score = find_place(queue, id)
    if not level and redis.call('EXISTS', DEAD .. id) == 0 then redis.call('DEL', SIGNALS .. id) end
    if not level or score >= 0 then redis.call('ZREM', key, id) end
  end
end

-- Enqueue the next ticks of schedules that are not in the queue.
local function sweep_schedules()
  local page = redis.call('HRANDFIELD', queue .. ':schedules', PLACE_BATCH)
  for _, name in ipairs(page) do
    if open_schedule(queue, name).repair() then lacks_times = true end
  end
end

-- Run all sweeps; expiry_batch: jobs whose records are checked for arq's expiry, 0 runs none.
local function sweep(expiry_batch, dead_letters_ms, history_ms, stale_ms)
  if expiry_batch == 0 then return end
  try(sweep_expiries, expiry_batch)
  try(sweep_retention, history_ms, dead_letters_ms)
  try(sweep_cancel_requests)
  try(sweep_workers, stale_ms)
  local keys = {queue .. ':mailboxes', CASCADES, queue .. ':schedules'}
  for _, kind in ipairs(SUSPENSION_KINDS) do keys[#keys + 1] = suspended_key(queue, kind) end
  if redis.call('EXISTS', unpack(keys)) > 0 then -- Jobs that never wait without a slot cost no more than this command.
    try(sweep_suspended, SUSPENSION_KINDS[math.floor(now / 487) % #SUSPENSION_KINDS + 1])
    try(sweep_mailboxes)
    try(sweep_parents)
    try(continue_cascades)
    try(sweep_schedules)
  end
  try(wake_parents)
end
