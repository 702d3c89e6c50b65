--! include keys
--[[
  Add to the queue's counters since the beginning.

  Input
    ARGV  {counter, increment}*
  Keys touched
    {queue}:stats
  Output
    none
]]
for i = 1, #ARGV, 2 do redis.call('HINCRBY', stats_key, ARGV[i], ARGV[i + 1]) end
