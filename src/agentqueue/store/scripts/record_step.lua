--! include keys clock wrong_types journal
--[[
  Write an entry of a job's journal, if the delivery goes on. An entry that has ended is never overwritten.

  Input
    ARGV  in-progress value of the delivery, id, field, state (done, raised, failed or intent), body (JSON),
          the events that the step has emitted (JSON list) or '', {field, value}* for the job's meta hash
  Keys touched
    arq:in-progress:{id}, aq:journal:{id}, aq:meta:{id}
  Output
    {} if another delivery has begun, otherwise
    {server time, ms} if the entry was written, {server time, ms; the entry that stands} if one had ended before
]]
local lease, id, field, state, body, events = unpack(ARGV, 1, 6)
if not is_delivery(id, lease) then return {} end
local found = write_entry(id, field, state, body)
if events ~= '' and not found then
  redis.call('HSET', JOURNAL .. id, string.gsub(field, '^step:', 'events:'), '{"is":"done","at":' .. at_text .. ',"v":' .. events .. '}')
end
if #ARGV > 6 then call_or_reset('HSET', META .. id, unpack(ARGV, 7)) end
return found and {now, found} or {now}
