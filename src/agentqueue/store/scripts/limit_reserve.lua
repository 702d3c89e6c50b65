--! include keys clock limits
--[[
  Reserve one call under one or several limits, all or none, or take a place in the line. Asking again keeps the place.

  Input
    ARGV  1  owner of the job's lease
          2  number of the call, which the owner uses once
          3  job ID
          4  place among the calls of the job that wait now, from 0
          5  level of the job, 1 to 4
          6  tenant of the job, '' for none
          7  units of the call, '' for as many as calls usually take
          then  names of the limits, sorted
  Keys touched
    aq:limits; aq:limit:, aq:limit-calls:, aq:limit-units: and aq:limit-line: of the limits; arq:in-progress: of jobs;
    {queue}:wake:{owner} of jobs that wait
  Output
    {'granted', server time in ms, {units, epoch, ms for which a job may be throttled}* of each limit}
    {'waits', server time, ms until it should ask again, name of the limit, why, when its rest ends or 0, why it rests, ms for
     which a job may be throttled}
    {'unknown', name of the limit}
    {'large', name of the limit, what it has: 'units', how many it may have}
  A call whose reply was lost is sent again with the same number. It is counted once.
]]
local owner, number, job, place, level, tenant, given_units = unpack(ARGV, 1, 7)
local id, ticket_name = owner .. '|' .. number .. '|' .. job, queue .. '|' .. place .. '|' .. job
local limits = {}
for i = 8, #ARGV do
  local limit = read_limit(ARGV[i], tenant)
  if not limit then return {'unknown', ARGV[i]} end
  limits[#limits + 1] = limit
end

local function granted()
  local reply = {'granted', now}
  for _, limit in ipairs(limits) do
    local _, _, units, epoch = parse_call(redis.call('HGET', limit.calls_key, id))
    reply[#reply + 1] = units or '0'
    reply[#reply + 1] = epoch or '0'
    reply[#reply + 1] = limit.max_throttled_ms
  end
  return reply
end

if redis.call('HEXISTS', limits[1].calls_key, id) == 1 then return granted() end
local arrived = time[1] * 1000000 + time[2]
for _, limit in ipairs(limits) do
  limit.call_units = 0
  if limit.unitsPerMinute then limit.call_units = given_units ~= '' and tonumber(given_units) or estimate_units(limit) end
  if limit.unitsPerMinute and limit.call_units > limit.unitsPerMinute then
    return {'large', limit.name, 'units', format_number(limit.unitsPerMinute)}
  end
  limit.has_line = redis.call('EXISTS', limit.line_key) == 1
  local text = limit.has_line and redis.call('HGET', limit.line_key, ticket_name)
  if text then arrived = math.min(arrived, parse_ticket(text).arrived) end
end

local function own_ticket(limit)
  return {
    name = ticket_name, level = tonumber(level), arrived = arrived, asked_ms = now, requests = 1,
    units = limit.call_units, owner = owner, tenant = tenant,
  }
end

-- Room for this call and for all tickets before it is enough: it takes nothing from them.
local obstacle, wait_ms, why
for _, limit in ipairs(limits) do
  local requests, units = 0, 0
  if limit.has_line then
    for _, ticket in ipairs(order_line(limit, own_ticket(limit))) do
      requests, units = requests + ticket.requests, units + ticket.units
      if ticket.name == ticket_name then break end
    end
  else
    requests, units = 1, limit.call_units
  end
  wait_ms, why = wait_of(limit, requests, units)
  if wait_ms > 0 then
    obstacle = limit
    break
  end
end

-- A call that waits stands in the line of the limit that it waits for, and in no other, so that calls which share several
-- limits never wait for one another. One that has waited for long stands in all, where it goes first.
if obstacle then
  local is_aged = math.abs(now - arrived / 1000) > AGED_WINDOWS * obstacle.window_ms
  for _, limit in ipairs(limits) do
    if limit == obstacle or is_aged then
      write_ticket(limit, ticket_name, own_ticket(limit))
    elseif limit.has_line then
      redis.call('HDEL', limit.line_key, ticket_name)
    end
  end
  local state = obstacle.state
  local rest_ms = state.rest_ms > now and state.rest_ms or 0
  return {
    'waits', now, math.ceil(math.min(wait_ms, ASK_MS)), obstacle.name, why, math.ceil(rest_ms), state.why,
    obstacle.max_throttled_ms,
  }
end

for _, limit in ipairs(limits) do
  local state = limit.state
  limit.add(state, 1, limit.call_units)
  if limit.burst then state.tokens = state.tokens - 1 end
  if limit.concurrent then state.running = state.running + 1 end
  if state.phase == 'ramp' then state.ramped = state.ramped + 1 end
  if state.phase == 'rest' or state.phase == 'probe' then state.phase, state.probe, state.probe_ms = 'probe', id, now end
  local call = format_call(now, limit.bucket, limit.call_units, state.epoch, limit.concurrent)
  redis.call('HSET', limit.calls_key, id, call)
  redis.call('PEXPIRE', limit.calls_key, STATE_KEEP_MS)
  if math.abs(now - state.swept_ms) > 60000 then sweep_calls(limit) end
  if limit.has_line then
    redis.call('HDEL', limit.line_key, ticket_name)
    state.turn = state.turn + 1
    state.turns[tenant] = state.turn
  end
  write_limit(limit)
end
return granted()
