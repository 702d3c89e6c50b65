--! include keys journal replay
--[[
  Say what has become of a step whose outcome is not known, and replay its dead job.

  Input
    ARGV  id, field of the journal, JSON text of the step's value or '' to run the step again
  Keys touched
    aq:journal:{id}; the keys of replay.lua
  Output
    'no-step' (the journal has no such step), 'ended' (its outcome is known), or the job's status as replay.lua lists it
]]
local id, field, value = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HGET', DEAD .. id, 'queue') ~= queue then return 'unknown' end
local entry = redis.call('HGET', JOURNAL .. id, field)
if not entry then return 'no-step' end
if has_ended(entry) then return 'ended' end
local status = replay_job(queue, id, '')
if status ~= 'replayed' then return status end
if value == '' then
  redis.call('HDEL', JOURNAL .. id, field)
else
  local arguments = string.match(entry, '"fp":"%x+"')
  write_entry(id, field, 'done', '{"delivery":0,' .. (arguments and arguments .. ',' or '') .. '"v":' .. value .. '}')
end
return status
