--! include clock limits
--[[
  Settle a call: correct its units, free its place among the running calls, and let limits rest after a 429. It also holds
  after the lease is lost, since the provider has counted the call. A call that is settled twice is settled once.

  Input
    ARGV  1  owner of the lease under which the call was reserved
          2  number of the call
          3  job ID
          4  tenant of the job, '' for none
          5  units that the call has taken, '' if they are not known: then they stay as reserved
          6  '' if the provider has taken the call; else why not, such as 429
          7  ms for which the limit rests then, '' if the provider has not said
          8  name of the limit that rests, '' for none
          then  {name, epoch at which the call was reserved}* of the limits
  Keys touched
    as limit_reserve.lua
  Output
    {server time in ms, when the rest of the limit in ARGV[8] ends, or 0}
]]
local owner, number, job, tenant, units, why, rest_for_ms, resting = unpack(ARGV, 1, 8)
local id, rests_until = owner .. '|' .. number .. '|' .. job, 0

-- Begin a rest, if the call has started after the last one.
local function begin_rest(limit, epoch)
  local state = limit.state
  if epoch ~= state.epoch then return end
  local ms = tonumber(rest_for_ms)
  if not ms then ms = 2 ^ math.min(state.in_row, MAX_DOUBLINGS) * limit.bucket_ms end
  state.epoch, state.in_row, state.phase, state.why = state.epoch + 1, state.in_row + 1, 'rest', why
  state.rest_ms = now + math.min(math.max(ms, 1), MAX_REST_MS)
end

for i = 9, #ARGV, 2 do
  local limit = read_limit(ARGV[i], tenant)
  if limit then -- else its definition was deleted meanwhile
    local state, text = limit.state, redis.call('HGET', limit.calls_key, id)
    local _, bucket, reserved, epoch, runs = parse_call(text or '')
    local has_freed = false
    if limit.name == resting then begin_rest(limit, tonumber(epoch or ARGV[i + 1])) end
    if text then
      redis.call('HDEL', limit.calls_key, id)
      if runs == '1' then state.running, has_freed = math.max(state.running - 1, 0), true end
      if units ~= '' and limit.unitsPerMinute then
        local more = tonumber(units) - tonumber(reserved)
        if more > 0 then
          limit.add(state, 0, more)
        elseif limit.refund ~= false then
          for _, count in ipairs(state.buckets) do
            if count[1] == tonumber(bucket) then
              count[3], state.units, has_freed = count[3] + more, state.units + more, true
            end
          end
        end
        learn_units(limit, tonumber(units))
      end
      if why == '' and tonumber(epoch) == state.epoch then
        if state.phase == 'probe' and state.probe == id then
          state.phase, state.ramp_ms, state.ramped, state.ramp_limit, has_freed = 'ramp', now, 0, 1, true
        end
        state.in_row = 0
      end
    end
    if limit.name == resting and state.rest_ms > now then rests_until = math.ceil(state.rest_ms) end
    if has_freed then wake_line(limit) end
    write_limit(limit)
  end
end
return {now, rests_until}
