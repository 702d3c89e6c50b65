--! include keys clock batches leases
--[[
  Read the journal of a running job, at the first durable call of a delivery.

  Input
    ARGV  1     owner
          2     job ID
          3     number of entries of the journal when this worker suspended the job, if it has them; then only these are read:
          then  fields of the waits that had no answer
  Keys touched
    arq:in-progress:{id}, aq:journal:{id}
  Output
    {} if the owner no longer holds the job, otherwise
    {in-progress value, by which later calls of this delivery name it; server time, ms; {field, entry}*}, or, if the number
    of entries is the same, {in-progress value, server time, false, {entry of each field}}
  A key of a wrong type at aq:journal:{id} makes the call fail. It is not deleted, since the job can't do without it.
]]
local owner, id, count = ARGV[1], ARGV[2], tonumber(ARGV[3])
local lease = get_all(IN_PROGRESS, {id})[1]
if not is_held_by(lease, owner) then return {} end

-- Return the entries of the given fields; nil if one is missing.
local function read_fields()
  local entries = {}
  for i = 4, #ARGV, MAX_ARGUMENTS do
    local some = redis.call('HMGET', JOURNAL .. id, unpack(ARGV, i, math.min(i + MAX_ARGUMENTS - 1, #ARGV)))
    for _, entry in ipairs(some) do
      if not entry then return nil end
      entries[#entries + 1] = entry
    end
  end
  return entries
end

local changed = count and redis.call('HLEN', JOURNAL .. id) == count and read_fields()
if changed then return {lease, now, false, changed} end
return {lease, now, redis.call('HGETALL', JOURNAL .. id)}
