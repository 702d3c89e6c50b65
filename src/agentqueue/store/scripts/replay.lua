--! include keys clock replay
--[[
  Replay dead letters: enqueue their jobs again, at the end of the queue and without their failed attempts.
  They keep their checkpoint and their journal, with which they go on where they have stopped, unless the call names
  another place.

  Input
    ARGV  1     '' to go on; 'start' to run all again; a field of the journal to run that step and what follows again
          then  IDs
  Keys touched
    aq:dead:{id} and its indexes; arq:job:, arq:result:, arq:retry:, aq:meta: and aq:children: of each job; aq:journal:,
    aq:children: and aq:returns: of its parent; the keys of enqueue.lua
  Output
    {server time in ms, {status of each ID}}; a status is 'replayed', 'unknown' (this queue has no such dead letter),
    'live' (a job with that ID is enqueued already), 'bare' (the record is gone) or 'no-step' (its journal has no such
    field)
]]
local statuses = {}
for i = 2, #ARGV do statuses[i - 1] = replay_job(queue, ARGV[i], ARGV[1]) end
return {now, statuses}
