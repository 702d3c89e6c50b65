--! include keys enqueue
--[[
  Enqueue jobs whose IDs are not known yet.

  Input
    ARGV  1 if the IDs were drawn at random just now, else 0; {id, level, delay ms, record}*
  Keys touched
    the levels, {queue}:seq, {queue}:wake, counters, aq:queues; arq:job:, arq:result: and aq:dead: of each job
  Output
    {positions, from 1, of the IDs that are already known}
]]
local ids_are_random = ARGV[1] == '1'
local jobs = {}
for i = 2, #ARGV do jobs[i - 1] = ARGV[i] end
return enqueue_jobs(queue, jobs, ids_are_random)
