--! include keys clock batches wrong_types journal waits children
--[[
  Ask for what a gather of a running job has come to. If it is complete, its answer is written to the journal, and stays
  the same in later deliveries. If not, it becomes a wait in the journal, which the return that completes it changes.

  Input
    ARGV  1     in-progress value of the parent's delivery
          2     ID of the parent
          3     field of the journal
          4     what the gather waits for, JSON: a string for people
          5     number of children that must be done
          6     number of failed children with which the gather has failed; 0: it takes failures along
          7     ms until it ends by itself, or ''
          8     number of the delivery
          9     number of values for the job's meta hash, if the gather is complete now
          then  {field, value}* of them
          then  IDs of the children, as send_children.lua has returned them
  Keys touched
    arq:in-progress:, aq:journal:, aq:children: and aq:meta: of the parent
  Output
    {} if another delivery has begun, otherwise {text of the field, server time in ms}: a wait as includes/children.lua
    describes it, or
      {"is":"done","at":ms,"delivery":…,"round":…,"settled":…,"v":VALUE}. A replay of the parent asks again unless it is
      settled: no child has made it fail, and it was in time. VALUE is
        {"all":true}     all children are done, or have ended if failures are taken along
        {"ended":[…]}    these are (positions from 0), and they are enough
        {"failed":N}     the child at this position has failed
        {"late":true}    the time was over
]]
local lease, id, field, what, need, limit, end_ms, delivery, meta_count = unpack(ARGV, 1, 9)
if not is_delivery(id, lease) then return {} end
local journal, children = JOURNAL .. id, CHILDREN .. id
need, limit = tonumber(need), tonumber(limit)
local takes_failures = limit == 0
local round = redis.call('HGET', children, '#round') or '0'
local before = 9 + tonumber(meta_count) -- position before the first child's ID
local total = #ARGV - before
if takes_failures then limit = total + 1 end

local text = redis.call('HGET', journal, field) or ''
local is_of_this_round = string.match(text, '"round":(%d+),') == round
if has_ended(text) and (is_of_this_round or string.find(text, '"settled":true,"v":', 1, true)) then return {text, now} end
if not is_of_this_round then
  redis.call('HDEL', journal, field)
  text = ''
end

local states, entries, ended, first_failed = {}, {}, {}, nil
local done, failed = 0, 0
for i = before + 1, #ARGV, MAX_ARGUMENTS do
  local found = redis.call('HMGET', children, unpack(ARGV, i, math.min(i + MAX_ARGUMENTS - 1, #ARGV)))
  for j = 1, #found do
    local position = i + j - 1 - before -- from 1
    local entry = found[j] or error('job ' .. id .. ' has not sent child ' .. ARGV[before + position], 0)
    entries[position], states[position] = entry, string.match(entry, '^%l+')
    if states[position] == 'done' then
      done = done + 1
    elseif states[position] ~= 'pending' then
      failed, first_failed = failed + 1, first_failed or position
    end
    if states[position] == 'done' or (takes_failures and states[position] ~= 'pending') then
      ended[#ended + 1] = position - 1
    end
  end
end

local function set_entries(pairs_to_set)
  for i = 1, #pairs_to_set, MAX_ARGUMENTS do
    redis.call('HSET', children, unpack(pairs_to_set, i, math.min(i + MAX_ARGUMENTS - 1, #pairs_to_set)))
  end
end

-- Note that the parent knows the failure of the child at a position, so that a replay of the child changes nothing. As a
-- result of this gather it stands in a replay of the parent too.
local seen = {}
local function see_failure(position)
  local state = states[position]
  if state == 'pending' or state == 'done' or (state ~= 'failed' and not takes_failures) then return end
  local _, child_queue, fingerprint, child_round, call, gathers = decode_child(entries[position])
  if takes_failures then gathers = (state == 'kept' and gathers or '') .. '\n' .. field end
  state = takes_failures and 'kept' or 'seen'
  seen[#seen + 1] = ARGV[before + position]
  seen[#seen + 1] = encode_child(state, child_queue, fingerprint, child_round, call, gathers)
end

local function answer(value, is_settled)
  set_entries(seen)
  local body = string.format(
    '{"delivery":%s,"round":%s,"settled":%s,"v":%s}', delivery, round, is_settled and 'true' or 'false', value
  )
  write_entry(id, field, 'done', body)
  if before > 9 then call_or_reset('HSET', META .. id, unpack(ARGV, 10, before)) end
  return {redis.call('HGET', journal, field), now}
end

local ends = string.match(text, '"until":(%d+),')
if is_pending(text) and ends and tonumber(ends) <= now then return answer('{"late":true}', false) end
if failed >= limit then
  see_failure(first_failed)
  return answer('{"failed":' .. first_failed - 1 .. '}', false)
end
if is_complete(need, limit, total, done, failed) then
  for position = 1, takes_failures and total or 0 do see_failure(position) end
  local value = #ended == total and '{"all":true}' or '{"ended":[' .. table.concat(ended, ',') .. ']}'
  return answer(value, true)
end

-- Register the gather with the children that have not ended, and with failures, which may be taken back.
local waiting, mark = {}, '\n' .. field
for position = 1, total do
  local entry = entries[position]
  if (states[position] == 'pending' or states[position] == 'failed') and not string.find(entry .. '\n', mark .. '\n', 1, true) then
    waiting[#waiting + 1] = ARGV[before + position]
    waiting[#waiting + 1] = entry .. mark
  end
end
set_entries(waiting)
local since = string.match(text, '"since":(%d+),') or now_text
if not ends and end_ms ~= '' then ends = format_number(now + tonumber(end_ms)) end
text = PENDING .. '"children","for":' .. what .. ',"since":' .. since .. (ends and ',"until":' .. ends or '')
  .. string.format(',"round":%s,"need":%d,"limit":%d,"of":%d,"done":%d,"failed":%d}', round, need, limit, total, done, failed)
redis.call('HSET', journal, field, text)
return {text, now}
