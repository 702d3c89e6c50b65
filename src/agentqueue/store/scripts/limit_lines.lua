--! include limits
--[[
  Count the calls that wait for limits, of all tenants and queues. Tickets of dead workers are dropped.

  Input
    ARGV  names of the limits
  Keys touched
    aq:limits; aq:limit: and aq:limit-line: of the limits; arq:in-progress: of the jobs that wait
  Output
    {number of calls that wait}* in the order of the names; 0 for a limit without a definition
]]
local lengths = {}
for i, name in ipairs(ARGV) do
  lengths[i] = 0
  if redis.call('EXISTS', LIMIT_LINE .. name) == 1 then
    local limit = read_limit(name, '')
    if limit then
      limit.tenant = nil
      lengths[i] = #order_line(limit)
    end
  end
end
return lengths
