-- One round trip of a worker: finish what ended, claim what fits.
-- ARGV: 1 seq, 2 owner, 3 want, 4 lease ms, 5 how many of them may go to jobs that waited over their level's limit,
-- 6-8 those limits in ms (high, normal, low), 9 rate max (0: none), 10 rate window ms, 11 history count, 12 history ms,
-- 13 dead letters ms, 14 number of outcomes, 15 number of watched ids, then outcomes, then the watched ids.
-- Outcomes: D id level result keep_ms run_ms n {queue id level delay record}*n       done, with its children
--           A id level delay_ms n {field value}*n                                    failed, again after the delay
--           B id level result keep_ms fingerprint letter n {children}*n              dead
--           C id level result keep_ms                                                cancelled
--           H id level delay_ms(-1: where it stood) n {field value}*n                handed back, no attempt burnt
-- keep_ms: 0 no result, -1 for ever.
-- Returns {lost ids, claimed {id level score record attempts meta aborted}*, watched ids to cancel, paused, retry after
-- ms, next due ms, now ms, 1 if this very step was carried out before, {dropped foreign key, its type}*, what was left
-- out and why, or ''}.
-- Foreign keys, of another type than ours: a job's is dropped, and told; where its record was, the job is claimed to be
-- buried. One of the queue's that outcomes need fails the step before any job has ended, so that it can be sent again;
-- one that a claim needs ends the claim, and what it had taken is put back.
local MAX_BYTES, ROUND, HOUR = 4194304, 32, 3600000
local LATER = 1000 -- ms until a claim that met a foreign key is tried again
local seq, owner, want, lease = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local outcome_count, watch_count = tonumber(ARGV[14]), tonumber(ARGV[15])

local WIDTH = {D = 7, A = 5, B = 8, C = 5, H = 5} -- fields before the repeated ones; the last of them is their count
local REPEATED = {D = 5, A = 2, B = 5, C = 0, H = 2}
local ids, starts, at = {}, {}, 16
for i = 1, outcome_count do
  local kind = ARGV[at]
  ids[i], starts[i] = ARGV[at + 1], at
  local width = WIDTH[kind]
  if REPEATED[kind] > 0 then width = width + REPEATED[kind] * tonumber(ARGV[at + width - 1]) end
  at = at + width
end
local watch = {}
for i = 1, watch_count do watch[i] = ARGV[at + i - 1] end

local aborts = redis.call('ZCARD', ABORT) > 0

