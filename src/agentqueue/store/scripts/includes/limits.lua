--! include keys clock batches leases
-- Limits by name, which all workers of a server share. The hash aq:limits has the definition of each (JSON, see
-- `agentqueue.model.limits`). What a limit counts is a sliding window of WINDOW_BUCKETS counts on the server's time, kept
-- for one count longer, so that no stretch of a window's length ever has more than the limit.
--
-- aq:limit:{name}[:{tenant}]        JSON, the state: counts, pacing, rest and probe, as `new_state` lists them
-- aq:limit-calls:{name}[:{tenant}]  hash: reservation -> ms|bucket|units|epoch|1 if it counts as running. A reservation is
--                                   `{owner}|{number of the call}|{job}`; it stays until it is settled, or for an hour
-- aq:limit-units:{name}             hash: histogram of the units of calls, for calls that do not say theirs
-- aq:limit-line:{name}              hash: ticket -> level|arrived us|asked ms|requests|units|owner|tenant. A ticket is
--                                   `{queue}|{place among the calls of the job that wait}|{job}`. Who stands there and
--                                   neither asks nor holds its job loses the place, so that no ticket blocks for ever
local LIMITS, LIMIT, LIMIT_CALLS = 'aq:limits', 'aq:limit:', 'aq:limit-calls:'
local LIMIT_UNITS, LIMIT_LINE = 'aq:limit-units:', 'aq:limit-line:'

local WINDOW_BUCKETS = 60 -- counts per window: one a second, if the window is a minute
local KEEP_CALLS_MS = 3600000 -- how long a reservation is known that nobody settles
local STATE_KEEP_MS = 7200000 -- how long the state of an unused limit is kept
local MAX_REST_MS = 3600000 -- the longest rest, and so what a rest can last after the clock has gone back
local TURN_MS = 5000 -- a ticket that nobody has asked for within this time lets others pass
local ASK_MS = 2000 -- a ticket asks at least this often
local PROBE_BUCKETS = 5 -- a probe has succeeded once it has gone without a 429 for so many counts
local RAMP_STEPS = 10 -- after a probe, calls start in steps of one count: 1, 2, 4, ... in each
local AGED_WINDOWS = 2 -- a ticket that waits longer than so many windows goes first
local MAX_TURNS = 200 -- tenants whose last turn is remembered
local MAX_WOKEN = 20 -- waiting calls that one script wakes
local MAX_DOUBLINGS = 6 -- a rest without a given time lasts 1, 2, 4, ... 2^6 counts, the more rests come in a row
local MIN_SEEN = 10 -- the units of so many calls must be known before the next call reserves by them
local SEEN_STEPS = 8 -- steps of the histogram of units per factor of two
local MAX_SEEN = 1000 -- the histogram is halved at so many calls, so that it follows a change

-- Return a new state.
--   buckets   {{number of the count, requests, units}*}, the oldest first
--   tokens    starts that pacing allows at `paced_ms`
--   epoch     number of rests so far; a call carries the number at which it started, so that a late 429 begins no other rest
--   rest_ms   when the rest ends; `why` it began; `in_row` rests since the last success
--   phase     'open', 'rest', 'probe' (one call alone) or 'ramp' (more and more calls)
--   running   calls that run, for `concurrent`
--   turns     tenant -> number of its last start that came from the line; `turn` is the highest
local function new_state()
  return {
    buckets = {}, tokens = -1, paced_ms = 0, epoch = 0, rest_ms = 0, why = '', in_row = 0, phase = 'open',
    running = 0, turns = {}, turn = 0, swept_ms = 0,
  }
end

local function decode_state(text)
  local state = new_state()
  if text then
    for field, value in pairs(cjson.decode(text)) do state[field] = value end
  end
  return state
end

