-- Renews a worker's leases, writes its heartbeat, and does a bounded share of the queue's housekeeping.
-- ARGV: 1 owner, 2 worker id, 3 heartbeat (JSON), 4 lease ms, 5 sweep (ids to look at), 6 dead letters ms, 7 history ms,
-- 8 stale after ms, 9 how many counters grow, {counter, by}* of them, then {id, level}*. Returns {lost ids, drain mark ms
-- or 0, jobs reaped, now ms, paused, {dropped foreign key, its type}*, why something was left out, or ''}.
-- Without a worker (2 is ''), housekeeping alone; 3 is then how many ms after the last visit the queue is left alone.
local HOUSEKEEPER = ARGV[2] == ''
if HOUSEKEEPER then
  local stamp = redis.pcall('GET', KEYS[12])
  local age = now - tonumber(type(stamp) == 'string' and string.match(stamp, '^(%d+)|') or 0)
  if age >= 0 and age < tonumber(ARGV[3]) then return {{}, 0, 0, now, 0, foreign, ''} end
end
local owner, lease = ARGV[1], tonumber(ARGV[4])
local ids, levels, lost = {}, {}, {}
local first = 10 + 2 * tonumber(ARGV[9])
for i = first, #ARGV, 2 do ids[#ids + 1] = ARGV[i] levels[#levels + 1] = tonumber(ARGV[i + 1]) end
local held, leases = mget(HELD, ids), {{}, {}, {}, {}}
for i = 1, #ids do
  if is_held_by(held[i], owner) then
    local list = leases[levels[i]]
    list[#list + 1] = -(now + lease) list[#list + 1] = ids[i]
    redis.call('PEXPIRE', HELD .. ids[i], DAY)
  else
    lost[#lost + 1] = ids[i]
  end
end
-- One key that somebody else has spoilt must not cost the leases, nor anything else that can be done without it.
local left_out = ''
local function try(act, ...)
  local ok, why = pcall(act, ...)
  if not ok then left_out = reason_of(why) end
end
for level = 1, 4 do try(zadd, KEYS[level], leases[level], 'XX') end
try(function()
  for i = 10, first - 1, 2 do redis.call('HINCRBY', KEYS[10], ARGV[i], ARGV[i + 1]) end
end)
if not HOUSEKEEPER then try(redis.call, 'HSET', KEYS[11], ARGV[2], text(now) .. '|' .. ARGV[3]) end
try(redis.call, 'SADD', QUEUES, QUEUE) -- plain arq clients note queues nowhere
local drain
try(function() drain = redis.call('HGET', KEYS[15], ARGV[2]) end)
local reaped = 0
-- Of one that comes every 2 s, jobs of a hundred workers that died together are given back within 10 s.
try(function() reaped = reap(HOUSEKEEPER and 500 or 100) end)

-- arq's clients let records expire after 24 h, running or not; clear that, some hundred ids a call.
local function sweep_expiries(budget)
  local level, cursor = string.match(redis.call('GET', KEYS[14]) or '', '^([1-4])|(%d+)$')
  level, cursor = tonumber(level or 1), cursor or '0'
  local page = redis.call('ZSCAN', KEYS[level], cursor, 'COUNT', budget)
  for i = 1, math.min(#page[2], 2 * budget), 2 do
    local id, score = page[2][i], tonumber(page[2][i + 1])
    local left = redis.call('PTTL', JOB .. id)
    if left > 0 then
      local start = score
      if score < 0 then start = tonumber(select(3, parse_held(mget(HELD, {id})[1])) or now) end
      if math.abs(now + left - (start + DAY)) <= 600000 then redis.call('PERSIST', JOB .. id) end
    end
  end
  if page[1] == '0' then level = level % 4 + 1 end
  redis.call('SET', KEYS[14], level .. '|' .. page[1])
end

local function sweep_old(budget)
  local old = redis.call('ZRANGEBYSCORE', KEYS[6], '-inf', now - tonumber(ARGV[7]), 'LIMIT', 0, budget)
  if #old > 0 then redis.call('ZREM', KEYS[6], unpack(old)) end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', now - tonumber(ARGV[6]), 'LIMIT', 0, budget)) do
    if drop_dead(id) ~= QUEUE then redis.call('ZREM', KEYS[5], id) end
  end
end

-- Requests to cancel, of all queues: a waiting job of this queue comes to the head, where the next claim finds it
-- asked for; one without a record is dropped. Another page each time, since those of jobs that run stay.
local function sweep_aborts(budget)
  local pages = math.max(1, math.ceil(redis.call('ZCARD', ABORT) / budget))
  local first = math.floor(now / 487) % pages * budget
  for _, id in ipairs(redis.call('ZRANGE', ABORT, first, first + budget - 1)) do
    if redis.call('EXISTS', JOB .. id) == 0 then
      redis.call('ZREM', ABORT, id)
    else
      for level = 1, 4 do
        local score = tonumber(redis.call('ZSCORE', KEYS[level], id) or -1)
        if score > now then redis.call('ZADD', KEYS[level], 'XX', 1, id) wake(QUEUE, 1) end
      end
    end
  end
end

-- Others each time, so that living ones don't hide the dead.
local function sweep_workers(budget)
  local page = redis.call('HRANDFIELD', KEYS[11], budget, 'WITHVALUES')
  for i = 1, #page, 2 do
    -- One from the future is of a clock that has gone back since.
    local seen = tonumber(string.match(page[i + 1], '^(%d+)|') or 0)
    if math.abs(now - seen) > tonumber(ARGV[8]) then redis.call('HDEL', KEYS[11], page[i]) redis.call('HDEL', KEYS[15], page[i]) end
  end
end

local budget = tonumber(ARGV[5])
if budget > 0 then
  try(sweep_expiries, budget)
  try(sweep_old, 100)
  try(sweep_aborts, 100)
  try(sweep_workers, 100)
end
return {lost, tonumber(drain) or 0, reaped, now, redis.call('EXISTS', KEYS[7]), foreign, left_out}