local function meta_fields(first, n)
  local fields = {}
  for i = first, first + 2 * n - 1 do fields[#fields + 1] = ARGV[i] end
  return fields
end

local function children(first, n)
  for i = 0, n - 1 do
    local c = first + 5 * i
    put(ARGV[c], {ARGV[c + 1], ARGV[c + 2], ARGV[c + 3], ARGV[c + 4]}, false)
  end
end

local function keep(id, result, keep_ms)
  if keep_ms > 0 then redis.call('SET', RESULT .. id, result, 'PX', keep_ms)
  elseif keep_ms < 0 then redis.call('SET', RESULT .. id, result) end
end

-- First what may fail on a foreign key, and can be done again; last, by what jobs are held and known, what can't.
local function finish()
  local lost, finals, gone, removed, done, counts = {}, {}, {}, {{}, {}, {}, {}}, {}, {}
  local kept, notes = {}, {}
  local held = mget(HELD, ids)
  local function add(field, by) counts[field] = (counts[field] or 0) + by end
  local function final(a, id, level)
    gone[#gone + 1] = HELD .. id gone[#gone + 1] = JOB .. id gone[#gone + 1] = RETRY .. id gone[#gone + 1] = META .. id
    local list = removed[level]
    list[#list + 1] = id
    finals[#finals + 1] = id
    kept[#kept + 1] = a
  end
  local act = {}
  function act.D(a, id, level)
    done[#done + 1] = now done[#done + 1] = id
    final(a, id, level)
    add('completed', 1) add('run_ms', tonumber(ARGV[a + 5]))
    children(a + 7, tonumber(ARGV[a + 6]))
  end
  function act.C(a, id, level)
    final(a, id, level)
    add('cancelled', 1)
  end
  function act.A(a, id, level)
    redis.call('ZADD', KEYS[level], now + tonumber(ARGV[a + 3]), id)
    gone[#gone + 1] = HELD .. id
    notes[#notes + 1] = function()
      if type(redis.pcall('INCR', RETRY .. id)) ~= 'number' then redis.call('SET', RETRY .. id, 1) end
      mend('HSET', META .. id, 'touched', text(now), unpack(meta_fields(a + 5, tonumber(ARGV[a + 4]))))
    end
    add('retried', 1)
  end
  function act.H(a, id, level, value)
    local _, _, score = parse_held(value)
    local delay = tonumber(ARGV[a + 3])
    -- Where it stood is in the past, unless the clock has gone back since.
    local due = delay >= 0 and now + delay or math.min(tonumber(score) or now, now)
    redis.call('ZADD', KEYS[level], due, id)
    gone[#gone + 1] = HELD .. id
    notes[#notes + 1] = function()
      tally(META .. id, 'handbacks')
      local fields = meta_fields(a + 5, tonumber(ARGV[a + 4]))
      if #fields > 0 then redis.call('HSET', META .. id, unpack(fields)) end
      if delay <= 0 then pcall(wake, QUEUE, 1) end
    end
    add('handed_back', 1)
  end
  function act.B(a, id, level)
    local fp, record = ARGV[a + 5], mget(JOB, {id})[1]
    drop_dead(id)
    redis.call('HSET', DEAD .. id, 'letter', ARGV[a + 6], 'queue', QUEUE, 'level', level, 'fp', fp)
    if record then redis.call('HSET', DEAD .. id, 'record', record) end
    redis.call('ZADD', KEYS[5], now, id)
    redis.call('HINCRBY', KEYS[5] .. ':fp', fp, 1)
    mend('ZADD', KEYS[5] .. ':fp:' .. fp, now, id)
    final(a, id, level)
    add('dead', 1)
    children(a + 8, tonumber(ARGV[a + 7]))
  end
  for i = 1, outcome_count do
    local a, id = starts[i], ids[i]
    if is_held_by(held[i], owner) then act[ARGV[a]](a, id, tonumber(ARGV[a + 2]), held[i]) else lost[#lost + 1] = id end
  end
  zadd(KEYS[6], done)
  if aborts then each_chunk(finals, 900, function(...) redis.call('ZREM', ABORT, ...) end) end
  add('lost', #lost)
  for field, by in pairs(counts) do count(QUEUE, field, by) end
  for i = 1, #finals do keep(finals[i], ARGV[kept[i] + 3], tonumber(ARGV[kept[i] + 4])) end
  -- A level that is foreign by now has none of them; if it is put back, a claim finds that they are final.
  for level = 1, 4 do each_chunk(removed[level], 900, function(...) redis.pcall('ZREM', KEYS[level], ...) end) end
  each_chunk(gone, 900, function(...) redis.call('DEL', ...) end)
  for i = 1, #notes do notes[i]() end
  return lost
end

-- At most `rate max` starts in any window: a log of the last starts' times, oldest at the tail.
-- Returns how many may start now, and the ms until the next may.
local function allowance(n)
  local max, window = tonumber(ARGV[9]), tonumber(ARGV[10])
  if max == 0 then return n, -1 end
  local length = redis.call('LLEN', KEYS[8])
  while length > 0 and length + n > max do
    local oldest = tonumber(redis.call('LINDEX', KEYS[8], -1))
    if oldest + window > now then return math.max(max - length, 0), oldest + window - now end
    redis.call('RPOP', KEYS[8])
    length = length - 1
  end
  return math.min(n, max), -1
end

local function spend(n)
  if tonumber(ARGV[9]) == 0 or n == 0 then return end
  for _ = 1, n do redis.call('LPUSH', KEYS[8], text(now)) end
  redis.call('PEXPIRE', KEYS[8], ARGV[10])
end

local taken = {} -- flat {id, level, score, record}
local bytes = 0

-- Whether a ready id may be started; if not, it is put where it belongs.
local function screen(level, id, value, record)
  if value then
    local other = parse_held(value)
    local until_ = lease
    if not other then until_ = math.max(redis.call('PTTL', HELD .. id), 1000) end
    redis.call('ZADD', KEYS[level], 'XX', -(now + until_), id)
    return false
  end
  if not record and (redis.call('EXISTS', RESULT .. id) > 0 or mend('HEXISTS', DEAD .. id, 'queue') == 1
    or redis.call('ZSCORE', KEYS[6], id)) then
    redis.call('ZREM', KEYS[level], id)
    return false
  end
  return true
end

-- Takes up to n of the candidates (flat {id, score}) of a level. Returns false when the byte limit is reached.
local function take(level, candidates, n)
  local found, scores = {}, {}
  for i = 1, #candidates, 2 do
    if #found >= n then break end
    found[#found + 1] = candidates[i] scores[#scores + 1] = candidates[i + 1]
  end
  local held, records = mget(HELD, found), mget(JOB, found)
  local leases, deadline = {}, -(now + lease)
  local room = true
  for i = 1, #found do
    local id, record = found[i], records[i]
    if screen(level, id, held[i], record) then
      local size = record and #record or 0
      if bytes > 0 and bytes + size > MAX_BYTES then room = false break end
      bytes = bytes + size
      redis.call('SET', HELD .. id, owner .. '|' .. level .. '|' .. scores[i] .. '|' .. text(now), 'PX', DAY)
      leases[#leases + 1] = deadline leases[#leases + 1] = id
      taken[#taken + 1] = id taken[#taken + 1] = level taken[#taken + 1] = scores[i] taken[#taken + 1] = record
    end
  end
  zadd(KEYS[level], leases, 'XX')
  return room
end

local function ready(level, from, to, n)
  return redis.call('ZRANGEBYSCORE', KEYS[level], from, to, 'WITHSCORES', 'LIMIT', 0, n)
end

-- No ready job waits for ever: the longest waiting of those over their level's limit, before the strict order.
local function take_aged(n)
  local over = {}
  for level = 2, 4 do
    local found = ready(level, OLDEST, '(' .. text(now - tonumber(ARGV[4 + level])), n)
    for i = 1, #found, 2 do over[#over + 1] = {tonumber(found[i + 1]), level, found[i], found[i + 1]} end
  end
  table.sort(over, function(a, b) return a[1] < b[1] end)
  for i = 1, math.min(n, #over) do
    if not take(over[i][2], {over[i][3], over[i][4]}, 1) then return false end
  end
  return true
end

local function claim()
  local allowed, retry_after = allowance(want)
  local aged = math.min(tonumber(ARGV[5]), allowed)
  local room = aged == 0 or take_aged(aged)
  for level = 1, 4 do
    local rounds = 0
    while room and #taken / 4 < allowed and rounds < 40 do
      local n = math.min(ROUND, allowed - #taken / 4)
      local found = ready(level, 0, '(' .. text(now + 1), n)
      if #found == 0 then break end
      room = take(level, found, n)
      rounds = rounds + 1
    end
  end
  spend(#taken / 4)
  return retry_after
end

-- A plain arq client's record expires. Near score + 24 h is arq's default and is cleared; another is the user's and is
-- kept beside the job, since the record must outlive it (to become a dead letter that says so).
local function keep_record(id, score)
  local left = redis.call('PTTL', JOB .. id)
  if left < 0 then return end
  redis.call('PERSIST', JOB .. id)
  if math.abs(now + left - (tonumber(score) + DAY)) > 600000 then mend('HSET', META .. id, 'expires', text(now + left)) end
end

local function describe()
  local claimed, names, n = {}, {}, #taken / 4
  for i = 1, n do names[i] = taken[4 * i - 3] end
  local attempts, has_meta = mget(RETRY, names), any_exists(META, names)
  local has_dead = any_exists(DEAD, names)
  local asked = aborts and n > 0 and redis.call('ZMSCORE', ABORT, unpack(names)) or {}
  for i = 1, n do
    local id, record = names[i], taken[4 * i]
    local meta = false
    if record and string.sub(record, 1, 8) ~= '{"aq":1,' then
      keep_record(id, taken[4 * i - 1])
      meta = mend('HGETALL', META .. id)
    elseif has_meta then
      meta = mend('HGETALL', META .. id)
    end
    if not record then
      local kind = redis.call('TYPE', JOB .. id).ok
      if kind ~= 'none' then
        meta = meta or {}
        meta[#meta + 1] = 'foreign' meta[#meta + 1] = kind
      end
    end
    if has_dead and record then drop_dead(id) end
    local c = #claimed
    claimed[c + 1] = id claimed[c + 2] = taken[4 * i - 2] claimed[c + 3] = taken[4 * i - 1] claimed[c + 4] = record
    claimed[c + 5] = attempts[i] claimed[c + 6] = meta claimed[c + 7] = asked[i] and 1 or 0
  end
  return claimed
end

-- The same step again, because its answer was lost: nothing is written twice; what it claimed is read anew.
local function recall(last)
  local held, records = mget(HELD, last[3]), mget(JOB, last[3])
  for i = 1, #last[3] do
    local _, level, score = parse_held(held[i])
    if is_held_by(held[i], owner) then
      taken[#taken + 1] = last[3][i] taken[#taken + 1] = tonumber(level) taken[#taken + 1] = score taken[#taken + 1] = records[i]
    end
  end
  return last[2]
end

local function next_due()
  local first = -1
  for level = 1, 4 do
    local found = ready(level, text(now + 1), '+inf', 1)
    if found[2] and (first < 0 or tonumber(found[2]) < first) then first = tonumber(found[2]) end
  end
  return math.ceil(first)
end

local function trim()
  local cap = tonumber(ARGV[11])
  local over = math.min(redis.call('ZCARD', KEYS[6]) - cap, 200)
  if over > 0 then redis.call('ZREMRANGEBYRANK', KEYS[6], 0, over - 1) end
end

-- What a claim had taken when it failed, where it stood: nobody ran it, so nothing is counted.
local function put_back()
  for i = 1, #taken, 4 do
    redis.call('ZADD', KEYS[taken[i + 1]], 'XX', taken[i + 2], taken[i])
    redis.call('DEL', HELD .. taken[i])
  end
  taken = {}
end

local last = redis.pcall('GET', LAST .. owner)
last = type(last) == 'string' and cmsgpack.unpack(last)
local again = last and last[1] == seq
-- A copy that the network held back, of a step that was answered on a new connection, and others after it.
local late = last and not again and tonumber(last[1]) > tonumber(seq)
local paused = redis.call('EXISTS', KEYS[7]) == 1
local lost, retry_after, due, left_out = {}, -1, -1, ''
if again then
  lost = recall(last)
elseif late then
  lost, want, outcome_count = ids, 0, 0
elseif outcome_count > 0 then
  lost = finish()
end
if want > 0 and not paused then
  local ok, why = pcall(function()
    if not again then retry_after = claim() end
    if #taken / 4 < want then due = next_due() end
  end)
  if not ok then
    if not again then put_back() end
    retry_after, due, left_out = LATER, -1, reason_of(why)
  end
end
local claimed = describe()
if not again and (outcome_count > 0 or #taken > 0) then
  local claimed_ids = {}
  for i = 1, #taken, 4 do claimed_ids[#claimed_ids + 1] = taken[i] end
  redis.call('SET', LAST .. owner, cmsgpack.pack({seq, lost, claimed_ids}), 'PX', HOUR)
end

local asked = {}
if aborts then
  for i = 1, #watch, 500 do
    local scores = redis.call('ZMSCORE', ABORT, unpack(watch, i, math.min(i + 499, #watch)))
    for j = 1, #scores do if scores[j] then asked[#asked + 1] = watch[i + j - 1] end end
  end
end

local short = #taken / 4 < want
-- Housekeeping comes last and may fail: scripts don't roll back, and what is above must stand.
local ok, why = pcall(function()
  if want > 0 and not short and not paused then wake(QUEUE, 1) end
  if outcome_count > 0 then trim() end
  if short then reap(100) end
end)
if not ok then left_out = reason_of(why) end
return {lost, claimed, asked, paused and 1 or 0, retry_after, due, now, again and 1 or 0, foreign, left_out}