-- Bring a state to the present: old counts leave the window, and times of a clock that has gone back since become now.
local function update_state(limit, state)
  local current, kept, requests, units, ahead = limit.bucket, {}, 0, 0, {0, 0}
  for _, bucket in ipairs(state.buckets) do
    if bucket[1] > current + 1 then
      ahead = {ahead[1] + bucket[2], ahead[2] + bucket[3]}
    elseif bucket[1] >= current - WINDOW_BUCKETS then
      kept[#kept + 1] = bucket
      requests, units = requests + bucket[2], units + bucket[3]
    end
  end
  state.buckets, state.requests, state.units = kept, requests, units
  if ahead[1] ~= 0 or ahead[2] ~= 0 then limit.add(state, ahead[1], ahead[2]) end
  state.rest_ms = math.min(state.rest_ms, now + MAX_REST_MS)
  if limit.burst then
    local rate = limit.requestsPerMinute / limit.window_ms
    if state.tokens < 0 or state.paced_ms > now then
      state.tokens = state.tokens < 0 and limit.burst or state.tokens
    else
      state.tokens = math.min(limit.burst, state.tokens + (now - state.paced_ms) * rate)
    end
    state.paced_ms = now
  end
  if state.phase == 'probe' and math.abs(now - state.probe_ms) >= PROBE_BUCKETS * limit.bucket_ms then
    state.phase, state.ramp_ms, state.ramped = 'ramp', now, 0
  end
  if state.phase == 'ramp' then
    local step = math.floor(math.abs(now - state.ramp_ms) / limit.bucket_ms)
    if step >= RAMP_STEPS then state.phase = 'open' end
    state.ramp_limit = 2 ^ (step + 1) - 1
  end
end

-- Return a limit with its state; nil if it has no definition.
local function read_limit(name, tenant)
  local text = redis.call('HGET', LIMITS, name)
  if not text then return nil end
  local limit = cjson.decode(text)
  limit.name = name
  limit.tenant = limit.per == 'tenant' and tenant or nil
  local suffix = name .. (limit.tenant and ':' .. tenant or '')
  limit.key, limit.calls_key, limit.line_key = LIMIT .. suffix, LIMIT_CALLS .. suffix, LIMIT_LINE .. name
  limit.window_ms = 1000 * (limit.windowSeconds or 60)
  limit.bucket_ms = limit.window_ms / WINDOW_BUCKETS
  limit.max_throttled_ms = math.ceil(1000 * (limit.maxThrottledSeconds or 3600))
  limit.bucket = math.floor(now / limit.bucket_ms)
  function limit.add(state, requests, units)
    local last = state.buckets[#state.buckets]
    if not last or last[1] < limit.bucket then
      last = {limit.bucket, 0, 0}
      state.buckets[#state.buckets + 1] = last
    end
    last[2], last[3] = last[2] + requests, last[3] + units
    state.requests, state.units = state.requests + requests, state.units + units
  end
  limit.state = decode_state(redis.call('GET', limit.key))
  update_state(limit, limit.state)
  return limit
end

local function write_limit(limit)
  local state = limit.state
  state.requests, state.units, state.ramp_limit = nil, nil, nil
  local tenants = {}
  for tenant in pairs(state.turns) do tenants[#tenants + 1] = tenant end
  if #tenants > MAX_TURNS then
    table.sort(tenants, function(a, b) return state.turns[a] < state.turns[b] end)
    for i = 1, #tenants - MAX_TURNS do state.turns[tenants[i]] = nil end
  end
  redis.call('SET', limit.key, cjson.encode(state), 'PX', STATE_KEEP_MS)
end

local function parse_call(text) return string.match(text or '', '^(%d+)|(%d+)|([%d.]+)|(%d+)|(%d)$') end

local function format_call(ms, bucket, units, epoch, is_running)
  return format_number(ms) .. '|' .. format_number(bucket) .. '|' .. format_number(units) .. '|' .. format_number(epoch)
    .. '|' .. (is_running and 1 or 0)
end

-- Return owner and job of a reservation.
local function parse_reservation(id) return string.match(id, '^([^|]*)|%d+|(.*)$') end

-- Forget reservations that nobody has settled for long, and free what those hold whose owner no longer holds the job:
-- the call of a dead worker may have been made, so its units count, and only its place among the running calls is free.
local function sweep_calls(limit)
  local state, found = limit.state, redis.call('HGETALL', limit.calls_key)
  local ids, jobs, owners, running = {}, {}, {}, 0
  for i = 1, #found, 2 do
    local ms, bucket, units, epoch, runs = parse_call(found[i + 1])
    if not ms or now - tonumber(ms) > KEEP_CALLS_MS and runs == '0' then
      redis.call('HDEL', limit.calls_key, found[i])
    elseif runs == '1' then
      ids[#ids + 1] = {found[i], ms, bucket, units, epoch}
      owners[#owners + 1], jobs[#jobs + 1] = parse_reservation(found[i])
    end
  end
  local leases = get_all(IN_PROGRESS, jobs)
  for i = 1, #ids do
    local id, ms, bucket, units, epoch = unpack(ids[i])
    if is_held_by(leases[i], owners[i]) then
      running = running + 1
    else
      redis.call('HSET', limit.calls_key, id, format_call(ms, bucket, units, epoch, false))
    end
  end
  state.running, state.swept_ms = running, now
end

-- Return the ms until the window has room for so many requests and units more, and 0 if it has.
local function wait_for_window(limit, requests, units)
  local state = limit.state
  local over_requests = limit.requestsPerMinute and state.requests + requests - limit.requestsPerMinute or 0
  local over_units = limit.unitsPerMinute and state.units + units - limit.unitsPerMinute or 0
  if over_requests <= 0 and over_units <= 0 then return 0 end
  for _, bucket in ipairs(state.buckets) do
    over_requests, over_units = over_requests - bucket[2], over_units - bucket[3]
    if over_requests <= 0 and over_units <= 0 then
      return math.max(math.ceil((bucket[1] + WINDOW_BUCKETS + 1) * limit.bucket_ms - now), 1)
    end
  end
  return limit.window_ms
end

-- Return the ms until a call can start that is the last of `requests` calls with `units` in all, and why it waits: '' (it
-- need not), 'rest', 'probe', 'ramp', 'window', 'pace' or 'concurrent'.
local function wait_of(limit, requests, units)
  local state = limit.state
  if state.rest_ms > now then return state.rest_ms - now, 'rest' end
  if state.phase == 'rest' and requests > 1 then return PROBE_BUCKETS * limit.bucket_ms, 'probe' end
  if state.phase == 'probe' then
    local owner, job = parse_reservation(state.probe)
    if requests > 1 or is_held_by(get_all(IN_PROGRESS, {job})[1], owner) then
      return math.max(state.probe_ms + PROBE_BUCKETS * limit.bucket_ms - now, 1), 'probe'
    end
  end
  if state.phase == 'ramp' and state.ramped + requests > state.ramp_limit then
    return limit.bucket_ms - (now - state.ramp_ms) % limit.bucket_ms, 'ramp'
  end
  local wait_ms = wait_for_window(limit, requests, units)
  if wait_ms > 0 then return wait_ms, 'window' end
  if limit.burst and state.tokens < requests then
    return math.max(math.ceil((requests - state.tokens) * limit.window_ms / limit.requestsPerMinute), 1), 'pace'
  end
  if limit.concurrent and state.running + requests > limit.concurrent then
    if state.swept_ms ~= now then sweep_calls(limit) end
    if state.running + requests > limit.concurrent then return ASK_MS, 'concurrent' end
  end
  return 0, ''
end

-- Tickets

local function parse_ticket(text)
  local level, arrived, asked_ms, requests, units, owner, tenant =
    string.match(text, '^(%d)|(%d+)|(%d+)|(%d+)|([%d.]+)|([^|]*)|(.*)$')
  return {
    level = tonumber(level), arrived = tonumber(arrived), asked_ms = tonumber(asked_ms), requests = tonumber(requests),
    units = tonumber(units), owner = owner, tenant = tenant,
  }
end

local function write_ticket(limit, name, ticket)
  local text = table.concat({
    ticket.level, format_number(ticket.arrived), format_number(ticket.asked_ms), ticket.requests,
    format_number(ticket.units), ticket.owner, ticket.tenant,
  }, '|')
  redis.call('HSET', limit.line_key, name, text)
  redis.call('PEXPIRE', limit.line_key, DAY_MS)
end

local function job_of_ticket(name) return string.match(name, '^([^|]*)|%d+|(.*)$') end

-- Return the tickets in their order: those that have waited for long, by arrival; then by level, then round robin over
-- the tenants, then by arrival. Tickets whose job nobody holds any more are dropped; those that have not been asked for
-- within TURN_MS are left out, so that others pass.
-- own: {name, ticket} of the call that asks, which may stand in the line or not; nil for none.
local function order_line(limit, own)
  local found = redis.call('HGETALL', limit.line_key)
  local line, jobs, turns = {}, {}, limit.state.turns
  for i = 1, #found, 2 do
    local ticket = parse_ticket(found[i + 1])
    ticket.name = found[i]
    if not (own and own.name == ticket.name) and (not limit.tenant or ticket.tenant == limit.tenant) then
      ticket.queue, ticket.job = job_of_ticket(ticket.name)
      line[#line + 1], jobs[#jobs + 1] = ticket, ticket.job
    end
  end
  local leases, order = get_all(IN_PROGRESS, jobs), {}
  for i, ticket in ipairs(line) do
    if not is_held_by(leases[i], ticket.owner) then
      redis.call('HDEL', limit.line_key, ticket.name)
    elseif math.abs(now - ticket.asked_ms) <= TURN_MS then
      order[#order + 1] = ticket
    end
  end
  if own then order[#order + 1] = own end
  table.sort(order, function(a, b) return a.arrived < b.arrived end)
  local count = {}
  for _, ticket in ipairs(order) do
    local key = ticket.level .. ticket.tenant
    count[key] = (count[key] or 0) + 1
    ticket.round, ticket.turn = count[key], turns[ticket.tenant] or 0
    ticket.is_aged = math.abs(now - ticket.arrived / 1000) > AGED_WINDOWS * limit.window_ms
  end
  table.sort(order, function(a, b)
    if a.is_aged ~= b.is_aged then return a.is_aged end
    if not a.is_aged then
      if a.level ~= b.level then return a.level < b.level end
      if a.round ~= b.round then return a.round < b.round end
      if a.turn ~= b.turn then return a.turn < b.turn end
    end
    return a.arrived < b.arrived
  end)
  return order
end

-- Let the workers ask again for the tickets that have room now, and for the first one that has none, which then knows for
-- how long it waits. Call it after a ticket has left the line, or something has become free.
local function wake_line(limit)
  if redis.call('EXISTS', limit.line_key) == 0 then return end
  local requests, units = 0, 0
  for i, ticket in ipairs(order_line(limit)) do
    requests, units = requests + ticket.requests, units + ticket.units
    local key = ticket.queue .. ':wake:' .. ticket.owner
    redis.call('LPUSH', key, ticket.job)
    redis.call('LTRIM', key, 0, 999)
    redis.call('PEXPIRE', key, 60000)
    if i >= MAX_WOKEN or wait_of(limit, requests, units) > 0 then return end
  end
end

-- Units

-- Return the units to reserve for a call that does not say how many it takes: what nine of ten calls stay below.
local function estimate_units(limit)
  local found, counts, total = redis.call('HGETALL', LIMIT_UNITS .. limit.name), {}, 0
  for i = 1, #found, 2 do
    counts[#counts + 1] = {tonumber(found[i]), tonumber(found[i + 1])}
    total = total + tonumber(found[i + 1])
  end
  if total < MIN_SEEN then return limit.defaultUnits or math.ceil(limit.unitsPerMinute / 20) end
  table.sort(counts, function(a, b) return a[1] < b[1] end)
  local below = 0
  for _, count in ipairs(counts) do
    below = below + count[2]
    if below >= 0.9 * total then
      local units = 2 ^ (count[1] / SEEN_STEPS) * (1 + (limit.headroomPercent or 0) / 100)
      return math.min(math.ceil(units), limit.unitsPerMinute)
    end
  end
end

-- Remember the units of a call.
local function learn_units(limit, units)
  local key = LIMIT_UNITS .. limit.name
  local step = math.ceil(math.log(math.max(units, 1)) / math.log(2) * SEEN_STEPS - 1e-9)
  local count = redis.call('HINCRBY', key, step, 1)
  if count % 100 ~= 0 then return end
  local found, total = redis.call('HGETALL', key), 0
  for i = 2, #found, 2 do total = total + tonumber(found[i]) end
  if total < MAX_SEEN then return end
  for i = 1, #found, 2 do
    local half = math.floor(tonumber(found[i + 1]) / 2)
    if half > 0 then redis.call('HSET', key, found[i], half) else redis.call('HDEL', key, found[i]) end
  end
end
