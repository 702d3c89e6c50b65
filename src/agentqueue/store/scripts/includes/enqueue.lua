--! include keys clock batches counters dead_letters wakeups
local POLL_MS = 500 -- Workers poll this often. Jobs that are due sooner wake them, so that they set a timer.
local SCORE_STEP = 1 / 4096 -- ms between two jobs of one call, which keeps the order in which they were sent

-- Reserve `count` scores, SCORE_STEP apart and behind the last score of this queue. Return the first one.
local function reserve_scores(queue_name, count)
  local key = queue_name .. ':seq'
  local last = tonumber(redis.call('GET', key) or 0)
  if last > now + 1000 then last = 0 end -- the clock has gone back
  local first = math.max(now, last + SCORE_STEP)
  redis.call('SET', key, format_number(first + (count - 1) * SCORE_STEP))
  return first
end

-- Enqueue jobs to one queue. Return the positions, from 1, of the IDs that are already known; they are not enqueued.
-- jobs: flat {id, level, delay ms, record}*.
-- ids_are_random: the IDs were drawn at random just now, so no result or dead letter can have them.
local function enqueue_jobs(queue_name, jobs, ids_are_random)
  local known, scores, due, count = {}, {{}, {}, {}, {}}, 0, #jobs / 4
  local first_score = reserve_scores(queue_name, count)
  local function add()
    for i = 1, count do
      local id, level, delay_ms, record = unpack(jobs, 4 * i - 3, 4 * i)
      level, delay_ms = tonumber(level), tonumber(delay_ms)
      if (ids_are_random or redis.call('EXISTS', RESULT .. id) == 0) and redis.call('SET', JOB .. id, record, 'NX') then
        local list = scores[level]
        list[#list + 1] = first_score + (i - 1) * SCORE_STEP + delay_ms
        list[#list + 1] = id
        if not ids_are_random then delete_dead_letter(id) end
        if delay_ms < POLL_MS then due = due + 1 end
      else
        known[#known + 1] = i
      end
    end
    for level = 1, 4 do add_scores(queue_name .. LEVEL_SUFFIXES[level], scores[level]) end
  end
  local ok, err = pcall(add)
  if not ok then -- A record without an entry in a level would make the ID known for ever, and the job would never run.
    for level = 1, 4 do
      for i = 2, #scores[level], 2 do
        redis.pcall('ZREM', queue_name .. LEVEL_SUFFIXES[level], scores[level][i])
        redis.call('DEL', JOB .. scores[level][i])
      end
    end
    error(err, 0)
  end
  redis.call('SADD', QUEUES, queue_name)
  increment_counter(queue_name, 'enqueued', count - #known)
  if due > 0 then pcall(wake_workers, queue_name, due) end -- Only a hint: workers also poll.
  return known
end
