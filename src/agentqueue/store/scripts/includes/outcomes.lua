--! include keys clock batches wrong_types counters wakeups dead_letters enqueue leases journal suspension children cancellation streams
-- Outcomes of jobs, as the arguments of finish_and_claim.lua list them. An outcome is a run of arguments: its kind, the
-- number of its arguments, and its fields, of which the first two are the job's ID and level. Completed jobs without
-- children, the most frequent outcome, share their level and keep time in groups.

local args = ARGV -- a local name, since every job reads several of them

-- Decode where outcomes stand.
-- Returns
--   ids        IDs of the jobs
--   positions  of their outcomes in ARGV; for a job of a group, of its ID
--   groups     {level, keep ms, index in `ids` of its first job, of its last job} of each group
--   position behind the last outcome
local function locate_outcomes(first, group_count, count)
  local ids, positions, groups, position = {}, {}, {}, first
  for i = 1, group_count do
    local index_of_last = #ids + tonumber(args[position + 2])
    groups[i] = {tonumber(args[position]), tonumber(args[position + 1]), #ids + 1, index_of_last}
    position = position + 3
    for index = #ids + 1, index_of_last do
      ids[index], positions[index] = args[position], position
      position = position + 3
    end
  end
  for index = #ids + 1, #ids + count do
    ids[index], positions[index] = args[position + 2], position
    position = position + tonumber(args[position + 1])
  end
  return ids, positions, groups, position
end

local function enqueue_children(first, last)
  for i = first, last, 5 do enqueue_jobs(args[i], {unpack(args, i + 1, i + 4)}, false) end
end

-- Give what jobs have returned to the parents that wait for them, and wake these. A job whose outcome was lost returns
-- nothing. Call it after all outcomes are recorded: one of them may have suspended or ended the parent.
-- first: position of the first of {ID, ID of the parent, queue of the parent, what it returns}*
local function return_to_parents(first, lost)
  local is_lost = {}
  for i = 1, #lost do is_lost[lost[i]] = true end
  for i = first, #args, 4 do
    if not is_lost[args[i]] then return_to_parent(args[i + 1], args[i + 2], args[i], args[i + 3]) end
  end
  wake_parents()
end

-- Record the outcomes of jobs that the owner still holds. Return the IDs of the others.
-- ids, positions: the jobs' IDs, and where their outcomes start in ARGV.
-- The order of writes matters, since a script does not roll back: first the writes that a key of a wrong type may fail
-- and that may be repeated; last the writes by which a job stops to be held and known.
local function record_outcomes(ids, positions, groups, owner, has_cancel_requests)
  local lost, counters = {}, {}
  local final_ids, final_count, completed, removed, released, notes = {}, 0, {}, {{}, {}, {}, {}}, {}, {}
  local with_journal, cancelled = {}, {} -- IDs of final jobs with a journal, and of those that were cancelled
  local streams = {} -- {ID, state, keep ms} of final jobs with a stream
  local results = {} -- by keep time: flat {key, result}*
  local unstarted = 0

  local function add_to_counter(counter, by) counters[counter] = (counters[counter] or 0) + by end

  local function results_kept_for(keep_ms)
    results[keep_ms] = results[keep_ms] or {}
    return results[keep_ms]
  end

  -- Remove a job that is final, and keep its result.
  local function finish(id, level, result, keep_ms)
    final_count = final_count + 1
    final_ids[final_count] = id
    local list, kept = removed[level], results_kept_for(keep_ms)
    list[#list + 1] = id
    kept[#kept + 1] = RESULT .. id
    kept[#kept + 1] = result
  end

  -- Note what a final job leaves behind. flags: 1 for a journal, 2 for a stream, 3 for both, 0 for neither.
  local function note_keys(id, flags, state, keep_ms)
    if flags == '1' or flags == '3' then with_journal[#with_journal + 1] = id end
    if flags == '2' or flags == '3' then streams[#streams + 1] = {id, state, tonumber(keep_ms)} end
  end

  -- Record the completed jobs of a group, of which each has the arguments {id, result, run ms}. This is `finish` for each
  -- of them, with its counts in variables, since `#` searches a list for its end.
  local function record_group(leases, level, keep_ms, first, last)
    local list, kept, mine = removed[level], results_kept_for(keep_ms), owner .. '|'
    local count, run_ms, list_size, kept_size, completed_size = 0, 0, #list, #kept, #completed
    for i = first, last do
      if string.find(leases[i] or '', mine, 1, true) == 1 then
        local id, position = ids[i], positions[i]
        count, run_ms = count + 1, run_ms + tonumber(args[position + 2])
        final_ids[final_count + count], list[list_size + count] = id, id
        kept[kept_size + 2 * count - 1], kept[kept_size + 2 * count] = RESULT .. id, args[position + 1]
        completed[completed_size + 2 * count - 1], completed[completed_size + 2 * count] = now_text, id
      else
        lost[#lost + 1] = ids[i]
      end
    end
    final_count = final_count + count
    add_to_counter('completed', count)
    add_to_counter('run_ms', run_ms)
  end

  -- One function for each kind of outcome. first, last: positions of its first and its last field.
  local record = {}

  -- id, level, result, keep ms, run ms, flags (see note_keys), {queue, id, level, delay ms, record}* of its children
  function record.completed(first, last)
    completed[#completed + 1] = now_text
    completed[#completed + 1] = args[first]
    finish(args[first], tonumber(args[first + 1]), args[first + 2], tonumber(args[first + 3]))
    add_to_counter('completed', 1)
    add_to_counter('run_ms', tonumber(args[first + 4]))
    note_keys(args[first], args[first + 5], 'completed', args[first + 3])
    enqueue_children(first + 6, last)
  end

  -- id, level, result, keep ms, flags (see note_keys)
  function record.cancelled(first)
    finish(args[first], tonumber(args[first + 1]), args[first + 2], tonumber(args[first + 3]))
    note_keys(args[first], args[first + 4], 'cancelled', args[first + 3])
    if with_journal[#with_journal] == args[first] then cancelled[#cancelled + 1] = args[first] end
    add_to_counter('cancelled', 1)
  end

  -- id, level, delay ms, {field, value}* for the job's meta hash
  function record.rescheduled(first, last)
    local id, level, delay_ms = args[first], tonumber(args[first + 1]), tonumber(args[first + 2])
    redis.call('ZADD', level_keys[level], now + delay_ms, id)
    released[#released + 1] = IN_PROGRESS .. id
    notes[#notes + 1] = function()
      if type(redis.pcall('INCR', RETRY .. id)) ~= 'number' then redis.call('SET', RETRY .. id, 1) end
      call_or_reset('HSET', META .. id, 'touched', format_number(now), unpack(args, first + 3, last))
    end
    add_to_counter('retried', 1)
  end

  -- id, level, delay ms (-1: the job waits where it stood), {field, value}* for the job's meta hash
  function record.released(first, last, lease)
    local id, level, delay_ms = args[first], tonumber(args[first + 1]), tonumber(args[first + 2])
    local _, _, old_score = parse_lease(lease)
    local score = delay_ms >= 0 and now + delay_ms or released_score(old_score)
    redis.call('ZADD', level_keys[level], score, id)
    released[#released + 1] = IN_PROGRESS .. id
    notes[#notes + 1] = function()
      increment_field(META .. id, 'releases')
      if last >= first + 3 then redis.call('HSET', META .. id, unpack(args, first + 3, last)) end
      if delay_ms <= 0 then pcall(wake_workers, queue, 1) end
    end
    add_to_counter('released', 1)
  end

  -- id, level, run ms, number of values for the job's meta hash, {field, value}*, fields of its journal with its waits
  function record.suspended(first, last, lease)
    local id, level = args[first], tonumber(args[first + 1])
    local waits_first = first + 4 + tonumber(args[first + 3])
    local fields = {unpack(args, waits_first, last)}
    suspend_job(id, level, lease, fields)
    released[#released + 1] = IN_PROGRESS .. id
    notes[#notes + 1] = function()
      increment_field(META .. id, 'suspensions')
      redis.call('HDEL', META .. id, SUSPECT) -- it has left its slot by itself
      if waits_first > first + 4 then redis.call('HSET', META .. id, unpack(args, first + 4, waits_first - 1)) end
      wake_if_answered(id, level, fields, has_cancel_requests)
    end
    add_to_counter('suspended', 1)
    add_to_counter('run_ms', tonumber(args[first + 2]))
  end

  -- id, level. The worker has claimed the job and never started it, so nothing is counted.
  function record.unstarted(first, _, lease)
    local id, level = args[first], tonumber(args[first + 1])
    local _, _, old_score = parse_lease(lease)
    redis.call('ZADD', level_keys[level], released_score(old_score), id)
    released[#released + 1] = IN_PROGRESS .. id
    unstarted = unstarted + 1
  end

  -- id, level, result, keep ms, fingerprint, dead letter, number of fields that a replay gives back, {field, value}* of
  -- them, {queue, id, level, delay ms, record}* of its children
  function record.dead_lettered(first, last)
    local id, level, fingerprint, dead_letter = args[first], args[first + 1], args[first + 4], args[first + 5]
    local job_record = redis.pcall('GET', JOB .. id)
    local children_first = first + 7 + 2 * tonumber(args[first + 6])
    delete_dead_letter(id, true)
    if children_first > first + 7 then redis.call('HSET', DEAD .. id, unpack(args, first + 7, children_first - 1)) end
    redis.call('HSET', DEAD .. id, 'dead_letter', dead_letter, 'queue', queue, 'level', level, 'fp', fingerprint)
    if type(job_record) == 'string' then redis.call('HSET', DEAD .. id, 'record', job_record) end
    -- The worker does not know of a mailbox that came while the job ran, and a replay deletes one without this note.
    local has_journal, has_stream = unpack(call_or_reset('HMGET', META .. id, 'journal', 'stream'))
    if has_journal then redis.call('HSET', DEAD .. id, 'journal', 1) end
    if has_stream then note_keys(id, '2', 'dead', args[first + 3]) end
    redis.call('ZADD', dead_key, now, id)
    redis.call('HINCRBY', dead_key .. ':fp', fingerprint, 1)
    call_or_reset('ZADD', dead_key .. ':fp:' .. fingerprint, now, id)
    finish(id, tonumber(level), args[first + 2], tonumber(args[first + 3]))
    add_to_counter('dead', 1)
    enqueue_children(children_first, last)
  end

  local leases = get_all(IN_PROGRESS, ids)
  local grouped = 0 -- number of jobs in groups
  for _, group in ipairs(groups) do
    record_group(leases, unpack(group))
    grouped = group[4]
  end
  for i = grouped + 1, #ids do
    if is_held_by(leases[i], owner) then
      local position = positions[i]
      local kind, size = args[position], tonumber(args[position + 1])
      record[kind](position + 2, position + size - 1, leases[i])
    else
      lost[#lost + 1] = ids[i]
    end
  end
  add_scores(done_key, completed)
  if has_cancel_requests then for_each_batch(final_ids, function(...) redis.call('ZREM', ABORT, ...) end) end
  add_to_counter('lost', #lost)
  for counter, by in pairs(counters) do increment_counter(queue, counter, by) end
  for keep_ms, kept in pairs(results) do set_all(kept, keep_ms) end
  -- A level whose key has got a wrong type has none of these jobs. If it comes back, a claim finds that they are final.
  for level = 1, 4 do
    for_each_batch(removed[level], function(...) redis.pcall('ZREM', level_keys[level], ...) end)
  end
  for_each_batch(released, function(...) redis.call('DEL', ...) end)
  for_each_batch(keys_of({IN_PROGRESS, JOB, RETRY, META}, final_ids), function(...) redis.call('DEL', ...) end)
  for i = 1, #cancelled do begin_cascade(cancelled[i]) end
  for i = 1, #with_journal do delete_journal(with_journal[i]) end
  for i = 1, #streams do end_stream(unpack(streams[i])) end
  for i = 1, #notes do notes[i]() end
  if #cancelled > 0 then pcall(continue_cascades) end
  if unstarted > 0 then pcall(wake_workers, queue, unstarted) end
  return lost
end
