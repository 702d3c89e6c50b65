--! include keys wakeups
--[[
  Pause the queue, or resume it.

  Input
    ARGV  the note to keep while the queue is paused, or '' to resume
  Keys touched
    {queue}:paused, {queue}:wake
  Output
    1 if the call changed anything, else 0
]]
local note = ARGV[1]
if note ~= '' then return redis.call('SET', paused_key, note, 'NX') and 1 or 0 end
local was_paused = redis.call('DEL', paused_key)
wake_workers(queue, 10)
return was_paused
