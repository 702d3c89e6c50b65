--! include keys clock counters suspension enqueue
-- The schedules of a queue. The hash {queue}:schedules has their definitions: name -> JSON, as
-- agentqueue.model.schedule writes it. The hash {queue}:ticks has fields of each schedule:
--   next:{name}     due times of its next ticks in ms, ascending, with commas between. The job of the first one stands in
--                   the queue. Lua has no time zones, so the writer of the schedule computes the next times
--   past:{name}     time up to which no tick will come any more, ms
--   last:{name}     `ID|due|started` of the last tick that a worker has claimed, times in ms
--   end:{name}      `ID|state|ended` of the last tick that has ended
--   held:{name}     note of who has paused the schedule
--   started:{name}, missed:{name}  number of ticks that a worker has claimed, and that were left out
-- and `shift`, the ms by which a test has moved the clock.

-- Return a schedule of a queue, with the operations on its ticks. A schedule that is not there has no ticks.
local function open_schedule(queue_name, name)
  local LATE_MS = 600000 -- as LATE_MS of agentqueue.model.cron_times
  local FEW_AHEAD, ENOUGH_AHEAD_MS = 8, 400 * DAY_MS -- with fewer due times than this, somebody shall compute more
  local schedules_key, ticks_key, schedule = queue_name .. ':schedules', queue_name .. ':ticks', {}
  schedule.text = redis.call('HGET', schedules_key, name) or ''
  local definition = schedule.text ~= '' and cjson.decode(schedule.text)
  local listed, past, held, shift =
    unpack(redis.call('HMGET', ticks_key, 'next:' .. name, 'past:' .. name, 'held:' .. name, 'shift'))
  local shifted_now = now + tonumber(shift or 0)

  local function read_times(text)
    local times = {}
    for ms in string.gmatch(text or '', '%d+') do times[#times + 1] = tonumber(ms) end
    return times
  end
  local times = read_times(listed)

  local function id_of(due) return 'tick:' .. queue_name .. ':' .. name .. ':' .. format_number(due) end

  -- Return whether a job is the tick that stands in the queue and has not started.
  local function is_next(id) return definition and times[1] and id == id_of(times[1]) end

  local function is_off() return not definition or definition.suspend or held end

  local function save()
    local texts = {}
    for i = 1, #times do texts[i] = format_number(times[i]) end
    redis.call('HSET', ticks_key, 'next:' .. name, table.concat(texts, ','))
    if past then redis.call('HSET', ticks_key, 'past:' .. name, past) end
  end

  -- Remove the first `count` due times. After the last one that is known, nothing is missed up to now, since the tick
  -- that runs, or the decision to run none, stands for all.
  local function forget_times(count)
    past = format_number(times[count])
    for _ = 1, count do table.remove(times, 1) end
    if #times == 0 and definition.missed ~= 'all' and tonumber(past) < shifted_now then
      past = format_number(shifted_now)
    end
  end

  -- Enqueue the first tick, and write the due times. A tick whose ID is known already is left out.
  local function place()
    if is_off() then times = {} end
    while times[1] do
      local due, record = format_number(times[1]), definition.record
      local text = record[1] .. due .. record[2] .. due .. record[3]
      local job = {id_of(times[1]), definition.level, times[1] - shifted_now, text}
      if #enqueue_jobs(queue_name, job, false) == 0 then break end
      forget_times(1)
    end
    save()
  end

  local function remove_job(id)
    for level = 1, 4 do redis.call('ZREM', queue_name .. LEVEL_SUFFIXES[level], id) end
    redis.call('DEL', JOB .. id, RETRY .. id, META .. id)
  end

  -- Take the next tick out of the queue, unless a worker holds it that does not know schedules.
  local function remove_next()
    if times[1] and redis.call('EXISTS', IN_PROGRESS .. id_of(times[1])) == 0 then remove_job(id_of(times[1])) end
  end

  local function count_missed(count)
    if count == 0 then return end
    increment_counter(queue_name, 'ticks_missed', count)
    redis.call('HINCRBY', ticks_key, 'missed:' .. name, count)
  end

  -- Return how many of the due times, from the first one on, are missed and shall not run.
  local function find_missed()
    local missed, overdue = 0, 0
    while times[overdue + 1] and times[overdue + 1] <= shifted_now do overdue = overdue + 1 end
    if definition.missed == 'one' then return math.max(overdue - 1, 0) end
    while definition.missed == 'skip' and missed < overdue do
      local due, following = times[missed + 1], times[missed + 2]
      local limit = following and math.min(LATE_MS, (following - due) / 2) or LATE_MS
      if shifted_now - due <= limit then break end
      missed = missed + 1
    end
    return missed
  end

  -- Return whether a tick that a claim has found may start. If it is missed and shall not run, remove it and enqueue
  -- the first one that may. A tick that has started before, or that somebody runs by hand, may start.
  function schedule.may_start(id)
    local missed = is_next(id) and find_missed() or 0
    if missed == 0 then return true end
    remove_job(id)
    count_missed(missed)
    forget_times(missed)
    place()
    return false
  end

  -- Note that a worker has claimed a tick, and enqueue the one after it.
  function schedule.started(id, due)
    if definition then redis.call('HSET', ticks_key, 'last:' .. name, id .. '|' .. due .. '|' .. now_text) end
    if not is_next(id) then return end
    increment_counter(queue_name, 'ticks_started', 1)
    redis.call('HINCRBY', ticks_key, 'started:' .. name, 1)
    forget_times(1)
    place()
  end

  -- Enqueue the tick after one that was removed from the queue before it has started.
  function schedule.removed(id)
    if not is_next(id) then return end
    forget_times(1)
    place()
  end

  -- Enqueue the next tick if it is not in the queue, whatever has removed it. Return whether due times are lacking.
  function schedule.repair()
    if is_off() then return false end
    local id = times[1] and id_of(times[1])
    if id and not find_place(queue_name, id) then
      local has_been = times[1] <= shifted_now or redis.call('EXISTS', RESULT .. id, DEAD .. id) > 0
      if has_been then forget_times(1) else redis.call('DEL', JOB .. id) end
      place()
    end
    local last = times[#times] or 0
    return last <= shifted_now or #times < FEW_AHEAD and last < shifted_now + ENOUGH_AHEAD_MS
  end

  local function replace_times(text)
    times = {}
    for _, due in ipairs(read_times(text)) do
      if due > tonumber(past or 0) then times[#times + 1] = due end
    end
  end

  -- Write the definition. new_times: 'keep' if the due times are the same ones.
  function schedule.define(text, new_times)
    remove_next()
    redis.call('HSET', schedules_key, name, text)
    definition = cjson.decode(text)
    if new_times ~= 'keep' then replace_times(new_times) end
    place()
  end

  -- Remove the schedule. A tick that runs goes on.
  function schedule.remove()
    remove_next()
    redis.call('HDEL', schedules_key, name)
    local fields = {}
    for i, kind in ipairs({'next:', 'past:', 'last:', 'end:', 'held:', 'started:', 'missed:'}) do fields[i] = kind .. name end
    redis.call('HDEL', ticks_key, unpack(fields))
  end

  -- Add due times to those that were known when they were computed; known_until is the last one of them.
  function schedule.extend(known_until, new_times, missed)
    if is_off() or known_until ~= (times[#times] and format_number(times[#times]) or past or '') then return end
    local had_none = #times == 0
    for _, due in ipairs(read_times(new_times)) do times[#times + 1] = due end
    count_missed(missed)
    if had_none then place() else save() end
  end

  -- Pause the schedule: no tick comes any more.
  function schedule.hold(note)
    remove_next()
    redis.call('HSET', ticks_key, 'held:' .. name, note)
    held = note
    place()
  end

  -- End the pause.
  function schedule.release(new_times)
    redis.call('HDEL', ticks_key, 'held:' .. name)
    held = false
    remove_next()
    replace_times(new_times)
    place()
  end

  return schedule
end

-- Return the schedule and the due time of a tick's record; nil if it is no tick's.
local function tick_of(record) return string.match(record or '', '^{"aq":1,"tick":%["([^"]+)",(%d+)%]') end
