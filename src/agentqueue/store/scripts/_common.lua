-- Shared by every script. KEYS are always one queue's, in the order of agentqueue.store.scripts.queue_keys:
-- 1-4 levels (urgent, high, normal, low), 5 dead, 6 done, 7 paused, 8 limit, 9 wake, 10 stats, 11 workers, 12 reaped,
-- 13 seq, 14 sweep, 15 drain. Keys per job are composed here, as arq composes them.
local JOB, HELD, RETRY, RESULT = 'arq:job:', 'arq:in-progress:', 'arq:retry:', 'arq:result:'
local META, DEAD, LAST, ABORT, QUEUES = 'aq:meta:', 'aq:dead:', 'aq:last:', 'arq:abort', 'aq:queues'
local SUFFIX = {':urgent', ':high', '', ':low'}
local DAY = 86400000
local POLL = 500 -- workers look this often by themselves: jobs due sooner wake them, so that they set a timer
local OLDEST = 1e12 -- ages ignore smaller scores: arq's abort() writes 1
local QUEUE = KEYS[3]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Lua's own tostring keeps 14 digits only; scores have more.
local function text(number) return string.format('%.17g', number) end

local function each_chunk(list, size, act)
  for i = 1, #list, size do act(unpack(list, i, math.min(i + size - 1, #list))) end
end

