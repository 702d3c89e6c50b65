--! include keys clock dead_letters
--[[
  Delete dead letters, and the results and streams of their jobs. The IDs may be enqueued again; a result that stays would make them
  known.

  Input
    ARGV  IDs
  Keys touched
    aq:dead:{id}, arq:result:{id}, aq:stream:{id}, {queue}:dead and its indexes by fingerprint
  Output
    {number of dead letters that were deleted, server time in ms}
]]
local deleted = 0
for i = 1, #ARGV do
  local id = ARGV[i]
  if redis.call('HGET', DEAD .. id, 'queue') == queue then
    delete_dead_letter(id)
    redis.call('DEL', RESULT .. id, STREAM .. id)
    deleted = deleted + 1
  end
end
return {deleted, now}
