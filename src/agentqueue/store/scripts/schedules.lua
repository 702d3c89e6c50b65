--! include keys schedules
--[[
  Change schedules of a queue, and enqueue or take back their next ticks.

  Input
    ARGV  {operation, name, definition as it was read ('' for none), argument, argument}*
            define   JSON, due times in ms with commas between, or 'keep' to keep those that it has
            remove   -, -
            extend   `last known due time|number of missed ticks that are left out`, due times to add
            hold     note of who pauses it, -
            release  -, due times
  Keys touched
    {queue}:schedules, {queue}:ticks, the keys of enqueue.lua, the keys of the ticks that are taken back
  Output
    {1 if the operation was done, 0 if the definition has changed since it was read}, for each operation
]]
local done = {}
for i = 1, #ARGV, 5 do
  local operation, name, expected, first, second = unpack(ARGV, i, i + 4)
  local schedule = open_schedule(queue, name)
  local is_current = schedule.text == expected
  if is_current and operation == 'extend' then
    local known_until, missed = string.match(first, '^(%d*)|(%d+)$')
    schedule.extend(known_until, second, tonumber(missed))
  elseif is_current and operation == 'release' then
    schedule.release(second)
  elseif is_current then
    schedule[operation](first, second)
  end
  done[#done + 1] = is_current and 1 or 0
end
return done