-- MGET of any length (unpack over ~8,000 values fails, after earlier writes have happened).
local function mget(prefix, ids)
  local out = {}
  for i = 1, #ids, 500 do
    local keys = {}
    for j = i, math.min(i + 499, #ids) do keys[#keys + 1] = prefix .. ids[j] end
    local values = redis.call('MGET', unpack(keys))
    for j = 1, #keys do out[i + j - 1] = values[j] end
  end
  return out
end

local function any_exists(prefix, ids)
  local keys = {}
  for i = 1, #ids do keys[i] = prefix .. ids[i] end
  local found = 0
  each_chunk(keys, 900, function(...) found = found + redis.call('EXISTS', ...) end)
  return found > 0
end

local function zadd(key, pairs_, flag)
  for i = 1, #pairs_, 900 do
    local last = math.min(i + 899, #pairs_)
    if flag then redis.call('ZADD', key, flag, unpack(pairs_, i, last)) else redis.call('ZADD', key, unpack(pairs_, i, last)) end
  end
end

-- Keys of jobs that held another type than ours, so that somebody else wrote them: flat {key, type}*, for the worker to
-- tell.
local foreign = {}

-- A command on a key that a job can do without (its notes, its dead letter, an index). One of a wrong type holds
-- nothing of ours: it is dropped, and the command carried out as if there had been none.
local function mend(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not string.find(reply.err, 'WRONGTYPE', 1, true) then error(reply, 0) end
  foreign[#foreign + 1] = key foreign[#foreign + 1] = redis.call('TYPE', key).ok
  redis.call('DEL', key)
  return redis.call(command, key, ...)
end

-- What `pcall` gave instead of a reply, as text.
local function reason_of(why)
  return type(why) == 'table' and (why.err or why[1]) or tostring(why)
end

-- Counters: since the beginning, and per minute for 24 h; a minute that is no hash of ours is left out.
local function count(queue, field, by)
  if by == 0 then return end
  local minute = queue .. ':stats:' .. text(math.floor(now / 60000))
  redis.call('HINCRBY', queue .. ':stats', field, by)
  if redis.pcall('HINCRBY', minute, field, by) == by then redis.call('PEXPIRE', minute, DAY) end
end

local function wake(queue, tokens)
  local key = queue .. ':wake'
  local room = math.min(tokens, 10 - redis.call('LLEN', key))
  for _ = 1, room do redis.call('LPUSH', key, 1) end
end

-- FIFO within a millisecond: at least 1/4096 ms behind the last score this queue gave out.
local function next_scores(queue, n)
  local last = tonumber(redis.call('GET', queue .. ':seq') or 0)
  if last > now + 1000 then last = 0 end -- the clock went back
  local first = math.max(now, last + 1 / 4096)
  redis.call('SET', queue .. ':seq', text(first + (n - 1) / 4096))
  return first
end

local function drop_dead(id)
  local letter = mend('HMGET', DEAD .. id, 'queue', 'fp')
  if letter[1] then
    local dead, fp = letter[1] .. ':dead', letter[2]
    redis.call('ZREM', dead, id)
    if mend('ZREM', dead .. ':fp:' .. fp, id) == 1 and redis.call('HINCRBY', dead .. ':fp', fp, -1) <= 0 then
      redis.call('HDEL', dead .. ':fp', fp)
    end
    redis.call('DEL', DEAD .. id)
  end
  return letter[1]
end

-- Enqueue jobs of one queue. jobs: flat {id, level, delay ms, record}*. `fresh` ids were drawn at random just now and
-- can't be known. Returns the positions (from 1) of the ids that were known already.
local function put(queue, jobs, fresh)
  local known, adds, ready, n = {}, {{}, {}, {}, {}}, 0, #jobs / 4
  local score = next_scores(queue, n)
  local function add()
    for i = 1, n do
      local id, level, delay, record = jobs[4 * i - 3], tonumber(jobs[4 * i - 2]), tonumber(jobs[4 * i - 1]), jobs[4 * i]
      if (fresh or redis.call('EXISTS', RESULT .. id) == 0) and redis.call('SET', JOB .. id, record, 'NX') then
        local list = adds[level]
        list[#list + 1] = score + (i - 1) / 4096 + delay
        list[#list + 1] = id
        if not fresh then drop_dead(id) end
        if delay < POLL then ready = ready + 1 end
      else
        known[#known + 1] = i
      end
    end
    for level = 1, 4 do zadd(queue .. SUFFIX[level], adds[level]) end
  end
  local ok, why = pcall(add)
  if not ok then -- a record that no set has would be known for ever, and never run
    for level = 1, 4 do
      for i = 2, #adds[level], 2 do
        redis.pcall('ZREM', queue .. SUFFIX[level], adds[level][i])
        redis.call('DEL', JOB .. adds[level][i])
      end
    end
    error(why, 0)
  end
  redis.call('SADD', QUEUES, queue)
  count(queue, 'enqueued', n - #known)
  if ready > 0 then pcall(wake, queue, ready) end -- but a hint: without it they are found half a second later
  return known
end

local function is_held_by(value, owner)
  return value and string.sub(value, 1, #owner + 1) == owner .. '|'
end

-- The in-progress value `owner|level|old score|claimed ms`; nothing for a plain arq worker's.
local function parse_held(value)
  return string.match(value or '', '^([^|]*)|(%d)|([^|]+)|(%d+)$')
end

-- One more in a hash's field. What is no number there, somebody else wrote: it counts as none.
local function tally(key, field)
  local n = redis.pcall('HINCRBY', key, field, 1)
  if type(n) == 'number' then return n end
  mend('HSET', key, field, 1)
  return 1
end

-- A job whose worker is gone goes back to where it stood, at the head of its queue.
local function give_back(level, id, value, why)
  local owner, _, score = parse_held(value)
  -- It was due when it was claimed: a score in the future is of a clock that has gone back since.
  redis.call('ZADD', KEYS[level], 'XX', text(math.min(tonumber(score) or now, now)), id)
  redis.call('DEL', HELD .. id)
  if owner then
    local crashes = tally(META .. id, 'crashes')
    redis.call('HSET', META .. id, 'crash:' .. crashes, text(now) .. '|' .. owner .. '|' .. why)
  end
end

-- Jobs whose lease ran out, at most `budget`. Nobody reaped for 4 s (an outage, a failover, a jump of the clock):
-- live workers get 4 s to renew first. So the caller must reap again within less than 4 s, or nothing is ever reaped.
local function reap(budget)
  local last, hold = string.match(redis.call('GET', KEYS[12]) or '', '^(%d+)|(%d+)$')
  last, hold = tonumber(last or 0), tonumber(hold or 0) -- what somebody else wrote there counts as never
  if now - last > 4000 or now < last then hold = now + 4000 end
  redis.call('SET', KEYS[12], text(now) .. '|' .. text(hold))
  if now < last then
    -- The clock has gone back: leases that were written before end that much sooner. Of a dead worker's nobody else
    -- would ever say so; live workers renew theirs before anything is reaped. At most 5,000 of a level, as bounds have it.
    for level = 1, 4 do
      local found = redis.call('ZRANGEBYSCORE', KEYS[level], '-inf', '(' .. text(-now), 'WITHSCORES', 'LIMIT', 0, 5000)
      local leases = {}
      for i = 1, #found, 2 do
        leases[#leases + 1] = text(math.min(tonumber(found[i + 1]) + last - now, -1)) leases[#leases + 1] = found[i]
      end
      zadd(KEYS[level], leases, 'XX')
    end
  end
  local reaped = 0
  if now < hold then return reaped end
  for level = 1, 4 do
    local ids = redis.call('ZRANGEBYSCORE', KEYS[level], '(' .. text(-now), '(0', 'LIMIT', 0, budget - reaped)
    local held = mget(HELD, ids)
    for i = 1, #ids do
      local left = held[i] and not parse_held(held[i]) and redis.call('PTTL', HELD .. ids[i]) or -1
      if left >= 0 then -- a plain arq worker still has it; its keys always expire
        redis.call('ZADD', KEYS[level], 'XX', -(now + math.max(left, 1000)), ids[i])
      else
        give_back(level, ids[i], held[i], 'lease ran out')
        reaped = reaped + 1
      end
    end
    if reaped >= budget then break end
  end
  count(QUEUE, 'crashed', reaped)
  if reaped > 0 then wake(QUEUE, reaped) end
  return reaped
end
