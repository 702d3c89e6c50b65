--! include keys cancellation children
--[[
  Cancel a waiting job, or ask the worker of a running job, and of one with a journal, to cancel it. The children that
  it waits for are cancelled too: up to 100 in this call, the others by housekeeping.

  Input
    ARGV  id, result, keep time of the result in ms (0: no result), 1 to cancel its children too, else 0
  Keys touched
    the levels; arq:job:, arq:in-progress:, arq:retry:, arq:result:, aq:meta:, aq:dead: and the journal's keys of the
    job; {queue}:suspended:*, {queue}:wake; arq:abort; aq:cascades; the same of its children; aq:journal:, aq:children:
    and aq:returns: of its parent
  Output
    'cancelled', 'asked' (its worker will cancel it), 'final' (too late) or 'unknown'
]]
local id, result, keep_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
if ARGV[4] == '0' and redis.call('EXISTS', CHILDREN .. id) == 1 then redis.call('HSET', CHILDREN .. id, '#leave', 1) end
local status = cancel_job(queue, id, result, keep_ms)
if status == 'cancelled' then continue_cascades() end
wake_parents()
return status
