--! include keys batches wrong_types leases
--[[
  Write notes of a running job, such as its progress or checkpoint, if the owner still holds the job.

  Input
    ARGV  owner, id, {field, value}*
  Keys touched
    arq:in-progress:{id}, aq:meta:{id}
  Output
    1, or 0 if the owner no longer holds the job
]]
local owner, id = ARGV[1], ARGV[2]
local lease = get_all(IN_PROGRESS, {id})[1]
if not is_held_by(lease, owner) then return 0 end
call_or_reset('HSET', META .. id, unpack(ARGV, 3))
return 1
