--! include keys clock batches leases
--[[
  Read the journal of a running job, at the first durable call of a delivery.

  Input
    ARGV  owner, id
  Keys touched
    arq:in-progress:{id}, aq:journal:{id}
  Output
    {} if the owner no longer holds the job, otherwise
    {in-progress value, by which later calls of this delivery name it; server time, ms; {field, entry}*}
  A key of a wrong type at aq:journal:{id} makes the call fail. It is not deleted, since the job can't do without it.
]]
local owner, id = ARGV[1], ARGV[2]
local lease = get_all(IN_PROGRESS, {id})[1]
if not is_held_by(lease, owner) then return {} end
return {lease, now, redis.call('HGETALL', JOURNAL .. id)}
