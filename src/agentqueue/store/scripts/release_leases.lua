--! include keys batches leases counters wakeups
--[[
  Release the leases of a worker that has crashed. Each call looks at 500 running jobs.

  Input
    ARGV  1  prefix of its in-progress values: worker ID and `/`, or an owner and `|`
          2  an owner whose leases stay, or ''
          3  how the worker ended, for the errors of the jobs
          4  offset into the running jobs
  Keys touched
    the levels; arq:in-progress: and aq:meta: of the jobs; counters; {queue}:wake
  Output
    {number of released leases, offset of the next call or -1 after the last one}
]]
local MAX_LOOKED_AT = 500
local prefix, kept_owner, reason, offset = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local released, crashed, looked_at = 0, 0, 0
local skip = offset
for level = 1, 4 do
  local running = redis.call('ZCOUNT', level_keys[level], '-inf', '(0')
  if skip >= running then
    skip = skip - running
  else
    local limit = MAX_LOOKED_AT - looked_at
    local ids = redis.call('ZRANGEBYSCORE', level_keys[level], '-inf', '(0', 'LIMIT', skip, limit)
    local leases = get_all(IN_PROGRESS, ids)
    for i = 1, #ids do
      local lease = leases[i]
      local is_theirs = lease and string.sub(lease, 1, #prefix) == prefix
      if is_theirs and not (kept_owner ~= '' and is_held_by(lease, kept_owner)) then
        crashed = crashed + release_after_crash(level, ids[i], lease, reason)
        released = released + 1
      end
    end
    looked_at, skip = looked_at + #ids, 0
    if looked_at >= MAX_LOOKED_AT then break end
  end
end
increment_counter(queue, 'crashed', crashed)
if released > 0 then wake_workers(queue, released) end
-- Released jobs are no longer among the running ones.
return {released, looked_at >= MAX_LOOKED_AT and offset + looked_at - released or -1}
