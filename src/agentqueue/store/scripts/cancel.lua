--! include keys cancellation
--[[
  Cancel a waiting job, or ask the worker of a running job, and of one with a journal, to cancel it.

  Input
    ARGV  id, result, keep time of the result in ms (0: no result)
  Keys touched
    the levels; arq:job:, arq:in-progress:, arq:retry:, arq:result:, aq:meta:, aq:dead: and the journal's of the job;
    {queue}:suspended:*, {queue}:wake, arq:abort
  Output
    'cancelled', 'asked' (its worker will cancel it), 'final' (too late) or 'unknown'
]]
return cancel_job(queue, ARGV[1], ARGV[2], tonumber(ARGV[3]))
